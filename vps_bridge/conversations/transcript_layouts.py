"""Layouts of transcripts that speech-to-text programs write, read as rows of segments.

A row has `id`, `text`, `start`, `end`, `speaker` and `words` as far as the file says them; times are seconds.

- whisper, whisperX, OpenAI: `segments`, with `words` in each or, as OpenAI has them, beside `segments`. WhisperX gives
  no times to words it cannot align, such as numerals.
- Deepgram: `results.utterances`, else the paragraphs or the words of the best alternative of each channel.
- AssemblyAI: `utterances`, else `words`; times are whole milliseconds.
- ElevenLabs: `words`, with `speaker_id`. Gladia: `result.transcription.utterances`.
- whisper.cpp: `transcription`, with `offsets` in milliseconds.
- Services that give only words: `service_layouts`; segments under names of their own: `platform_layouts`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from statistics import median
from typing import Any

from vps_bridge.conversations.platform_layouts import KNOWN_PLATFORMS, find_platform_rows
from vps_bridge.conversations.service_layouts import KNOWN_SERVICES, find_words, read_seconds

KNOWN_LAYOUTS = (
    "the OMI backend's list of segments (also under `segments` or `transcript_segments`), whisper and whisperX "
    "(`segments`), OpenAI verbose_json (`segments`, `words`), Deepgram (`results.channels`, `results.utterances`), "
    f"AssemblyAI (`utterances`, `words`), ElevenLabs, Gladia, whisper.cpp, {KNOWN_SERVICES}, {KNOWN_PLATFORMS}"
)
MAX_PAUSE_S = 1.0  # a longer one ends a segment, where a layout has only words
MOST_SECONDS = 60  # words or utterances of whole numbers that last longer than this are in milliseconds
_LISTS = ("segments", "transcript_segments")
_WORD_TEXTS = ("text", "punctuated_word", "word")

Row = dict[str, Any]


def find_rows(content: object) -> list[Any] | None:
    """Return the segments of a transcript as rows, in the order of the file; None where its layout is unknown."""
    if isinstance(content, list):
        return [_with_plain_words(row) for row in content]
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("response"), dict):
        return find_rows(content["response"])  # a finished operation of Google's
    if platform_rows := find_platform_rows(content):
        return [_with_plain_words(_without_nobody(row)) for row in platform_rows]
    transcription = content.get("transcription")
    if isinstance(transcription, list):
        return [_read_whisper_cpp(row) for row in transcription]
    result = content.get("result")
    if isinstance(result, dict) and isinstance(result.get("transcription"), dict):
        return find_rows(result["transcription"])
    results = content.get("results")
    if isinstance(results, dict) and isinstance(results.get("channels", results.get("utterances")), list):
        return _read_deepgram(results)
    if service_words := find_words(content):
        return _group(_plain_words(_numbered(service_words)))
    lists = [content[name] for name in _LISTS if isinstance(content.get(name), list)]
    found = next(filter(None, lists), lists[0] if lists else None)
    words = _list_of(content, "words")
    if found is not None and (found or not words):
        return _with_words_beside([_with_plain_words(row) for row in found], words)
    if words or _list_of(content, "utterances"):
        return _read_utterances(content, words)
    return None


def _read_utterances(content: Row, words: list[Row]) -> list[Any]:
    """Read AssemblyAI's layout, or words alone as OpenAI gives them."""
    utterances = _list_of(content, "utterances")
    all_words = words or [word for item in utterances for word in _list_of(item, "words")]
    unit_s = 0.001 if _are_milliseconds(all_words or utterances) else 1.0
    if utterances:
        return [_with_plain_words(_without_nobody(_scaled(item, unit_s))) for item in utterances]
    return [_with_plain_words(row) for row in _group(_plain_words([_scaled(word, unit_s) for word in words]))]


def _numbered(words: list[Row]) -> list[Row]:
    """Give speakers that a service names its own way numbers, in the order in which they first speak."""
    numbers: dict[object, int] = {}
    return [
        {**word, "speaker": numbers.setdefault(name, len(numbers)) if _is_name(name) else name}
        for word in words
        for name in (word["speaker"],)
    ]


