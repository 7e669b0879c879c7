"""From each job's own seconds to one clock of the conversation's audio, where every second belongs to one job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas.record import MAX_DURATION_S
from schemas.turns import ChunkSpan, SpeakerTurn
from vps_bridge.rules.assemble import ChunkInfo, PlacedChunk

Span = tuple[float, float]
_TOUCHING_S = 1e-3  # chunks are placed to the sample; sums of floats are not


@dataclass(frozen=True)
class JobWindow:
    """A span of one job and where it lies on the audio clock."""

    job_start_s: float
    job_end_s: float
    shift_s: float
    """Added to seconds of the job to get seconds of the audio clock."""

    @property
    def span(self) -> Span:
        """On the audio clock."""
        return self.job_start_s + self.shift_s, self.job_end_s + self.shift_s


@dataclass(frozen=True)
class LocalTurn:
    """A turn on the audio clock, under the job's own label."""

    start_s: float
    end_s: float
    speaker: str


def stretch_origins(chunks: Iterable[ChunkInfo], placed: Sequence[PlacedChunk]) -> tuple[float, ...]:
    """Return where each stretch begins on the audio clock.

    By captured_at where known, so that pauses are kept, else right after the stretch before; never before its end,
    and never a week behind the beginning: that is a device whose clock was set in between.
    """
    captured = {chunk.chunk_id: chunk.captured_at_s for chunk in chunks}
    first: dict[int, float] = {}  # captured_at of each stretch's zero
    length: dict[int, float] = {}
    for place in placed:
        captured_at_s = captured.get(place.chunk_id)
        if captured_at_s is not None:
            first.setdefault(place.stretch, captured_at_s - place.start_s)
        length[place.stretch] = max(length.get(place.stretch, 0.0), place.start_s + place.duration_s)
    origins: list[float] = []
    end_s, zero_s = 0.0, None
    for stretch in sorted(length):
        origin_s = end_s
        if stretch in first and zero_s is not None:
            captured_s = first[stretch] - zero_s
            origin_s = captured_s if end_s < captured_s < MAX_DURATION_S - length[stretch] else end_s
        elif stretch in first:
            zero_s = first[stretch] - origin_s
        origins.append(origin_s)
        end_s = origin_s + length[stretch]
    return tuple(origins)


def job_windows(
    spans: Iterable[ChunkSpan], placed: Mapping[str, PlacedChunk], origins: Sequence[float]
) -> tuple[JobWindow, ...]:
    """Return where a job's audio lies on the audio clock; chunks that follow each other make one window."""
    windows: list[JobWindow] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        place = placed.get(span.chunk_id)
        if place is None or span.duration_s <= 0:
            continue
        shift_s = origins[place.stretch] + place.start_s - span.start_s
        end_s = span.start_s + span.duration_s
        last = windows[-1] if windows else None
        if (
            last is not None
            and abs(last.shift_s - shift_s) < _TOUCHING_S
            and span.start_s - last.job_end_s < _TOUCHING_S
        ):
            windows[-1] = JobWindow(last.job_start_s, end_s, last.shift_s)
        else:
            windows.append(JobWindow(span.start_s, end_s, shift_s))
    return tuple(windows)


def place_turns(turns: Iterable[SpeakerTurn], windows: Sequence[JobWindow]) -> tuple[LocalTurn, ...]:
    """Move a job's turns to the audio clock, cut where its audio has a seam; sorted."""
    moved = [
        LocalTurn(start_s + window.shift_s, end_s + window.shift_s, turn.speaker)
        for turn in turns
        for window in windows
        if (end_s := min(turn.end_s, window.job_end_s)) > (start_s := max(turn.start_s, window.job_start_s))
    ]
    return tuple(sorted(moved, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker)))


def own_seconds(windows: Mapping[str, Sequence[JobWindow]]) -> dict[str, tuple[Span, ...]]:
    """Give every second of audio to one of the jobs that heard it: the one whose nearest edge is farthest.

    So the overlap of two successive jobs is cut in its middle: each is least sure where its audio ends.
    """
    spans = sorted((*window.span, job_id) for job_id, listed in windows.items() for window in listed)
    owned: dict[str, list[Span]] = {job_id: [] for job_id in windows}
    cuts = sorted({edge for start_s, end_s, _ in spans for edge in (start_s, end_s)})
    active: list[tuple[float, float, str]] = []
    waiting = iter(spans)
    following = next(waiting, None)
    for begin_s, end_s in pairwise(cuts):
        active = [span for span in active if span[1] > begin_s]
        while following is not None and following[0] <= begin_s:
            active.append(following)
            following = next(waiting, None)
        middles = {(a[0] + b[1]) / 2 for a in active for b in active if a is not b}
        inner = [begin_s, *sorted(middle for middle in middles if begin_s < middle < end_s), end_s]
        for piece in pairwise(inner):
            owner = _deepest(active, sum(piece) / 2)
            if owner is not None:
                _append(owned[owner], piece)
    return {job_id: tuple(listed) for job_id, listed in owned.items()}


def clip_turns(turns: Iterable[LocalTurn], spans: Sequence[Span]) -> tuple[LocalTurn, ...]:
    """Return what of the sorted turns lies in the sorted spans."""
    clipped: list[LocalTurn] = []
    first = 0
    for turn in turns:
        while first < len(spans) and spans[first][1] <= turn.start_s:
            first += 1
        for start_s, end_s in spans[first:]:
            if start_s >= turn.end_s:
                break
            clipped.append(LocalTurn(max(start_s, turn.start_s), min(end_s, turn.end_s), turn.speaker))
    return tuple(clipped)


def _deepest(active: Iterable[tuple[float, float, str]], moment_s: float) -> str | None:
    ranked = (
        (-min(moment_s - start_s, end_s - moment_s), start_s - end_s, job_id)
        for start_s, end_s, job_id in active
        if start_s < moment_s < end_s
    )
    best = min(ranked, default=None)
    return None if best is None else best[2]


def _append(spans: list[Span], piece: Span) -> None:
    if spans and piece[0] - spans[-1][1] < _TOUCHING_S:
        spans[-1] = (spans[-1][0], piece[1])
    else:
        spans.append(piece)
