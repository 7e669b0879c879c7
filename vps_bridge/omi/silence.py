"""Where silence was left out of audio. Pure.

A sender that leaves silence out keeps a moment of it on either side: where it did, the audio is quiet for that long.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

_FRAME_S = 0.02
_MIN_RUN_S = 0.1
_FLOOR_SHARE, _FLOOR_FACTOR, _FLOOR = 10, 2.0, 20.0
"""A frame is quiet below twice the level that a tenth of all frames is below, and below what is hardly audible."""
_LIKE_LONGEST = 0.7


def find_quiet_points(samples: NDArray[np.int16], sample_rate: int) -> list[int]:
    """Return the middles of the longest quiet runs, as indexes of samples; none where nothing is quiet."""
    frame = max(1, round(_FRAME_S * sample_rate))
    count = len(samples) // frame
    if count == 0:
        return []
    frames = samples[: count * frame].reshape(count, frame).astype(np.float64)
    levels = np.sqrt(np.mean(np.square(frames - frames.mean(axis=1, keepdims=True)), axis=1))
    limit = max(_FLOOR, _FLOOR_FACTOR * float(np.percentile(levels, _FLOOR_SHARE)))
    runs: list[tuple[int, int]] = []
    place = 0
    for is_quiet, group in groupby((levels <= limit).tolist()):
        length = len(list(group))
        if is_quiet and length * _FRAME_S >= _MIN_RUN_S:
            runs.append((place, length))
        place += length
    longest = max((length for _, length in runs), default=0)
    return [round((start + length / 2) * frame) for start, length in runs if length >= _LIKE_LONGEST * longest]