def _is_name(speaker: object) -> bool:
    """Whether this can name a speaker; an object, a list or NaN does not, and the segment is refused for it."""
    return isinstance(speaker, str | int) or (isinstance(speaker, float) and math.isfinite(speaker))


def _read_whisper_cpp(row: object) -> Any:  # noqa: ANN401 - what is no object is refused by the reader of rows
    offsets = row.get("offsets") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(offsets, dict):
        return row
    times = {"start": offsets.get("from"), "end": offsets.get("to")}
    return {"text": row.get("text"), **_scaled(times, 0.001)}


def _are_milliseconds(timed: Sequence[Row]) -> bool:
    times = [(item.get("start"), item.get("end")) for item in timed]
    whole = [(start, end) for start, end in times if isinstance(start, int) and isinstance(end, int)]
    return bool(whole) and len(whole) == len(times) and median(end - start for start, end in whole) > MOST_SECONDS


def _scaled(item: Row, unit_s: float) -> Row:
    timed = [
        name
        for name in ("start", "end")
        if isinstance(item.get(name), int | float) and not isinstance(item[name], bool)
    ]
    words = {"words": [_scaled(word, unit_s) for word in _list_of(item, "words")]} if item.get("words") else {}
    return {**item, **{name: _to_seconds(item[name], unit_s) for name in timed}, **words}


def _to_seconds(time: float, unit_s: float) -> float:
    try:
        return round(time * unit_s, 6)
    except OverflowError:  # whole numbers have no largest one, seconds do: refused as too long
        return math.inf


def _read_deepgram(results: Row) -> list[Row]:
    channels = _list_of(results, "channels")
    speakers: dict[tuple[object, object], int] = {}
    has_channels = len(channels) > 1 or any(item.get("channel") for item in _list_of(results, "utterances"))

    def number(channel: object, speaker: object) -> object:
        """Tell the speakers of several channels apart: each channel counts from 0."""
        if not has_channels or not all(name is None or _is_name(name) for name in (channel, speaker)):
            return speaker
        return speakers.setdefault((channel, speaker), len(speakers))

    rows = [
        {**item, "text": item.get("transcript"), "speaker": number(item.get("channel"), item.get("speaker"))}
        for item in _list_of(results, "utterances")
    ]
    if not rows:
        for index, channel in enumerate(channels):
            best = next(iter(_list_of(channel, "alternatives")), {})
            rows += [{**row, "speaker": number(index, row.get("speaker"))} for row in _read_alternative(best)]
        rows.sort(key=lambda row: row["start"] if isinstance(row.get("start"), int | float) else 0.0)
    return [_with_plain_words(_without_nobody(row)) for row in rows]


def _without_nobody(row: Row) -> Row:
    """Leave a speaker out who is not named: a transcript without speakers takes nobody's label away."""
    return {name: value for name, value in row.items() if name != "speaker" or value is not None}


def _read_alternative(best: Row) -> list[Row]:
    words = _plain_words(_list_of(best, "words"))
    paragraphs = best.get("paragraphs")
    rows = []
    for item in _list_of(paragraphs, "paragraphs") if isinstance(paragraphs, dict) else ():
        text = " ".join(str(sentence.get("text") or "") for sentence in _list_of(item, "sentences"))
        rows.append({"text": text, **{name: item.get(name) for name in ("start", "end", "speaker")}})
    return _with_words_beside(rows, words) if rows else _group(words)


def _with_plain_words(row: object) -> Any:  # noqa: ANN401 - what is no object is refused by the reader of rows
    """Bring the words of a row into our form; a row without words is left as it is."""
    if not isinstance(row, dict) or not isinstance(row.get("words"), list):
        return row
    start, end = _time(row, "start"), _time(row, "end")
    plain = _plain_words(row["words"], start, end)
    return {**row, "words": [{name: word[name] for name in ("text", "start_s", "end_s")} for word in plain]}


