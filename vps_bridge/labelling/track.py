"""Tracking: from one offset that fits a stretch to the offset of each of its parts.

Seconds that a device dropped, pauses it left out, and a clock that runs too fast make the offset change within a
stretch. Its most likely course is found block by block (Viterbi); small changes cost less than large ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.audio_clock import TOUCHING_S, ClockPiece, Span
from vps_bridge.labelling.offset_line import LineRules, find_top, fit_offset_line
from vps_bridge.labelling.offset_search import (
    BLOCK_S,
    BLOCK_STEPS,
    STEP_S,
    ActivitySignal,
    Array,
    block_nats_around,
    step_nats,
)

REACH_STEPS = 600
"""How far the offset may move from where it was found: 60 s."""
_NEAR_STEPS = 200
_SAME_STEPS = 3
_STEP_REACH = 50
_LONGEST_DOUBT = 12
_TRIMMED_BLOCKS = 3
_EXPECTED_STEPS = 5
_GUARD_S, _HOLE_S = 10.0, 10.0
_PART_STEPS = 60 * 2 * BLOCK_STEPS
_STEADY_REACH_STEPS = 15
_STEADY_BLOCKS = 6
_DRIFT_S = 0.3
# No part of the tracking rules: those stand in the key of every write, which must not change.
_CLEAR_NATS, _AGAINST_NATS = 2.5, 1.5
"""Where a run has so much in each block, an end that the times expect may not speak against it by as much."""
_LINES = LineRules()


@dataclass(frozen=True)
class TrackingRules:
    """What a change of the offset costs, in nats, and what a piece of constant offset must have for it."""

    drift_cost: float = 1.0
    """Of 0.1 s: a clock that drifts."""
    step_cost: float = 6.0
    """Of up to 5 s."""
    jump_cost: float = 13.0
    """Of more."""
    doubt_nats: float = 4.5
    """The first or last part of a piece gets no offset if another within 20 s fits it better by this much,"""
    expected_doubt_nats: float = 5.0
    """or by this much where the offset is the one that the times say."""
    inner_doubt_nats: float = 8.0
    """The same for a part of up to a minute within a piece."""
    tie_nats: float = 2.0
    """In speech that repeats itself, the offset that was found is taken before another that fits as well."""
    trim_nats_per_s: float = 0.3
    """The first and last seconds of a piece must speak this much for its offset."""
    steady_nats: float = -3.0
    """Any half minute must have this much, or the part is looked at closely."""
    min_piece_nats: float = 14.0
    piece_margin_nats: float = 8.0
    """How much better the offset of a piece is than any that differs by more than 1 s."""
    edge_nats: float = 3.0
    """Where a piece ends is uncertain as long as the nats differ by less than this: that part gets no offset."""


@dataclass(frozen=True)
class FoundOffset:
    """An offset that fits a stretch around one of its seconds."""

    offset_s: float
    at_s: float
    prior_s: float | None
    """What the times of the audio and of the conversation say."""


@dataclass(frozen=True)
class _OffsetRun:
    """Blocks with one offset, or one that drifts."""

    first: int
    last: int
    """Exclusive."""
    states: tuple[int, ...]
    is_expected: bool
    """The offset is the one that the times say."""


def track_offset(
    audio: ActivitySignal,
    transcript: ActivitySignal,
    found: FoundOffset,
    rules: TrackingRules,
) -> tuple[ClockPiece, ...]:
    """Return the pieces of a stretch, in order, of which each fits its part of the transcript by itself.

    Args:
        audio: the whole stretch; its origin is 0.
        transcript: the whole transcript.
        found: where to begin.
        rules: the costs.
    """
    starts = range(0, audio.steps, _PART_STEPS)
    middle = min(int(found.at_s / STEP_S) // _PART_STEPS, len(starts) - 1)
    pieces: dict[int, tuple[ClockPiece, ...]] = {}
    for order in (range(middle, len(starts)), range(middle - 1, -1, -1)):
        near_s = pieces[middle][0].offset_s if order.step < 0 and pieces[middle] else found.offset_s
        for index in order:
            first, last = starts[index], min(starts[index] + _PART_STEPS, audio.steps)
            part = ActivitySignal(first * STEP_S, audio.rows[:, first:last])
            pieces[index] = _track_part(part, transcript, replace(found, offset_s=near_s), rules)
            if pieces[index]:
                near_s = pieces[index][-1 if order.step > 0 else 0].offset_s
    joined: list[ClockPiece] = []
    for piece in (piece for index in sorted(pieces) for piece in pieces[index]):
        if joined and joined[-1].offset_s == piece.offset_s and piece.start_s - joined[-1].end_s < TOUCHING_S:
            joined[-1] = replace(joined[-1], end_s=piece.end_s)
        else:
            joined.append(piece)
    return tuple(joined)


def _track_part(
    audio: ActivitySignal, transcript: ActivitySignal, near: FoundOffset, rules: TrackingRules
) -> tuple[ClockPiece, ...]:
    """Return the pieces of a part, in seconds of the stretch."""
    if audio.origin_s > 0 or audio.steps == _PART_STEPS:
        steady = _find_steady(audio, transcript, near.offset_s, rules)
        if steady is not None:
            return (replace(steady, offset_s=_prefer_prior(steady.offset_s, near.prior_s)),)
    nats = block_nats_around(audio, transcript, near.offset_s, REACH_STEPS)
    prior_state = None if near.prior_s is None else REACH_STEPS + round((near.prior_s - near.offset_s) / STEP_S)
    runs = list(_cut_runs(_best_course(nats, rules), prior_state))
    parts = _bridge([part for run in runs for part in _without_doubt(nats, run, rules)])
    if len(parts) != 1 or max(abs(state - REACH_STEPS) for state in parts[0].states) > round(1.0 / STEP_S):
        parts = [part for part in parts if _is_certain(nats, part, rules)]
    fitted = [_fit(nats, part, near) for part in parts]
    parts, lines = [part for part, _ in fitted if part.states], [line for part, line in fitted if part.states]
    bounds = [_trim(audio, transcript, part, line, rules) for part, line in zip(parts, lines, strict=True)]
    for index, (earlier, later) in enumerate(pairwise(parts)):
        if earlier.last == later.first:
            # Between the last pause that speaks for the one and the first that speaks for the other nobody knows.
            end_s, start_s = _find_change(audio, transcript, earlier.last, (lines[index], lines[index + 1]), rules)
            bounds[index] = bounds[index][0], min(end_s, bounds[index][1])
            bounds[index + 1] = max(start_s, bounds[index + 1][0]), bounds[index + 1][1]
    return tuple(
        ClockPiece(piece.start_s + audio.origin_s, piece.end_s + audio.origin_s, piece.offset_s)
        for (start_s, end_s), line in zip(_guard(bounds, audio.steps * STEP_S), lines, strict=True)
        for piece in _to_pieces(start_s, end_s, line)
    )


def _find_steady(
    audio: ActivitySignal, transcript: ActivitySignal, offset_s: float, rules: TrackingRules
) -> ClockPiece | None:
    """Return the whole part as one piece, if one offset fits all of it: the usual case, and cheaply seen."""
    nats = block_nats_around(audio, transcript, offset_s, _STEADY_REACH_STEPS)
    totals = nats.sum(axis=0, dtype=float)
    best = int(totals.argmax())
    if not 0 < best < len(totals) - 1 or totals[best] < rules.min_piece_nats + rules.piece_margin_nats:
        return None
    sums = np.concatenate(([0.0], np.cumsum(nats[:, best], dtype=float)))
    width = min(_STEADY_BLOCKS, len(nats))
    if (sums[width:] - sums[:-width]).min() < rules.steady_nats:
        return None
    around = totals[best - 1 : best + 2]
    shift = 0.5 * (around[0] - around[2]) / min(-1e-6, around[0] - 2 * around[1] + around[2])
    steady_s = offset_s + (best - _STEADY_REACH_STEPS + shift) * STEP_S
    return ClockPiece(audio.origin_s, audio.origin_s + audio.steps * STEP_S, float(steady_s))


def _guard(bounds: Sequence[Span], length_s: float) -> Iterator[Span]:
    """Yield the pieces' spans, shorter where a hole is beside them: the offset may have changed before the hole."""
    for index, (start_s, end_s) in enumerate(bounds):
        before_s = bounds[index - 1][1] if index else 0.0
        after_s = bounds[index + 1][0] if index + 1 < len(bounds) else length_s
        guarded_start_s = start_s + _GUARD_S if start_s - before_s > _HOLE_S else start_s
        guarded_end_s = end_s - _GUARD_S if after_s - end_s > _HOLE_S else end_s
        yield guarded_start_s, guarded_end_s


