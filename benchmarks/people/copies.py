"""One recording as several rooms, levels, noises and a telephone would have it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import butter, resample_poly, sosfilt

from benchmarks.recordings import with_noise, with_reverberation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from benchmarks.recordings import Recording

TELEPHONE_HZ, BAND_HZ, MU = 8_000, (300.0, 3_400.0), 255.0
QUIET_DB, INT16_STEPS = -40.0, 32_767


def telephone(recording: Recording) -> Recording:
    """The recording through a telephone: 300 to 3,400 Hz, sampled at 8 kHz, 8 bits of µ-law (G.711)."""
    narrow = resample_poly(recording.waveform, 1, 2)
    band = sosfilt(butter(4, BAND_HZ, "bandpass", fs=TELEPHONE_HZ, output="sos"), narrow)
    loudest = max(float(np.abs(band).max()), 1e-9)
    heard = resample_poly(loudest * _mu_law(band / loudest), 2, 1)[: len(recording.waveform)]
    return replace(recording, waveform=heard.astype(np.float32))


def quiet(recording: Recording) -> Recording:
    """The recording 40 dB quieter, in the steps of 16 bits that are left of it."""
    steps = np.round(recording.waveform * 10 ** (QUIET_DB / 20) * INT16_STEPS)
    return replace(recording, waveform=(steps / INT16_STEPS).astype(np.float32))


def _mu_law(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Code samples from -1 to 1 as µ-law in 8 bits, and decode them."""
    coded = np.sign(samples) * np.log1p(MU * np.abs(samples)) / np.log1p(MU)
    coded = np.round(coded * 127) / 127
    found: NDArray[np.float64] = np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(MU)) / MU
    return found


COPIES: Mapping[str, Callable[[Recording, int], Recording]] = {
    "clean": lambda recording, _: recording,
    "quiet": lambda recording, _: quiet(recording),
    "small room": lambda recording, seed: with_reverberation(recording, 0.3, seed),
    "hall": lambda recording, seed: with_reverberation(recording, 0.8, seed),
    "noise 20 dB": lambda recording, seed: with_noise(recording, 20.0, seed),
    "noise 10 dB": lambda recording, seed: with_noise(recording, 10.0, seed),
    "telephone": lambda recording, _: telephone(recording),
    "far": lambda recording, seed: with_noise(with_reverberation(recording, 0.5, seed), 15.0, seed),
}
"""By name, a function of the recording and a seed: the same room or noise for all, another for each seed."""
