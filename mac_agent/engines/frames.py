"""Windows and frames of the segmentation networks, and their times in a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mac_agent.engines.engine import SAMPLE_RATE_HZ

LOCAL_SPEAKERS = 3
FRAME_SAMPLES = 270  # the product of the networks' strides
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ  # 0.016875
# The middle of the first frame's receptive field (991 samples), minus half a step.
FIRST_FRAME_START_S = (495 - FRAME_SAMPLES / 2) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class WindowGrid:
    """How windows lie over a recording. A hop is a whole number of frames, so that all windows share their frames."""

    window_samples: int
    window_frames: int
    hop_frames: int

    @property
    def hop_samples(self) -> int:
        """Samples from the start of one window to that of the next."""
        return self.hop_frames * FRAME_SAMPLES

    def count_windows(self, n_samples: int) -> int:
        """Return how many windows cover a recording; the last may extend past its end."""
        return 1 + max(0, -(-(n_samples - self.window_samples) // self.hop_samples))

    def covered_frames(self, n_windows: int) -> int:
        """Return how many frames so many windows cover."""
        return self.hop_frames * (n_windows - 1) + self.window_frames

    def frames_of(self, window: int) -> slice:
        """Return the frames of the recording that a window covers."""
        first = self.hop_frames * window
        return slice(first, first + self.window_frames)


# The length is what each network was trained on. Ten windows hear every second.
FIVE_SECONDS = WindowGrid(window_samples=80_000, window_frames=293, hop_frames=30)
TEN_SECONDS = WindowGrid(window_samples=160_000, window_frames=589, hop_frames=60)


def frame_time_s(frame: int, duration_s: float) -> float:
    """Return the start time of a frame, at most the duration of the recording."""
    return min(FIRST_FRAME_START_S + frame * FRAME_S, duration_s) if frame > 0 else 0.0


def count_frames(n_samples: int) -> int:
    """Return how many frames start within a recording."""
    return max(0, math.ceil((n_samples / SAMPLE_RATE_HZ - FIRST_FRAME_START_S) / FRAME_S))