def _best_course(nats: Array, rules: TrackingRules) -> NDArray[np.intp]:
    """Return the most likely state (index of the offset) of each block; the middle state is where it was found."""
    blocks, states = nats.shape
    came_from = np.empty((blocks, states), np.int32)
    every = np.arange(states)
    total = nats[0] - np.where(np.abs(every - states // 2) > _SAME_STEPS, rules.tie_nats, 0.0)
    for block in range(1, blocks):
        best, origin = total.copy(), every.copy()
        for reach, cost in ((1, rules.drift_cost), (_STEP_REACH, rules.step_cost), (states, rules.jump_cost)):
            moved, source = _best_within(total, reach)
            better = moved - cost > best
            best, origin = np.where(better, moved - cost, best), np.where(better, source, origin)
        came_from[block] = origin
        total = best + nats[block]
    course = np.empty(blocks, np.intp)
    course[-1] = int(total.argmax())
    for block in range(blocks - 1, 0, -1):
        course[block - 1] = came_from[block, course[block]]
    return course


def _best_within(total: NDArray[np.float64], reach: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the largest value within `reach` states of each state, and where it is."""
    if reach >= len(total):
        place = int(total.argmax())
        return np.full(len(total), total[place]), np.full(len(total), place)
    padded = np.pad(total, reach, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    place = windows.argmax(axis=1)
    return windows[np.arange(len(total)), place], place + np.arange(len(total)) - reach


def _cut_runs(course: Sequence[int] | NDArray[np.intp], prior_state: int | None) -> Iterator[_OffsetRun]:
    """Yield the runs between changes of more than a step."""
    first = 0
    for block in range(1, len(course) + 1):
        if block == len(course) or abs(int(course[block]) - int(course[block - 1])) > 1:
            states = tuple(int(state) for state in course[first:block])
            is_expected = (
                prior_state is not None and max(abs(state - prior_state) for state in states) <= _EXPECTED_STEPS
            )
            yield _OffsetRun(first, block, states, is_expected)
            first = block


def _without_doubt(nats: Array, run: _OffsetRun, rules: TrackingRules) -> Iterator[_OffsetRun]:
    """Yield the parts of a run where its own offset speaks for itself and no other near it fits clearly better."""
    blocks, states = np.arange(run.first, run.last), np.asarray(run.states)
    own = nats[blocks, states].astype(float)
    padded = np.pad(nats[blocks], ((0, 0), (_NEAR_STEPS, _NEAR_STEPS)))
    shifts = np.arange(-_NEAR_STEPS, _NEAR_STEPS + 1)
    others = padded[np.arange(len(blocks))[:, None], states[:, None] + _NEAR_STEPS + shifts]
    gains = np.cumsum(others[:, np.abs(shifts) > _SAME_STEPS] - own[:, None], axis=0, dtype=float)
    gains = np.concatenate((np.zeros((1, gains.shape[1])), gains))
    doubted = np.zeros(len(blocks), bool)
    for length in range(1, min(_LONGEST_DOUBT, len(blocks)) + 1):
        best = (gains[length:] - gains[:-length]).max(axis=1)
        limits = np.full(len(best), rules.inner_doubt_nats)
        limits[[0, -1]] = rules.expected_doubt_nats if run.is_expected else rules.doubt_nats
        for first in np.flatnonzero(best >= limits):
            doubted[first : first + length] = True
    edges = np.flatnonzero(np.diff(np.concatenate(([True], doubted, [True])).astype(int)))
    for first, last in edges.reshape(-1, 2):
        at_start = run.is_expected and run.first + first == 0
        at_end = run.is_expected and run.first + last == len(nats)
        begin = int(first) + _cut_back(own[first:last], is_expected=at_start)
        end = int(last) - _cut_back(own[begin:last][::-1], is_expected=at_end)
        if end > begin:
            yield _OffsetRun(run.first + begin, run.first + end, run.states[begin:end], run.is_expected)


def _cut_back(nats: NDArray[np.floating], *, is_expected: bool = False) -> int:
    """Return how many of the first values to leave out, because together they speak against the offset.

    Those of an end that the times expect stay, unless all others speak so clearly that these should too.
    """
    sums = np.concatenate(([0.0], np.cumsum(nats, dtype=float)))
    cut = int(sums.argmin())
    if is_expected and (sums[cut] > -_AGAINST_NATS or nats[cut:].sum() <= _CLEAR_NATS * (len(nats) - cut)):
        return 0
    return cut


def _bridge(parts: Sequence[_OffsetRun]) -> list[_OffsetRun]:
    """Join neighbours of one offset: what changed between them would have had to change back."""
    joined: list[_OffsetRun] = []
    for part in parts:
        before = joined[-1] if joined else None
        if before is not None and abs(part.states[0] - before.states[-1]) <= _SAME_STEPS:
            between = np.linspace(before.states[-1], part.states[0], part.first - before.last + 2)[1:-1].round()
            joined[-1] = _OffsetRun(
                before.first, part.last, (*before.states, *map(int, between), *part.states), before.is_expected
            )
        else:
            joined.append(part)
    return joined


def _is_certain(nats: Array, run: _OffsetRun, rules: TrackingRules) -> bool:
    """Whether the run's offset fits by itself, and clearly better than any other."""
    rows, states = np.arange(run.first, run.last), np.asarray(run.states)
    shifts = np.arange(-nats.shape[1] + 1, nats.shape[1])
    own = float(nats[rows, states].sum())
    if own < rules.min_piece_nats:
        return False
    padded = np.pad(nats[rows], ((0, 0), (nats.shape[1], nats.shape[1])))
    totals = np.zeros(len(shifts))
    for row, state in zip(padded, states, strict=True):
        begin = nats.shape[1] + int(state) + int(shifts[0])
        totals += row[begin : begin + len(shifts)]
    others = totals[np.abs(shifts) > round(1.0 / STEP_S)]
    return own - float(others.max()) >= rules.piece_margin_nats


def _fit(nats: Array, run: _OffsetRun, found: FoundOffset) -> tuple[_OffsetRun, tuple[float, float]]:
    """Return the line of a run, and the blocks that it holds for: all, where it is the constant that the times say."""
    if run.is_expected and (constant := _fit_line(nats, run, found))[1] == 0:
        return run, constant
    center_s = found.offset_s - (nats.shape[1] // 2) * STEP_S
    line = fit_offset_line(nats[run.first : run.last], np.asarray(run.states), run.first, center_s, _LINES)
    first = run.first + line.first
    held = replace(run, first=first, last=first + len(line.states), states=line.states)
    return held, (line.base_s if line.slope else _prefer_prior(line.base_s, found.prior_s), line.slope)


def _fit_line(nats: Array, run: _OffsetRun, found: FoundOffset) -> tuple[float, float]:
    """Return the offset at second 0 of the stretch, and how much it grows in a second."""
    center_s = found.offset_s - (nats.shape[1] // 2) * STEP_S
    states = np.asarray(run.states)
    middles_s = (np.arange(run.first, run.last) + 0.5) * BLOCK_S
    if len(states) > 1:
        slope, base = np.polyfit(middles_s, center_s + states * STEP_S, 1)
        if abs(slope) * len(states) * BLOCK_S >= _DRIFT_S:
            return float(base), float(slope)
    state = round(float(states.mean()))
    near = nats[run.first : run.last, max(0, state - 1) : state + 2].sum(axis=0, dtype=float)
    return _prefer_prior(float(center_s + (state + find_top(near, 1)) * STEP_S), found.prior_s), 0.0


def _prefer_prior(offset_s: float, prior_s: float | None) -> float:
    """Return the prior where it differs by less than a step: the times are then the more exact."""
    return prior_s if prior_s is not None and abs(offset_s - prior_s) <= STEP_S else offset_s


def _trim(
    audio: ActivitySignal, transcript: ActivitySignal, run: _OffsetRun, line: tuple[float, float], rules: TrackingRules
) -> Span:
    """Return the seconds of a run, less its first and last ones that do not speak for its offset."""
    first, last = run.first * BLOCK_STEPS, min(run.last * BLOCK_STEPS, audio.steps)
    base_s, slope = line
    reach = min((last - first) // 2, _TRIMMED_BLOCKS * BLOCK_STEPS)
    asked = rules.trim_nats_per_s * STEP_S
    cut = []
    for begin, direction, is_end in ((first, 1, first == 0), (last - reach, -1, last == audio.steps)):
        offset_s = base_s + slope * (begin + reach / 2) * STEP_S
        nats = step_nats(audio, transcript, offset_s, begin, begin + reach)[::direction]
        cut.append(0 if is_end and run.is_expected else _cut_back(nats - asked))
    return (first + cut[0]) * STEP_S, (last - cut[1]) * STEP_S


def _find_change(
    audio: ActivitySignal,
    transcript: ActivitySignal,
    block: int,
    lines: tuple[tuple[float, float], tuple[float, float]],
    rules: TrackingRules,
) -> tuple[float, float]:
    """Return until when the earlier line certainly holds, and from when the later one does, near the block's start."""
    first = max(0, (block - 3) * BLOCK_STEPS)
    last = min(audio.steps, (block + 3) * BLOCK_STEPS)
    earlier, later = (
        step_nats(audio, transcript, base_s + slope * block * BLOCK_S, first, last) for base_s, slope in lines
    )
    gained = np.concatenate(([0.0], np.cumsum(earlier - later)))
    likely = np.flatnonzero(gained >= gained.max() - rules.edge_nats)
    return (first + int(likely[0])) * STEP_S, (first + int(likely[-1])) * STEP_S


def _to_pieces(start_s: float, end_s: float, line: tuple[float, float]) -> Iterator[ClockPiece]:
    """Yield one piece, or several short ones where the offset drifts."""
    base_s, slope = line
    if end_s <= start_s:
        return
    if slope == 0:
        yield ClockPiece(start_s, end_s, base_s)
        return
    cuts = [*np.arange(start_s, end_s - BLOCK_S / 2, BLOCK_S), end_s]
    for begin_s, until_s in pairwise(cuts):
        yield ClockPiece(float(begin_s), float(until_s), base_s + slope * float(begin_s + until_s) / 2)
