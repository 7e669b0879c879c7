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


def find_quiet_point(samples: NDArray[np.int16], sample_rate: int) -> int | None:
    """Return the middle of the longest quiet run, as an index of a sample; None where nothing is quiet.

    Silence may have been left out in several places; to take the longest alone was better than to divide it.
    """
    frame = max(1, round(_FRAME_S * sample_rate))
    count = len(samples) // frame
    if count == 0:
        return None
    frames = samples[: count * frame].reshape(count, frame).astype(np.float64)
    levels = np.sqrt(np.mean(np.square(frames - frames.mean(axis=1, keepdims=True)), axis=1))
    limit = max(_FLOOR, _FLOOR_FACTOR * float(np.percentile(levels, _FLOOR_SHARE)))
    place, best, longest = 0, 0.0, round(_MIN_RUN_S / _FRAME_S) - 1
    for is_quiet, group in groupby((levels <= limit).tolist()):
        length = len(list(group))
        if is_quiet and length > longest:
            best, longest = place + length / 2, length
        place += length
    return round(best * frame) if best else None
