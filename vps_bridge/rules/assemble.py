"""Chunks into jobs: where each chunk lies in time, and which chunks are diarized together.

Pure: the same chunks give the same jobs, in whatever order they arrived in the ledger's table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

ESTIMATE_FACTOR = 4.0
"""An estimated length may be too short by this: it takes 64 kbit/s for granted, and 16 is what speech needs."""
COARSE_S = 2.0
"""So much longer or shorter is a step of captured_at where times are rounded: to seconds, or to the two of FAT."""


@dataclass(frozen=True)
class AssemblyRules:
    """When a job closes. A 5 s chunk alone gives a new speaker every time: jobs are long and overlap."""

    min_job_s: float = 60.0
    max_job_s: float = 120.0
    overlap_s: float = 10.0
    """Audio shared with the job before: what two jobs say about the same seconds links their speakers."""
    gap_s: float = 2.0
    """A longer hole parts two stretches."""
    contiguous_s: float = 0.5
    """A smaller hole is the jitter of time stamps: the chunk follows right after the one before."""
    pause_s: float = 20.0
    """No chunk for this long closes what waits."""
    min_tail_s: float = 15.0
    """A job never has less than this where the conversation has more."""
    max_chunks: int = 1_500
    """Of fresh audio in a job, and of context on either side: an offer names at most 5,000."""


@dataclass(frozen=True)
class ChunkInfo:
    """What is known of a chunk without decoding it."""

    chunk_id: str
    arrival: int
    """Order of arrival, unique in the conversation."""
    sequence: int | None = None
    captured_at_s: float | None = None
    """Unix time of the first sample."""
    duration_s: float = 0.0
    is_estimated: bool = False
    """Nobody counted or decoded it: `duration_s` may be several times too long or too short."""
    covered: bool = False
    """Already fresh in a job."""
    available: bool = True
    """Its audio is still kept: only such a chunk can give a later job context."""
    captured_error_s: float = 0.0
    """Where `captured_at_s` is an estimate, by when the audio arrived: how far it may be off."""
    is_lost: bool = False
    """Its length is an estimate, and nobody will ever decode it: where what follows it begins is not known by it."""


@dataclass(frozen=True)
class PlacedChunk:
    """A chunk on the clock of its stretch: audio without a hole of more than `gap_s`."""

    chunk_id: str
    stretch: int
    start_s: float
    duration_s: float
    """An estimate is bounded by when the next chunk was captured."""


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk of a job."""

    chunk_id: str
    start_s: float | None
    """In the job; None: right after the chunk before."""


@dataclass(frozen=True)
class JobPlan:
    """A job: whole chunks in order of time."""

    chunks: tuple[PlannedChunk, ...]
    fresh: tuple[str, ...]
    """The chunks this job is for; the others are context."""


def place_chunks(chunks: Iterable[ChunkInfo], rules: AssemblyRules) -> tuple[PlacedChunk, ...]:
    """Order the chunks in time and part them into stretches.

    Order: captured_at where known, else sequence, else arrival. A new stretch begins after a hole of more than
    `gap_s`, after missing sequence numbers or a chunk that is lost where captured_at does not measure the hole, and
    before a chunk most of which was recorded already (a second recording of the same time).
    """
    return _place(_bound_estimates(order_chunks(chunks), rules), rules)


def _place(ordered: Iterable[ChunkInfo], rules: AssemblyRules) -> tuple[PlacedChunk, ...]:
    placed: list[PlacedChunk] = []
    stretch, before = -1, None
    origin_s: float | None = None  # captured_at of the stretch's first sample
    for chunk in ordered:
        start_s = None if before is None else _follow(before, placed[-1], chunk, origin_s, rules)
        if start_s is None:
            stretch, start_s, origin_s = stretch + 1, 0.0, None
        if origin_s is None and chunk.captured_at_s is not None:
            origin_s = chunk.captured_at_s - start_s
        placed.append(PlacedChunk(chunk.chunk_id, stretch, start_s, chunk.duration_s))
        before = chunk
    return tuple(placed)


def order_chunks(chunks: Iterable[ChunkInfo]) -> list[ChunkInfo]:
    """Sort by captured_at; a chunk without one goes behind the last that came before it by sequence or arrival."""
    every = sorted(chunks, key=lambda chunk: (chunk.sequence is None, chunk.sequence or 0, chunk.arrival))
    timed = [chunk for chunk in every if chunk.captured_at_s is not None]
    ordered = sorted(timed, key=lambda chunk: chunk.captured_at_s or 0.0)
    untimed = [chunk for chunk in every if chunk.captured_at_s is None]
    if not ordered:
        return untimed
    for chunk in untimed:
        after = (place for place in range(len(ordered), 0, -1) if _precedes(ordered[place - 1], chunk))
        ordered.insert(next(after, 0), chunk)
    return ordered


