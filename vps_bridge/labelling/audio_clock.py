"""The audio clock: one clock for all audio of a conversation, onto which every job's own seconds are moved.

Jobs overlap. On the audio clock each second is given to exactly one of the jobs that cover it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

from schemas.record import MAX_DURATION_S
from schemas.turns import ChunkSpan, SpeakerTurn
from vps_bridge.labelling.awaited_audio import NOTHING_AWAITED, AwaitedAudio
from vps_bridge.rules.assemble import ChunkInfo, PlacedChunk

Span = tuple[float, float]
"""(start_s, end_s)"""
TOUCHING_S = 1e-3
"""Spans this near to each other have no gap between them: chunks are placed to the sample, sums of floats are not."""

ENOUGH_AROUND_S = 1.0
"""A job that hears this long before and behind a second decides it for good: docs/adr/0032-first-job-decides.md."""

HELD_BACK_S = 0.5
"""So much of a job's audio next to a hole that may still be filled has no label yet."""


class SpanUnion:
    """The seconds that any of some spans covers, for many questions about them."""

    def __init__(self, spans: Iterable[Span]) -> None:
        """Join the spans that touch or overlap."""
        self._starts: list[float] = []
        self._ends: list[float] = []
        for start_s, end_s in sorted(spans):
            if self._ends and start_s <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end_s)
            else:
                self._starts.append(start_s)
                self._ends.append(end_s)

    def meets(self, span: Span) -> bool:
        """Whether some of the seconds lie within a span; for one without length: whether it lies within them."""
        start_s, end_s = span
        begun = bisect_right(self._starts, start_s) if start_s == end_s else bisect_left(self._starts, end_s)
        return bisect_right(self._ends, start_s) < begun


@dataclass(frozen=True)
class JobWindow:
    """A window: a part of one job's audio without a gap, and where it lies on the audio clock.

    A job has several windows where it took audio from before or behind a gap.
    """

    job_start_s: float
    job_end_s: float
    shift_s: float
    """Added to seconds of the job to get seconds of the audio clock."""
    awaits_before: bool = False
    """Audio right before it is missing, and may still come."""
    awaits_after: bool = False

    @property
    def span(self) -> Span:
        """The window on the audio clock."""
        return self.job_start_s + self.shift_s, self.job_end_s + self.shift_s


@dataclass(frozen=True)
class ClockPiece:
    """A part of a stretch, in seconds of the stretch, and what is added to them to get seconds of the transcript."""

    start_s: float
    end_s: float
    offset_s: float

    def move(self, start_s: float, end_s: float) -> Span | None:
        """Return what of a span lies in the piece, in seconds of the transcript; None where nothing does."""
        start_s, end_s = max(start_s, self.start_s), min(end_s, self.end_s)
        return (start_s + self.offset_s, end_s + self.offset_s) if end_s > start_s else None


@dataclass(frozen=True)
class LocalTurn:
    """A turn on the audio clock, under the job's own label."""

    start_s: float
    end_s: float
    speaker: str


def stretch_origins(chunks: Iterable[ChunkInfo], placed: Sequence[PlacedChunk]) -> tuple[float, ...]:
    """Return where each stretch begins on the audio clock.

    Where captured_at is known it decides, so that pauses between stretches are kept; otherwise a stretch follows right
    after the one before. Stretches never overlap, and none begins more than a week after the first: such a captured_at
    comes from a device whose clock was set during the conversation.
    """
    captured = {chunk.chunk_id: chunk.captured_at_s for chunk in chunks}
    zero_captured: dict[int, float] = {}  # stretch -> captured_at of its second 0
    length: dict[int, float] = {}
    for place in placed:
        captured_at_s = captured.get(place.chunk_id)
        if captured_at_s is not None:
            zero_captured.setdefault(place.stretch, captured_at_s - place.start_s)
        length[place.stretch] = max(length.get(place.stretch, 0.0), place.start_s + place.duration_s)
    origins: list[float] = []
    end_s, clock_zero_s = 0.0, None
    for stretch in sorted(length):
        origin_s = end_s
        if stretch in zero_captured and clock_zero_s is not None:
            captured_s = zero_captured[stretch] - clock_zero_s
            origin_s = captured_s if end_s < captured_s < MAX_DURATION_S - length[stretch] else end_s
        elif stretch in zero_captured:
            clock_zero_s = zero_captured[stretch] - origin_s
        origins.append(origin_s)
        end_s = origin_s + length[stretch]
    return tuple(origins)


