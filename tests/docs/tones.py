"""A call without words: each voice is a pitch, which the engine of `tests/faults` tells from another."""

import io
import wave
from collections.abc import Iterable

import numpy as np

RATE_HZ = 16_000
LOUDNESS = 0.6


def make_tones(turns: Iterable[tuple[float, float, int]], length_s: float) -> bytes:
    """Return a WAV file (16 bits, mono) in which (start_s, end_s, pitch_hz) sound, and silence is between them."""
    samples = np.zeros(round(length_s * RATE_HZ))
    for start_s, end_s, pitch_hz in turns:
        first, last = round(start_s * RATE_HZ), round(end_s * RATE_HZ)
        samples[first:last] = LOUDNESS * np.sin(2 * np.pi * pitch_hz * np.arange(last - first) / RATE_HZ)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return buffer.getvalue()
