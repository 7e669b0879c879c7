"""The length of a chunk's audio as its bytes tell it, without decoding any."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STEPS = 20_000
"""Headers of frames, pages or blocks that are read of one file: 9 min of MP3, below 0.2 s of the bridge's time."""


@dataclass(frozen=True)
class AudioLength:
    """How long the audio of a file is."""

    duration_s: float
    is_estimated: bool = False
    """Not every byte was accounted for; otherwise a decoder finds the same length, give or take a frame."""


def extrapolate(seconds: float, counted_bytes: int, all_bytes: int) -> AudioLength:
    """Return the length of a file of which the first bytes were counted; the rest is taken to be like them."""
    if counted_bytes <= 0 or counted_bytes >= all_bytes:
        return AudioLength(seconds)
    return AudioLength(seconds * all_bytes / counted_bytes, is_estimated=True)
