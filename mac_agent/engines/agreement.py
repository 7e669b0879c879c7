"""How far two diarizations of one recording agree, independent of their speaker labels. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mac_agent.engines.engine import Turn

STEP_S = 0.001


def changed_s(turns: Sequence[Turn], others: Sequence[Turn], *, tolerance_s: float = 0.0) -> float:
    """Return the speaker seconds in which two diarizations differ, after the best one-to-one mapping of the speakers.

    Args:
        turns: the turns of one diarization.
        others: the turns of the other.
        tolerance_s: boundaries that differ by at most this count as equal.
    """
    end_s = max((turn.end_s for turn in (*turns, *others)), default=0.0)
    first, second = _rasterise(turns, end_s), _rasterise(others, end_s)
    speakers = max(len(first), len(second))
    first, second = (np.pad(rows, ((0, speakers - len(rows)), (0, 0))) for rows in (first, second))
    if not speakers:
        return 0.0
    common = first.astype(np.float32) @ second.astype(np.float32).T
    _, order = linear_sum_assignment(common, maximize=True)
    second = second[order]
    return float(_outside(first, second, tolerance_s) + _outside(second, first, tolerance_s)) * STEP_S


def _rasterise(turns: Sequence[Turn], end_s: float) -> NDArray[np.bool_]:
    names = sorted({turn.speaker for turn in turns})
    rows = np.zeros((len(names), round(end_s / STEP_S)), dtype=bool)
    for turn in turns:
        rows[names.index(turn.speaker), round(turn.start_s / STEP_S) : round(turn.end_s / STEP_S)] = True
    return rows


def _outside(rows: NDArray[np.bool_], others: NDArray[np.bool_], tolerance_s: float) -> int:
    steps = round(tolerance_s / STEP_S)
    if steps:
        others = binary_dilation(others, structure=np.ones((1, 2 * steps + 1), dtype=bool))
    return int(np.count_nonzero(rows & ~others))
