"""Transcript files: JSON of several speech-to-text programs, SRT, WebVTT, NIST STM, or whisper's TSV."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from broker.text_files import read_at_most
from schemas.conversation import MAX_SEGMENTS, TranscriptSegment
from schemas.record import is_beyond_seconds
from schemas.text import KeyRepeated, decode_text, has_mark, split_lines, unique_keys
from vps_bridge.conversations.json_paths import UnreadableValue, path_of
from vps_bridge.conversations.store import speaker_name
from vps_bridge.conversations.subtitles import FORMATS, SubtitlesError, read_subtitles
from vps_bridge.conversations.transcript_layouts import KNOWN_LAYOUTS, find_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

MAX_FILE_BYTES = 64 * 2**20
MAX_VALUES = 3_000_000  # ten hours of words, each with eight fields; read, they take some hundred MB of memory
MAX_SPEAKER_DIGITS = 18  # a longer number fits no column of a database
MAX_INTEGER_DIGITS = 1000
_STM_NOBODY = frozenset({"inter_segment_gap", "excluded_region"})  # what stands for a speaker where nobody is scored
_TSV_HEADER = ["start", "end", "text"]
_STM_IGNORED = "ignore_time_segment_in_scoring"  # and for words
_VALUE_MARKS = (b"{", b"[", b",")
_SHAPE = '[{"id", "text", "start", "end", "speaker", "is_user", "person_id"}, …] or {"segments": […]}'


class TranscriptError(Exception):
    """A transcript file that cannot be imported; the message names file, place and remedy."""


def read_transcript(path: Path, conversation_id: str, *, keep_speakers: bool = True) -> tuple[TranscriptSegment, ...]:
    """Read the segments of a transcript file.

    A file named `.stm` is NIST STM (`file channel speaker start end [<label>] text`) of one recording. Its speakers are
    names that people gave: each becomes a `person_id` and counts as a human's label. Lines that scoring leaves out are
    no segments. `.srt` and `.vtt` are subtitles, `.tsv` is what whisper writes.
    Every other file is JSON in one of the layouts of `transcript_layouts`. Times are in seconds, under `start` and
    `end`, or `start_s` and `end_s`.

    Args:
        path: the file, UTF-8 or what its byte-order mark says.
        conversation_id: a segment without an id gets one made of this and its index, the same at every import.
        keep_speakers: False takes only text and times, and no speaker, owner or person.

    Raises:
        TranscriptError: the file is missing, too large, or of another format, or one of its segments is invalid.
    """
    text = _read_text(path)
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        content, rows = None, _read_cues(path, text, suffix)
    elif suffix in _LINES:
        content, rows = None, list(_LINES[suffix](path, text))
    else:
        content, rows = _read_json(path, text)
    return read_rows(path, rows, conversation_id, content=content, keep_speakers=keep_speakers)


def read_rows(
    source: Path | str,
    rows: Sequence[Any],
    conversation_id: str,
    *,
    content: object = None,
    keep_speakers: bool = True,
) -> tuple[TranscriptSegment, ...]:
    """Return the segments of objects as `read_transcript` finds them in a file.

    Args:
        source: names it in errors.
        rows: an object for each segment.
        conversation_id: segments without an id are named after it.
        content: the document they were found in; errors name the field in it.
        keep_speakers: whether segments keep the speakers they name.

    Raises `TranscriptError`.
    """
    if len(rows) > MAX_SEGMENTS:
        raise TranscriptError(f"{source}: {len(rows)} segments; at most {MAX_SEGMENTS} fit a conversation. Split it.")
    segments = tuple(
        _read_segment(f"{source}, segment {index}", f"{conversation_id}-{index:05d}", row, content, keep_speakers)
        for index, row in enumerate(rows)
    )
    seen: set[str] = set()
    for segment in segments:
        if segment.id in seen:
            raise TranscriptError(f"{source}: the id {segment.id!r} stands twice. Make it unique, or leave ids out.")
        seen.add(segment.id)
    return segments


def _read_text(path: Path) -> str:
    try:
        data = read_at_most(path, MAX_FILE_BYTES + 1)  # a pipe and a device say no size, and some never end
        if len(data) > MAX_FILE_BYTES:
            raise TranscriptError(f"{path} is larger than {MAX_FILE_BYTES} bytes; that is no transcript. Split it.")
        if sum(map(data.count, _VALUE_MARKS)) > MAX_VALUES:
            raise TranscriptError(f"{path} holds more than {MAX_VALUES} values; that is no transcript. Split it.")
        if _is_binary(data):
            raise TranscriptError(f"{path} is no text. Give a transcript; audio goes to `omi-bridge publish`.")
        return decode_text(data)
    except OSError as error:
        raise TranscriptError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise TranscriptError(f"{path} is not UTF-8 text. Convert it, e.g. with iconv.") from error


def _is_binary(data: bytes) -> bool:
    """Whether these are no characters of any encoding: text has no zero bytes but where a mark says UTF-16 or 32."""
    return b"\0" in data and not has_mark(data)


def _read_cues(path: Path, text: str, suffix: str) -> list[dict[str, Any]]:
    try:
        return read_subtitles(text, suffix)
    except SubtitlesError as error:
        raise TranscriptError(f"{path}: {error}.") from error


def _read_json(path: Path, text: str) -> tuple[object, list[Any]]:
    """Return what is in the file, and the rows that its layout makes of it."""
    try:
        content = json.loads(text, object_pairs_hook=unique_keys, parse_int=_read_integer)
    except KeyRepeated as error:
        raise TranscriptError(f"{path}: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise TranscriptError(
            f"{path} is not JSON ({error}). Expected {_SHAPE}, or .stm, .srt, .vtt or .tsv."
        ) from error
    try:
        rows = find_rows(content)
    except UnreadableValue as error:
        raise TranscriptError(f"{path}, {path_of(content, error.value) or 'a value'} is {error.expected}.") from error
    if rows is None:
        raise TranscriptError(f"{path} holds no list of segments in a layout known here. Known are {KNOWN_LAYOUTS}.")
    return content, rows


def _read_integer(digits: str) -> int:
    """Return a whole number; one that is longer than Python reads stays too large for any field, to be refused."""
    return int(digits[:MAX_INTEGER_DIGITS])


def _read_stm(path: Path, text: str) -> Iterator[dict[str, Any]]:
    numbers: dict[str, int] = {}
    recordings: set[str] = set()
    for line_number, line in enumerate(split_lines(text), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        try:
            recording, _, name, start_s, end_s = fields[:5]
            row: dict[str, Any] = {"start": float(start_s), "end": float(end_s)}
        except ValueError as error:
            raise TranscriptError(
                f"{path}, line {line_number}: expected `file channel speaker start end text`."
            ) from error
        recordings.add(recording)
        if len(recordings) > 1:  # the times of each begin anew: lines of one would be laid over those of another
            raise TranscriptError(
                f"{path}, line {line_number}: another recording begins than the lines before are of. Give each a file."
            )
        words = fields[5] if len(fields) > 5 else ""  # noqa: PLR2004 - the sixth field is the text
        if words.startswith("<") and ">" in words:
            words = words.partition(">")[2].strip()
        if name.lower() in _STM_NOBODY or words.lower() == _STM_IGNORED:
            continue
        number = numbers.setdefault(name, len(numbers))
        yield row | {
            "text": words,
            "speaker": speaker_name(number),
            "person_id": name,
            "label_source": "manual",
        }


def _read_tsv(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """Read what whisper writes: `start`, `end` and `text` parted by tabs, times in whole milliseconds."""
    for line_number, line in enumerate(split_lines(text), start=1):
        start, _, rest = line.partition("\t")
        end, tab, words = rest.partition("\t")
        if not line.strip() or (line_number == 1 and line.split() == _TSV_HEADER):
            continue
        if not (tab and start.isascii() and start.isdigit() and end.isascii() and end.isdigit()):
            raise TranscriptError(
                f"{path}, line {line_number}: expected start, end (whole milliseconds) and text, parted by tabs."
            )
        yield {"start": _read_integer(start) / 1000, "end": _read_integer(end) / 1000, "text": words.strip()}


def _say_most(item: ErrorDetails) -> str:
    """Say how much fits where there is too much."""
    kind = "characters" if item["type"] == "string_too_long" else "words"
    return f" At most {item['ctx']['max_length']} {kind} fit there: split or shorten it."


_LINES = {".stm": _read_stm, ".tsv": _read_tsv}


def _read_speaker(speaker: object, speaker_id: object) -> object:
    """Return a segment's speaker; a number, also one written as text, is that number's name, and below 0 nobody."""
    for value in (speaker, speaker_id):
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not abs(value) < 10**MAX_SPEAKER_DIGITS:  # also what is not a number (NaN): smaller than nothing
                return value  # no speaker: the segment is refused
            if value == int(value):
                return speaker_name(int(value)) if value >= 0 else None
        elif isinstance(value, str) and value.strip():
            is_number = value.isascii() and value.isdigit() and len(value) <= MAX_SPEAKER_DIGITS
            return speaker_name(int(value)) if is_number else value
        elif value is not None and value != "":
            return value  # no speaker: the segment is refused
    return None


def _read_segment(place: str, made_id: str, row: object, content: object, keep_speakers: bool) -> TranscriptSegment:  # noqa: FBT001
    if not isinstance(row, dict):
        raise TranscriptError(f"{place}: not an object. Expected {_SHAPE}.")
    fields: dict[str, Any] = {
        "id": made_id if row.get("id") in (None, "") else str(row["id"]),
        "start_s": row.get("start_s", row.get("start")),
        "end_s": row.get("end_s", row.get("end")),
    }
    fields |= {name: row[name] for name in ("text", "words") if name in row}
    if keep_speakers:
        fields |= {name: row[name] for name in ("is_user", "person_id") if name in row}
        if {"speaker", "speaker_id"} & row.keys():
            fields["speaker"] = _read_speaker(row.get("speaker"), row.get("speaker_id"))
        label_source = row.get("label_source", row.get("speaker_label_source"))
        if label_source in ("manual", "auto"):
            fields["label_source"] = label_source
    try:
        return TranscriptSegment.model_validate(fields)
    except ValidationError as error:
        items = error.errors()
        wrong = ", ".join(sorted({str(item["loc"][0]) for item in items}))
        paths = [found for item in items if (found := path_of(content, item["input"])) is not None]
        wrong += f" (at {paths[0]})" if paths else ""
        hint = " It looks like milliseconds: send seconds." if any(map(is_beyond_seconds, items)) else ""
        hint += "".join({_say_most(item) for item in items if item["type"] in ("string_too_long", "too_long")})
        raise TranscriptError(f"{place}: wrong or missing {wrong}. Expected {_SHAPE}.{hint}") from error