def plan_jobs(
    chunks: Iterable[ChunkInfo], *, closing: bool, idle_s: float, rules: AssemblyRules
) -> tuple[JobPlan, ...]:
    """Plan jobs for the chunks that are in none yet and need not wait for more audio.

    A job has 60 to 120 s of fresh audio where there is as much, plus whole chunks of context: those that cover
    the `overlap_s` before it, and for a late chunk those behind it. Less than `min_tail_s` of fresh audio takes
    context, across holes if need be, up to `min_job_s`. A chunk longer than `max_job_s` is a job of its own. No job
    is longer than twice `max_job_s` plus `overlap_s`, except that one; where lengths are estimated, by the estimate.

    Args:
        chunks: every chunk of the conversation, covered or not.
        closing: the conversation is completed or deleted: nothing waits any longer.
        idle_s: seconds since the last chunk arrived.
        rules: the limits.
    """
    # What is in a job already and is not kept can be no context; between others it would only part what came again.
    usable = (chunk for chunk in chunks if chunk.available or not chunk.covered)
    ordered = _bound_estimates(order_chunks(usable), rules)
    timeline = [_Piece(*both) for both in zip(ordered, _place(ordered, rules), strict=True)]
    settled = closing or idle_s >= rules.pause_s
    plans: list[JobPlan] = []
    for first, last in _fresh_runs(timeline, rules):
        if _is_long(timeline[first], rules):
            plans.append(_plan(timeline, range(first, last), range(first, last)))
            continue
        closed = settled or _is_closed(timeline, last, rules)
        for begin, end in _cut_run(timeline, first, last, rules, closed=closed):
            plans.append(_plan(timeline, _with_context(timeline, begin, end, rules), range(begin, end)))
    return tuple(plans)


@dataclass(frozen=True)
class _Piece:
    chunk: ChunkInfo
    place: PlacedChunk

    @property
    def end_s(self) -> float:
        return self.place.start_s + self.place.duration_s


def _bound_estimates(ordered: Sequence[ChunkInfo], rules: AssemblyRules) -> list[ChunkInfo]:
    """Replace each estimate by the time to the next chunk's capture, unless more has passed than it can be wrong by.

    So no hole is assumed where the estimate may be too short: decoding shows whether there is one.
    """
    bounded = list(ordered)
    for place, (chunk, following) in enumerate(pairwise(ordered)):
        if chunk.is_estimated and chunk.captured_at_s is not None and following.captured_at_s is not None:
            step_s = following.captured_at_s - chunk.captured_at_s
            if rules.contiguous_s < step_s <= ESTIMATE_FACTOR * chunk.duration_s:
                bounded[place] = replace(chunk, duration_s=step_s)
    return bounded


def follows_at_once(place: PlacedChunk, following: PlacedChunk) -> bool:
    """Whether no hole is between two chunks."""
    return place.stretch == following.stretch and following.start_s <= place.start_s + place.duration_s


def measures_step(before: ChunkInfo, after: ChunkInfo) -> bool:
    """Whether captured_at tells how long after one chunk another begins, however long the first is."""
    return before.captured_at_s is not None and after.captured_at_s is not None


def _precedes(earlier: ChunkInfo, later: ChunkInfo) -> bool:
    if earlier.sequence is not None and later.sequence is not None:
        return earlier.sequence < later.sequence
    return earlier.arrival < later.arrival


def _follow(
    before: ChunkInfo, placed: PlacedChunk, chunk: ChunkInfo, origin_s: float | None, rules: AssemblyRules
) -> float | None:
    """Where `chunk` starts on the stretch of `before`; None where a new stretch begins."""
    end_s = placed.start_s + placed.duration_s
    if before.is_lost and not measures_step(before, chunk):
        return None
    if chunk.captured_at_s is None or origin_s is None:
        hole = before.sequence is not None and chunk.sequence is not None and chunk.sequence != before.sequence + 1
        return None if hole else end_s
    if before.captured_at_s is not None and before.duration_s > rules.contiguous_s:
        step_s = chunk.captured_at_s - before.captured_at_s
        if step_s < 0.5 * before.duration_s - rules.contiguous_s:
            return None
    hole_s = chunk.captured_at_s - origin_s - end_s
    if hole_s > rules.gap_s:
        return None
    return end_s + hole_s if hole_s > rules.contiguous_s else end_s


def _is_long(piece: _Piece, rules: AssemblyRules) -> bool:
    return piece.chunk.duration_s > rules.max_job_s


def _fresh_runs(timeline: Sequence[_Piece], rules: AssemblyRules) -> list[tuple[int, int]]:
    """Half-open ranges of neighbouring chunks that wait for a job, in one stretch; a long chunk stands alone."""

    def kind(place: int) -> tuple[int, bool, int]:
        piece = timeline[place]
        alone = place if _is_long(piece, rules) else -1
        return piece.place.stretch, piece.chunk.covered, alone

    runs = [list(group) for _, group in groupby(range(len(timeline)), key=kind)]
    return [(run[0], run[-1] + 1) for run in runs if not timeline[run[0]].chunk.covered]


