"""The audio of a planned chunk: tones and silence in a WAV file, small enough to send a thousand of them."""

from __future__ import annotations

import io
import wave

import numpy as np

from tests.faults.plan import CHUNK_S, ChunkPlan

RATE_HZ = 4_000
LOUDNESS = 0.6


def make_audio(chunk: ChunkPlan) -> bytes:
    """Return a WAV file of `CHUNK_S` seconds, 4 kHz mono: 32 kB with 8 bits a sample, 64 kB with 16."""
    samples = np.zeros(round(CHUNK_S * RATE_HZ))
    for turn in chunk.turns:
        first, last = round(turn.start_s * RATE_HZ), round(turn.end_s * RATE_HZ)
        samples[first:last] = LOUDNESS * np.sin(2 * np.pi * turn.pitch_hz * np.arange(last - first) / RATE_HZ)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2 if chunk.is_wide else 1)
        file.setframerate(RATE_HZ)
        data = (samples * 32_767).astype("<i2") if chunk.is_wide else (np.round(samples * 127) + 128).astype("u1")
        file.writeframes(data.tobytes())
    return buffer.getvalue()