def job_windows(
    spans: Iterable[ChunkSpan],
    placed: Mapping[str, PlacedChunk],
    origins: Sequence[float],
    awaited: AwaitedAudio = NOTHING_AWAITED,
) -> tuple[JobWindow, ...]:
    """Return the windows of a job, which never overlap; chunks that follow each other without a gap make one window.

    A chunk counts once, and is as long as it was placed: jobs that claim other lengths gain no seconds of other chunks.
    """
    windows: list[JobWindow] = []
    seen: set[str] = set()
    for span in sorted(spans, key=lambda span: span.start_s):
        place = placed.get(span.chunk_id)
        if place is None or span.duration_s <= 0 or span.chunk_id in seen:
            continue
        seen.add(span.chunk_id)
        shift_s = origins[place.stretch] + place.start_s - span.start_s
        end_s = span.start_s + min(span.duration_s, place.duration_s)
        last = windows[-1] if windows else None
        awaits_before, awaits_after = span.chunk_id in awaited.before, span.chunk_id in awaited.after
        if last is not None and abs(last.shift_s - shift_s) < TOUCHING_S and span.start_s - last.job_end_s < TOUCHING_S:
            windows[-1] = replace(last, job_end_s=end_s, awaits_after=awaits_after)
        else:
            windows.append(JobWindow(span.start_s, end_s, shift_s, awaits_before, awaits_after))
    return tuple(windows)


def place_turns(turns: Iterable[SpeakerTurn], windows: Sequence[JobWindow]) -> tuple[LocalTurn, ...]:
    """Move a job's turns to the audio clock, sorted; a turn that crosses from one window to the next is cut in two.

    Turns of one speaker that overlap are one turn.
    """
    ordered = sorted(windows, key=lambda window: window.job_start_s)
    ends_s = list(accumulate((window.job_end_s for window in ordered), max))
    starts_s = [window.job_start_s for window in ordered]
    moved = [
        LocalTurn(start_s + window.shift_s, end_s + window.shift_s, turn.speaker)
        for turn in _join_overlapping(turns)
        for window in ordered[bisect_right(ends_s, turn.start_s) : bisect_left(starts_s, turn.end_s)]
        if (end_s := min(turn.end_s, window.job_end_s)) > (start_s := max(turn.start_s, window.job_start_s))
    ]
    return tuple(sorted(moved, key=_order))


def without_overlap(turns: Iterable[LocalTurn]) -> tuple[LocalTurn, ...]:
    """Return sorted turns of which never two overlap: each begins where those before it have ended."""
    kept: list[LocalTurn] = []
    end_s = -math.inf
    for turn in turns:
        if turn.end_s > end_s:
            kept.append(LocalTurn(max(turn.start_s, end_s), turn.end_s, turn.speaker))
            end_s = turn.end_s
    return tuple(kept)


def _order(turn: LocalTurn) -> tuple[float, float, str]:
    return turn.start_s, turn.end_s, turn.speaker


def _join_overlapping(turns: Iterable[SpeakerTurn]) -> list[LocalTurn]:
    """Return the turns with those of one speaker joined where they overlap; touching ones stay two."""
    by_speaker: dict[str, list[LocalTurn]] = {}
    for turn in sorted((LocalTurn(turn.start_s, turn.end_s, turn.speaker) for turn in turns), key=_order):
        joined = by_speaker.setdefault(turn.speaker, [])
        if joined and turn.start_s < joined[-1].end_s:
            joined[-1] = replace(joined[-1], end_s=max(joined[-1].end_s, turn.end_s))
        else:
            joined.append(turn)
    return [turn for joined in by_speaker.values() for turn in joined]