def _is_closed(timeline: Sequence[_Piece], end: int, rules: AssemblyRules) -> bool:
    """Whether no more audio is expected behind the run that ends at `end`.

    Missing sequence numbers may still come (an unacknowledged chunk is offered again after 15 s): such a hole
    closes the run only once `min_job_s` of audio stands behind it.
    """
    if end == len(timeline):
        return False
    before, after = timeline[end - 1].chunk, timeline[end].chunk
    if before.sequence is None or after.sequence is None or after.sequence == before.sequence + 1:
        return True
    return sum(piece.place.duration_s for piece in timeline[end:]) >= rules.min_job_s


def _cut_run(
    timeline: Sequence[_Piece], first: int, last: int, rules: AssemblyRules, *, closed: bool
) -> list[tuple[int, int]]:
    """Cut a run into jobs; what stays out waits for more audio."""
    cuts: list[tuple[int, int]] = []
    while first < last:
        end = _next_cut(timeline, first, last, rules, closed=closed)
        if end is None:
            break
        cuts.append((first, end))
        first = end
    return cuts


def _next_cut(timeline: Sequence[_Piece], first: int, last: int, rules: AssemblyRules, *, closed: bool) -> int | None:
    begin_s, end_s = timeline[first].place.start_s, timeline[last - 1].end_s
    waiting_s = end_s - begin_s
    if last - first > rules.max_chunks:
        places = range(first, first + rules.max_chunks)
        return max(
            (place + 1 for place in places if timeline[place].end_s - begin_s <= rules.max_job_s), default=first + 1
        )
    if closed and waiting_s <= rules.max_job_s:
        return last
    if not closed and waiting_s < rules.min_job_s + rules.min_tail_s:
        return None
    fitting = [place + 1 for place in range(first, last) if timeline[place].end_s - begin_s <= rules.max_job_s] or [
        first + 1
    ]
    leaving_tail = [end for end in fitting if end_s - timeline[end - 1].end_s >= rules.min_tail_s]
    if waiting_s >= rules.max_job_s + rules.min_tail_s or (closed and leaving_tail):
        return (leaving_tail or fitting)[-1]
    if closed:
        return fitting[-1]
    long_enough = [end for end in leaving_tail if timeline[end - 1].end_s - begin_s >= rules.min_job_s]
    return long_enough[0] if long_enough else None


def _with_context(timeline: Sequence[_Piece], begin: int, end: int, rules: AssemblyRules) -> list[int]:
    """The places of the fresh chunks and of the context they need, in order of time."""

    def usable(place: int) -> bool:
        return 0 <= place < len(timeline) and (timeline[place].chunk.available and not _is_long(timeline[place], rules))

    def seconds(places: Iterable[int]) -> float:
        return sum(timeline[place].place.duration_s for place in places)

    def take(first: int, step: int, wanted_s: float, job_s: float) -> list[int]:
        taken: list[int] = []
        while (
            len(taken) < rules.max_chunks
            and usable(first + step * len(taken))
            and seconds(taken) < wanted_s
            and job_s + seconds(taken) < rules.max_job_s + rules.overlap_s
        ):
            taken.append(first + step * len(taken))
        return taken

    fresh_s = seconds(range(begin, end))
    is_short = fresh_s < rules.min_tail_s
    is_late = end < len(timeline) and timeline[end].chunk.covered
    wanted_s = rules.min_job_s - fresh_s if is_short else rules.overlap_s
    before = take(begin - 1, -1, wanted_s, fresh_s)
    missing_s = wanted_s - seconds(before) if is_short else 0.0
    behind = take(end, 1, max(missing_s, rules.overlap_s if is_late else 0.0), fresh_s + seconds(before))
    return [*reversed(before), *range(begin, end), *behind]


def _plan(timeline: Sequence[_Piece], places: Sequence[int], fresh: Iterable[int]) -> JobPlan:
    """A chunk behind one of estimated length follows right after it: where it starts is known once that is decoded."""
    chunks: list[PlannedChunk] = []
    job_end_s, is_estimated = 0.0, False
    for order, place in enumerate(places):
        piece, before = timeline[place], timeline[places[order - 1]]
        hole_s = 0.0
        if order and piece.place.stretch == before.place.stretch:
            hole_s = max(0.0, piece.place.start_s - before.end_s)
        follows = order > 0 and (hole_s == 0.0 or is_estimated)
        job_end_s += hole_s
        is_estimated = is_estimated or piece.chunk.is_estimated
        chunks.append(PlannedChunk(piece.chunk.chunk_id, None if follows else job_end_s))
        job_end_s += piece.place.duration_s
    return JobPlan(tuple(chunks), tuple(timeline[place].chunk.chunk_id for place in fresh))
