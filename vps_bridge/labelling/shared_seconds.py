"""Shared seconds: how long a speaker of one job and a speaker of another speak at the same time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.audio_clock import Span


def shared_seconds(first: Sequence[Sequence[Span]], second: Sequence[Sequence[Span]]) -> NDArray[np.float64]:
    """Return the seconds that each speaker of one job shares with each of another, shape (first, second).

    Both are the exclusive turns by speaker: within a job no two turns overlap, so one pass over both is enough.
    """
    seconds = np.zeros((len(first), len(second)))
    ours, theirs = _in_order(first), _in_order(second)
    at, other_at = 0, 0
    while at < len(ours) and other_at < len(theirs):
        (start_s, end_s, speaker), (other_start_s, other_end_s, other) = ours[at], theirs[other_at]
        seconds[speaker, other] += max(0.0, min(end_s, other_end_s) - max(start_s, other_start_s))
        if end_s <= other_end_s:
            at += 1
        else:
            other_at += 1
    return seconds


def _in_order(turns: Sequence[Sequence[Span]]) -> list[tuple[float, float, int]]:
    return sorted((start_s, end_s, speaker) for speaker, spans in enumerate(turns) for start_s, end_s in spans)
