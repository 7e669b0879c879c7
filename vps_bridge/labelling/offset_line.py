"""Fitting: the offset of a run of blocks as a straight line, and where other lines that fit nearly as well disagree.

A clock that runs too fast makes the offset grow by the second. A few pauses do not always tell which rate it has. So
every line near the run is compared, and only those blocks keep a place where all that fit nearly as well say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.offset_search import BLOCK_S, STEP_S, Array

_STEEPEST = 0.0125
"""Clocks that differ by more than this are of another rate of samples, and nothing is placed by them."""
_REACH_STEPS = 15
_FINEST_S = 0.1
"""The ends of two neighbouring lines differ by this."""


@dataclass(frozen=True)
class LineRules:
    """How certain a line of offsets must be, in nats."""

    drift_cost: float = 3.0
    """A line that drifts must fit better than a constant one by this much."""
    doubt_nats: float = 5.0
    """Lines that fit worse than the best by less than this may be the right one."""
    tolerance_s: float = 0.4
    """Blocks where such lines differ by more than this from the best have no place."""


@dataclass(frozen=True)
class OffsetLine:
    """What is added to a second of the audio: `base_s` at second 0, and `slope` more for each second."""

    base_s: float
    slope: float
    first: int
    """The first block of the run that it certainly holds for;"""
    states: tuple[int, ...]
    """and its state in this block and those that follow, as far as it holds; none where it holds for no block."""


def fit_offset_line(nats: Array, states: NDArray[np.intp], first: int, center_s: float, rules: LineRules) -> OffsetLine:
    """Return the line that fits a run of blocks best.

    Args:
        nats: of each block of the run at each state.
        states: the state that was found for each block of the run.
        first: the number of the run's first block in the audio.
        center_s: the offset of state 0.
        rules: how certain it must be.
    """
    blocks = np.arange(len(states))
    middles = blocks - (len(states) - 1) / 2
    steepest = _STEEPEST * BLOCK_S / STEP_S  # in states a block
    half = max(1, int(np.ceil(steepest * len(states) / 2 / (_FINEST_S / STEP_S))))
    slopes = np.linspace(-steepest, steepest, 2 * half + 1)
    shifts = np.arange(-_REACH_STEPS, _REACH_STEPS + 1)
    center = round(float(np.median(states)))
    lines = slopes[:, None, None] * middles + shifts[:, None] + center  # slopes, shifts, blocks
    places = np.rint(lines).astype(int)
    is_known = (places >= 0) & (places < nats.shape[1])
    totals = (nats[blocks, places.clip(0, nats.shape[1] - 1)] * is_known).sum(axis=2, dtype=float)
    totals[np.arange(len(slopes)) != half] -= rules.drift_cost
    best = np.unravel_index(int(totals.argmax()), totals.shape)
    rivals = lines[totals >= totals[best] - rules.doubt_nats]
    apart_s = np.abs(rivals - lines[best]).max(axis=0) * STEP_S
    first_held, last_held = _around(apart_s, (apart_s <= rules.tolerance_s) | ~nats.any(axis=1))
    held = places[best][first_held:last_held].clip(0, nats.shape[1] - 1)
    shift = find_top(totals[best[0]], int(best[1]))
    slope = slopes[best[0]] * STEP_S / BLOCK_S
    middle_s = (first + len(states) / 2) * BLOCK_S
    offset_s = center_s + (center + shifts[best[1]] + shift) * STEP_S
    return OffsetLine(float(offset_s - slope * middle_s), float(slope), first_held, tuple(map(int, held)))


def _around(apart_s: NDArray[np.float64], is_certain: NDArray[np.bool_]) -> tuple[int, int]:
    """Return from where to before where all is certain, around the block where the lines are nearest to each other.

    Blocks that nobody heard are as certain as any: nobody speaks in them.
    """
    middle = int(apart_s.argmin())
    if not is_certain[middle]:
        return 0, 0
    doubtful = np.concatenate(([-1], np.flatnonzero(~is_certain), [len(is_certain)]))
    place = int(np.searchsorted(doubtful, middle))
    return int(doubtful[place - 1]) + 1, int(doubtful[place])


def find_top(totals: NDArray[np.float64], best: int) -> float:
    """Return where between two steps the top of a parabola through the best and its neighbours lies."""
    if not 0 < best < len(totals) - 1:
        return 0.0
    before, top, after = totals[best - 1 : best + 2]
    return float(0.5 * (before - after) / (before - 2 * top + after)) if top > max(before, after) else 0.0
