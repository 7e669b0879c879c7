"""Chunks of one job that were sampled at different rates, brought to the band of the narrowest.

A voice that is heard up to 8 kHz and then only up to 4, as by telephone, is two voices to an engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mac_agent.engines.engine import SAMPLE_RATE_HZ
from mac_agent.sample_buffer import BLOCK_SAMPLES

if TYPE_CHECKING:
    from mac_agent.audio import DecodedChunk
    from mac_agent.engines.engine import Waveform

LEAST_RATE_HZ = 8_000  # a telephone's; what is sampled at less is no speech worth making all other speech like
PASSED_RATIO = 0.475  # of the rate: the middle of the slope, which ends at half of it
TAPS = 161  # the slope is 330 Hz wide


def match_bands(chunks: Sequence[DecodedChunk]) -> list[str]:
    """Take off each chunk, in place, what the one of the lowest rate cannot hold; return the warning about it."""
    rates_hz = [min(rate_hz, SAMPLE_RATE_HZ) for chunk in chunks for rate_hz in chunk.rates_hz]
    lowest_hz = max(LEAST_RATE_HZ, min(rates_hz, default=SAMPLE_RATE_HZ))
    if lowest_hz >= max(rates_hz, default=0):
        return []
    for chunk in chunks:
        if max(chunk.rates_hz, default=0) > lowest_hz:
            _low_pass(chunk.waveform, lowest_hz)
    return [f"audio.rate_changes: chunks sampled at {lowest_hz} Hz and at more; all were heard as at {lowest_hz} Hz"]


def _low_pass(samples: Waveform, rate_hz: int) -> None:
    """Take off what lies above half of a rate, in place and in blocks, without moving anything in time."""
    places = np.arange(TAPS) - TAPS // 2
    slope = 2 * PASSED_RATIO * rate_hz / SAMPLE_RATE_HZ
    taps = (slope * np.sinc(slope * places) * np.hamming(TAPS)).astype(np.float32)
    side = TAPS // 2
    before = np.zeros(side, dtype=np.float32)
    for start in range(0, samples.size, BLOCK_SAMPLES):
        block = samples[start : start + BLOCK_SAMPLES]
        after = samples[start + BLOCK_SAMPLES : start + BLOCK_SAMPLES + side]
        padded = np.concatenate([before, block, after, np.zeros(side - after.size, dtype=np.float32)])
        before = padded[block.size : block.size + side].copy()
        block[:] = np.convolve(padded, taps, mode="valid")
