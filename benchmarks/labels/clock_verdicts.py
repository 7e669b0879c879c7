"""What became of a drawn case: nothing was believed, the truth was, or something else."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from benchmarks.labels.clock_cases import ClockCase
from vps_bridge.labelling.align import StretchClock

RIGHT_S, WRONG_S = 0.25, 0.5
_STEP_S = 0.25
MAX_OVERRUN_S = 3.0
"""So much speech beyond a change of the offset counts as the uncertain end of a piece."""


class ClockVerdict(StrEnum):
    """What became of a case."""

    RECOVERED = "recovered"
    """At least half of the speech has a place, right within 0.25 s."""
    PARTLY = "partly"
    """What has a place is right, but that is less than half of the speech."""
    REFUSED = "refused"
    OVERRUN = "overran a change"
    """Right, but a piece goes on by more than 3 s of speech past a change of the offset."""
    WRONG = "wrong"
    """Speech was placed more than 0.5 s off, and that was more than a piece's end."""


def judge_clock(case: ClockCase, clock: StretchClock) -> ClockVerdict:
    """Compare the pieces with the truth, in steps of 0.25 s of speech."""
    if not clock.pieces:
        return ClockVerdict.REFUSED
    right_s = wrong_s = all_s = 0.0
    for start_s, end_s in case.speech:
        for moment_s in np.arange(start_s, end_s, _STEP_S):
            all_s += _STEP_S
            piece = next((piece for piece in clock.pieces if piece.start_s <= moment_s < piece.end_s), None)
            if piece is None:
                continue
            error_s = abs(piece.offset_s - case.true_offset_s(float(moment_s)))
            right_s += _STEP_S * (error_s <= RIGHT_S)
            wrong_s += _STEP_S * (error_s > WRONG_S)
    if wrong_s > MAX_OVERRUN_S or wrong_s > right_s:
        is_overrun = len(case.knots) > 1 and wrong_s <= right_s
        return ClockVerdict.OVERRUN if is_overrun else ClockVerdict.WRONG
    return ClockVerdict.RECOVERED if right_s >= all_s / 2 else ClockVerdict.PARTLY