def _plain_words(words: Iterable[object], start_s: float | None = None, end_s: float | None = None) -> list[Row]:
    """Return words as {text, start_s, end_s, speaker}.

    Words without times share the time between their neighbours evenly; before the first and after the last word with
    times, and where none has any, that up to the segment's start or end. Words without text are left out. Where no word
    and no segment has a time, none is made up.
    """
    found = [plain for word in words if (plain := _plain_word(word)) is not None]
    known = [index for index, word in enumerate(found) if word["start_s"] is not None and word["end_s"] is not None]
    if not known and start_s is None and end_s is None:
        return found
    for before, after in pairwise([-1, *known, len(found)]):
        untimed = found[before + 1 : after]
        left_s = found[before]["end_s"] if before >= 0 else start_s
        right_s = found[after]["start_s"] if after < len(found) else end_s
        left_s = (right_s or 0.0) if left_s is None else left_s
        step_s = max(0.0, (left_s if right_s is None else right_s) - left_s) / max(1, len(untimed))
        for place, word in enumerate(untimed):
            word["start_s"], word["end_s"] = left_s + place * step_s, left_s + (place + 1) * step_s
    return found


def _plain_word(word: object) -> Row | None:
    if not isinstance(word, dict):
        word = {"text": word}
    text = next((word[name] for name in _WORD_TEXTS if word.get(name) not in (None, "")), "")
    times = {"start_s": _time(word, "start"), "end_s": _time(word, "end")}
    speaker = word.get("speaker", word.get("speaker_id"))
    return {"text": str(text).strip(), **times, "speaker": speaker} if str(text).strip() else None


def _with_words_beside(rows: list[Any], words: list[Row]) -> list[Any]:
    """Give words that stand beside the segments to that in which their middle is, if none has words of its own."""
    if not words or any(not isinstance(row, dict) or row.get("words") for row in rows):
        return rows
    plain = [{name: word[name] for name in ("text", "start_s", "end_s")} for word in _plain_words(words)]
    if any(word["start_s"] is None for word in plain):
        return rows  # without any time there is no telling where they belong
    order = sorted(range(len(rows)), key=lambda index: (_time(rows[index], "start") or 0.0, index))
    # By its start the first segment that ends after a moment is the one it lies in, or, in a pause, the next one.
    latest_ends = list(accumulate((_time(rows[index], "end") or 0.0 for index in order), max))
    given: list[list[Row]] = [[] for _ in rows]
    for word in sorted(plain, key=lambda word: word["start_s"]):
        place = bisect_right(latest_ends, (word["start_s"] + word["end_s"]) / 2)
        given[order[min(place, len(order) - 1)]].append(word)
    return [{**row, "words": its} for row, its in zip(rows, given, strict=True)]


def _group(words: list[Row]) -> list[Row]:
    """Make segments of words: one ends where the speaker changes, a sentence ends, a pause follows, or time goes back.

    It goes back where the words of one channel follow all those of another.
    """
    rows: list[Row] = []
    for word in words:
        last = rows[-1]["words"][-1] if rows else None
        if (
            last is None
            or last["speaker"] != word["speaker"]
            or last["text"].endswith((".", "?", "!"))
            or (word["start_s"] or 0.0) - (last["end_s"] or 0.0) > MAX_PAUSE_S
            or (last["start_s"] or 0.0) - (word["start_s"] or 0.0) > MAX_PAUSE_S
        ):
            rows.append({"start": word["start_s"], "speaker": word["speaker"], "words": []})
        rows[-1]["words"].append(word)
        rows[-1]["end"] = word["end_s"]
    return [{**_without_nobody(row), "text": " ".join(word["text"] for word in row["words"])} for row in rows]


def _time(item: Row, name: str) -> float | None:
    """Return a time under our name or theirs; None where it is missing, or NaN as some programs write it."""
    time_s = read_seconds(item.get(f"{name}_s", item.get(name)))
    return time_s if time_s is not None and math.isfinite(time_s) else None


def _list_of(item: object, name: str) -> list[Row]:
    """Return the objects of a list; none where there is no list."""
    found = item.get(name) if isinstance(item, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
