"""Windows and frames of the segmentation network, and their times in a recording."""

from __future__ import annotations

import math

from mac_agent.engines.engine import SAMPLE_RATE_HZ

WINDOW_SAMPLES = 80_000  # 5 s, what the network was trained on
WINDOW_FRAMES = 293
LOCAL_SPEAKERS = 3
FRAME_SAMPLES = 270  # the product of the network's strides
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ  # 0.016875
HOP_FRAMES = 30
HOP_SAMPLES = HOP_FRAMES * FRAME_SAMPLES  # 0.506 s: a whole number of frames, so that all windows share one grid
# The middle of the first frame's receptive field (991 samples), minus half a step.
FIRST_FRAME_START_S = (495 - FRAME_SAMPLES / 2) / SAMPLE_RATE_HZ


def count_windows(n_samples: int) -> int:
    """Return how many windows cover a recording; the last may extend past its end."""
    return 1 + max(0, -(-(n_samples - WINDOW_SAMPLES) // HOP_SAMPLES))


def frame_time_s(frame: int, duration_s: float) -> float:
    """Return the start time of a frame, at most the duration of the recording."""
    return min(FIRST_FRAME_START_S + frame * FRAME_S, duration_s) if frame > 0 else 0.0


def count_frames(n_samples: int) -> int:
    """Return how many frames start within a recording."""
    return max(0, math.ceil((n_samples / SAMPLE_RATE_HZ - FIRST_FRAME_START_S) / FRAME_S))
