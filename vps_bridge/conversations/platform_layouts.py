"""Transcripts of programs and platforms that give segments under names of their own, read as rows of segments.

A row has `text`, `start`, `end`, and where the file says them `speaker` and `words`; times are seconds.

- Amazon Transcribe Call Analytics: `Transcript`, milliseconds, the party as `ParticipantRole`.
- Azure fast transcription: `phrases`, milliseconds.
- Coqui and DeepSpeech: `transcripts[].words` with `start_time` and `duration`.
- Google, of a finished operation: its answer under `response`.
- NVIDIA NeMo: `timestamp.segment` and `timestamp.word`.
- Podcast namespace: `segments` with `startTime`, `endTime` and `body`.
- Soniox: `tokens`, pieces of words in milliseconds; a new word begins with a space.
- Transformers pipelines: `chunks` with `timestamp`, of sentences or of words; speakers beside them, in `speakers`.
- YouTube (json3): `events` with `segs`, milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vps_bridge.conversations.service_layouts import objects_of, read_seconds

KNOWN_PLATFORMS = (
    "Amazon Call Analytics, Azure fast transcription, Coqui, NVIDIA NeMo, the podcast namespace, Soniox, transformers "
    "pipelines, YouTube"
)

Row = dict[str, Any]


def find_platform_rows(content: Mapping[str, Any]) -> list[Row] | None:
    """Return the segments of a transcript as rows; None where it is of none of these."""
    return next((rows for read in _READERS if (rows := read(content))), None)


def _read_call_analytics(content: Mapping[str, Any]) -> list[Row]:
    return [
        {
            **_in_milliseconds(turn, "BeginOffsetMillis", "EndOffsetMillis"),
            "text": turn.get("Content"),
            "speaker": turn.get("ParticipantRole"),
            "words": [
                {**_in_milliseconds(item, "BeginOffsetMillis", "EndOffsetMillis"), "text": item.get("Content")}
                for item in objects_of(turn, "Items")
            ],
        }
        for turn in objects_of(content, "Transcript")
    ]


def _read_azure_fast(content: Mapping[str, Any]) -> list[Row]:
    return [
        {
            **_with_length(phrase),
            "text": phrase.get("text"),
            "speaker": phrase.get("speaker"),
            "words": [{**_with_length(word), "text": word.get("text")} for word in objects_of(phrase, "words")],
        }
        for phrase in objects_of(content, "phrases")
    ]


def _with_length(item: Mapping[str, Any]) -> Row:
    start_s, length_s = _milliseconds(item.get("offsetMilliseconds")), _milliseconds(item.get("durationMilliseconds"))
    return {"start": start_s, "end": _sum(start_s, length_s)}


def _read_coqui(content: Mapping[str, Any]) -> list[Row]:
    best = next(iter(objects_of(content, "transcripts")), {})
    words = []
    for word in objects_of(best, "words"):
        start_s, length_s = read_seconds(word.get("start_time")), read_seconds(word.get("duration"))
        words.append({"text": word.get("word"), "start": start_s, "end": _sum(start_s, length_s)})
    return [_of_words(words, " ")] if words else []


def _read_nemo(content: Mapping[str, Any]) -> list[Row]:
    timestamp = content.get("timestamp")
    if not isinstance(timestamp, Mapping):
        return []
    words = [{**_times(word), "text": word.get("word")} for word in objects_of(timestamp, "word")]
    rows = [
        {**_times(item), "text": item.get("segment"), "words": _within(words, _times(item))}
        for item in objects_of(timestamp, "segment")
    ]
    return rows or ([_of_words(words, " ")] if words else [])


def _read_podcast(content: Mapping[str, Any]) -> list[Row]:
    segments = objects_of(content, "segments")
    if not any("startTime" in segment and "body" in segment for segment in segments):
        return []
    return [
        {
            "start": read_seconds(segment.get("startTime")),
            "end": read_seconds(segment.get("endTime")),
            "text": segment.get("body"),
            "speaker": segment.get("speaker"),
        }
        for segment in segments
    ]


def _read_soniox(content: Mapping[str, Any]) -> list[Row]:
    words: list[Row] = []
    for token in objects_of(content, "tokens"):
        text = str(token.get("text") or "")
        times = _in_milliseconds(token, "start_ms", "end_ms")
        if times["start"] is None:
            return []
        begins = not words or text.startswith(" ") or token.get("speaker") != words[-1]["speaker"]
        if begins:
            words.append({"text": text.strip(), **times, "speaker": token.get("speaker")})
        else:
            words[-1]["text"] += text.rstrip()
            words[-1]["end"] = times["end"]
    rows: list[list[Row]] = []
    for word in words:
        ends = not rows or rows[-1][-1]["speaker"] != word["speaker"] or rows[-1][-1]["text"].endswith((".", "?", "!"))
        if ends:
            rows.append([])
        rows[-1].append(word)
    return [{**_of_words(row, " "), "speaker": row[0]["speaker"]} for row in rows]


def _read_pipeline(content: Mapping[str, Any]) -> list[Row]:
    chunks = objects_of(content, "chunks")
    timed = [{**_times_of_pair(chunk.get("timestamp")), "text": _text(chunk)} for chunk in chunks]
    turns = [
        {**_times_of_pair(turn.get("timestamp")), "text": _text(turn), "speaker": turn.get("speaker")}
        for turn in objects_of(content, "speakers")
    ]
    if not turns or not timed:
        return timed
    within = [_within(timed, turn) for turn in turns]
    spoken = {id(chunk) for chunks in within for chunk in chunks}
    apart = [chunk for chunk in timed if id(chunk) not in spoken and None not in (chunk["start"], chunk["end"])]
    if _are_words(timed):
        turns = [{**turn, "words": words} for turn, words in zip(turns, within, strict=True)]
    return sorted([*turns, *apart], key=lambda row: row["start"] or 0.0)


def _are_words(timed: Sequence[Row]) -> bool:
    """Whether a pipeline was asked for the time of every word."""
    return bool(timed) and all(" " not in row["text"] for row in timed)


def _read_youtube(content: Mapping[str, Any]) -> list[Row]:
    rows = []
    spoken = [(event, pieces) for event in objects_of(content, "events") if (pieces := _youtube_pieces(event))]
    begins = [_milliseconds(event.get("tStartMs")) for event, _ in spoken]
    for (event, pieces), start_s, next_s in zip(spoken, begins, [*begins[1:], None], strict=False):
        length_s = _milliseconds(event.get("dDurationMs"))
        starts = [_sum(start_s, _milliseconds(piece.get("tOffsetMs", 0))) for piece in pieces]
        ends = [*starts[1:], _end_on_screen(starts[-1], _sum(start_s, length_s), next_s)]
        words: list[Row] = [
            {"text": _text(piece, "utf8"), "start": start, "end": end}
            for piece, start, end in zip(pieces, starts, ends, strict=True)
        ]
        row: Row = {"text": " ".join(str(word["text"]) for word in words), "start": start_s, "end": ends[-1]}
        rows.append(row | ({"words": words} if len(words) > 1 else {}))
    return rows


def _youtube_pieces(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [piece for piece in objects_of(event, "segs") if str(piece.get("utf8") or "").strip()]


def _end_on_screen(last_start_s: float | None, end_s: float | None, next_s: float | None) -> float | None:
    """Return when a line was said at the latest: it stays on the screen while the next one is spoken."""
    if last_start_s is None or end_s is None or next_s is None or not last_start_s < next_s:
        return end_s
    return min(end_s, next_s)


_READERS: tuple[Callable[[Mapping[str, Any]], list[Row]], ...] = (
    _read_call_analytics,
    _read_azure_fast,
    _read_coqui,
    _read_nemo,
    _read_podcast,
    _read_soniox,
    _read_pipeline,
    _read_youtube,
)


def _of_words(words: Sequence[Row], between: str) -> Row:
    text = between.join(str(word["text"]) for word in words)
    return {"text": text, "start": words[0]["start"], "end": words[-1]["end"], "words": list(words)}


def _within(words: Iterable[Row], span: Row) -> list[Row]:
    """Return the words whose middle is in a span."""
    if span["start"] is None or span["end"] is None:
        return []
    return [
        word
        for word in words
        if word["start"] is not None
        and word["end"] is not None
        and span["start"] <= (word["start"] + word["end"]) / 2 < span["end"]
    ]


def _times(item: Mapping[str, Any]) -> Row:
    return {"start": read_seconds(item.get("start")), "end": read_seconds(item.get("end"))}


def _times_of_pair(pair: object) -> Row:
    start, end = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)  # noqa: PLR2004 - a pair
    return {"start": read_seconds(start), "end": read_seconds(end)}


def _in_milliseconds(item: Mapping[str, Any], start: str, end: str) -> Row:
    return {"start": _milliseconds(item.get(start)), "end": _milliseconds(item.get(end))}


def _milliseconds(time: object) -> float | None:
    ms = read_seconds(time)
    return None if ms is None else round(ms / 1000, 6)


def _sum(start_s: float | None, length_s: float | None) -> float | None:
    return None if start_s is None or length_s is None else round(start_s + length_s, 6)


def _text(item: Mapping[str, Any], name: str = "text") -> str:
    return str(item.get(name) or "").strip()