def divide_between_jobs(windows: Mapping[str, Sequence[JobWindow]]) -> dict[str, tuple[Span, ...]]:
    """Give every second of audio to one of the jobs that cover it; return the spans that each job gets.

    A second goes to the first job that hears `ENOUGH_AROUND_S` on both sides of it, so what people saw stands when
    later jobs hear it again. Where none does, it goes to the job whose window extends farthest beyond it on both sides:
    diarization is least reliable where a job's audio begins or ends. `HELD_BACK_S` next to a hole that may still be
    filled is given to no job: of the labels there a third would change (docs/adr/0032-first-job-decides.md).

    Args:
        windows: by job, in the order in which the jobs were made.
    """
    ranked = [_Heard.of(window, rank) for rank, listed in enumerate(windows.values()) for window in listed]
    given: list[list[Span]] = [[] for _ in windows]
    cuts = sorted({edge for heard in ranked for edge in (heard.start_s, heard.end_s, *heard.told)})
    active: list[_Heard] = []
    remaining = iter(sorted(ranked))
    following = next(remaining, None)
    for begin_s, end_s in pairwise(cuts):
        active = [heard for heard in active if heard.end_s > begin_s]
        while following is not None and following.start_s <= begin_s:
            active.append(following)
            following = next(remaining, None)
        edges = {(a.start_s + b.end_s) / 2 for a in active for b in active if a is not b}
        edges |= {edge for a in active for edge in (a.start_s + ENOUGH_AROUND_S, a.end_s - ENOUGH_AROUND_S)}
        inner = [begin_s, *sorted(edge for edge in edges if begin_s < edge < end_s), end_s]
        for piece in pairwise(inner):
            rank = _deciding_job(active, sum(piece) / 2)
            if rank is not None:
                _append(given[rank], piece)
    return {job_id: tuple(spans) for job_id, spans in zip(windows, given, strict=True)}


def clip_turns(turns: Iterable[LocalTurn], spans: Sequence[Span]) -> tuple[LocalTurn, ...]:
    """Return the parts of the sorted turns that lie within the sorted spans."""
    starts_s, ends_s = [start_s for start_s, _ in spans], [end_s for _, end_s in spans]
    return tuple(
        LocalTurn(max(start_s, turn.start_s), min(end_s, turn.end_s), turn.speaker)
        for turn in turns
        for start_s, end_s in spans[bisect_right(ends_s, turn.start_s) : bisect_left(starts_s, turn.end_s)]
    )


class _Heard(NamedTuple):
    """A window on the audio clock, and the rank of its job."""

    start_s: float
    end_s: float
    rank: int
    told: Span
    """What the job says anything about: without what is held back."""

    @classmethod
    def of(cls, window: JobWindow, rank: int) -> _Heard:
        start_s, end_s = window.span
        told = (start_s + HELD_BACK_S * window.awaits_before, end_s - HELD_BACK_S * window.awaits_after)
        return cls(start_s, end_s, rank, told)


def _deciding_job(heard: Iterable[_Heard], moment_s: float) -> int | None:
    """Return the rank of the job that decides a moment; None where none says anything about it."""
    rated = (
        (-min(moment_s - window.start_s, window.end_s - moment_s, ENOUGH_AROUND_S), window.rank)
        for window in heard
        if window.told[0] < moment_s < window.told[1]
    )
    best = min(rated, default=None)
    return None if best is None else best[1]


def _append(spans: list[Span], piece: Span) -> None:
    """Add a span behind the others, as part of the last one where no gap is between them."""
    if spans and piece[0] - spans[-1][1] < TOUCHING_S:
        spans[-1] = (spans[-1][0], piece[1])
    else:
        spans.append(piece)
