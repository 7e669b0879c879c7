"""Which bytes of a user's stream become which chunks of a conversation. Pure.

The ids of chunks name the bytes they hold, so what a conversation has is read from the chunks that it has, and the
same question asked again gives nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vps_bridge.omi.placement import SAMPLE_BYTES, PlacedAudioBytes, bytes_per_s

EDGE_S = 15.0
"""Audio so long before and after a conversation's times is taken too: both are estimates."""
MAX_CHUNK_S = 60.0
MIN_CHUNK_S = 0.2
JITTER_S = 0.5
"""Estimates that differ by less from what the samples say are of audio without a hole."""
_CHUNK_ID = re.compile(r"omi-([0-9]{1,19})-([0-9]{1,19})")

ByteSpan = tuple[int, int]


@dataclass(frozen=True)
class ConversationSpan:
    """When a conversation was, in Unix time."""

    conversation_id: str
    started_at: float
    ended_at: float


@dataclass(frozen=True)
class CutChunk:
    """A chunk: bytes of the stream without a hole, and when they were recorded."""

    start: int
    end: int
    sample_rate: int
    recorded_at: float

    @property
    def chunk_id(self) -> str:
        """Its id, from which `taken_spans` knows its bytes."""
        return f"omi-{self.start}-{self.end}"


def window_of(span: ConversationSpan, others: Iterable[ConversationSpan]) -> tuple[float, float]:
    """Return from when to when audio belongs to a conversation.

    Where another one ends before it, or begins after it, within twice `EDGE_S`, the middle between them is the border.
    """
    first, last = span.started_at - EDGE_S, span.ended_at + EDGE_S
    for other in others:
        if other.conversation_id == span.conversation_id:
            continue
        if other.ended_at <= span.started_at:
            first = max(first, (other.ended_at + span.started_at) / 2)
        elif other.started_at >= span.ended_at:
            last = min(last, (other.started_at + span.ended_at) / 2)
    return first, last


def taken_spans(chunk_ids: Iterable[str]) -> list[ByteSpan]:
    """Return the bytes of the stream that chunks hold, sorted."""
    found = (_CHUNK_ID.fullmatch(chunk_id) for chunk_id in chunk_ids)
    return sorted((int(match[1]), int(match[2])) for match in found if match is not None)


def cut_chunks(
    placed: Iterable[PlacedAudioBytes], window: tuple[float, float], taken: Sequence[ByteSpan]
) -> list[CutChunk]:
    """Return the chunks of what was recorded within a window, without what was taken before."""
    pieces = [
        piece
        for one in placed
        for within in [_clip(one, window)]
        if within is not None
        for piece in _without(within, taken)
    ]
    chunks: list[CutChunk] = []
    for piece in pieces:
        last = chunks[-1] if chunks else None
        if last is not None and _follows(last, piece):
            chunks[-1] = replace(last, end=piece.end)
        else:
            chunks.append(CutChunk(piece.start, piece.end, piece.sample_rate, piece.recorded_at))
    return [chunk for chunk in chunks if _length_s(chunk) >= MIN_CHUNK_S]


def _length_s(chunk: CutChunk) -> float:
    return (chunk.end - chunk.start) / bytes_per_s(chunk.sample_rate)


def _follows(last: CutChunk, piece: PlacedAudioBytes) -> bool:
    """Whether a piece continues a chunk without a hole, and leaves it short enough."""
    if piece.start != last.end or piece.sample_rate != last.sample_rate:
        return False
    is_steady = abs(piece.recorded_at - last.recorded_at - _length_s(last)) < JITTER_S
    return is_steady and _length_s(last) + piece.length_s <= MAX_CHUNK_S


def _clip(one: PlacedAudioBytes, window: tuple[float, float]) -> PlacedAudioBytes | None:
    """Return what of it lies within the window, in whole samples."""
    first, last = window
    if one.recorded_at >= last or one.ends_at <= first:
        return None
    rate = bytes_per_s(one.sample_rate)
    start, end = one.start, one.end
    if one.recorded_at < first:
        start += round((first - one.recorded_at) * rate)
    if one.ends_at > last:
        end = one.start + round((last - one.recorded_at) * rate)
    # A byte that is half a sample belongs to the part behind it.
    return _part(one, _align(start, one.grid), _align(end, one.grid))


def _align(position: int, grid: int) -> int:
    return position - (position - grid) % SAMPLE_BYTES


def _part(one: PlacedAudioBytes, start: int, end: int) -> PlacedAudioBytes | None:
    if end <= start:
        return None
    moved_s = (start - one.start) / bytes_per_s(one.sample_rate)
    return replace(one, start=start, end=end, recorded_at=one.recorded_at + moved_s)


def _without(one: PlacedAudioBytes, taken: Sequence[ByteSpan]) -> list[PlacedAudioBytes]:
    """Return the parts of it that are in none of the spans, which are sorted."""
    parts: list[PlacedAudioBytes] = []
    start = one.start
    for first, last in taken:
        if first >= one.end:
            break
        if last > start:
            before = _part(one, start, min(first, one.end))
            parts += [before] if before is not None else []
            start = max(start, last)
    rest = _part(one, start, one.end)
    return [*parts, rest] if rest is not None else parts
