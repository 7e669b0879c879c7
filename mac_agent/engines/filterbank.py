"""The log filter bank on which CAM++ was trained: Kaldi's, 80 bands, 25 ms every 10 ms, no dither."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torchaudio.compliance.kaldi import fbank

from mac_agent.engines.clean_frames import FRAMES_PER_S
from mac_agent.engines.engine import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform

N_BANDS = 80
HOP_SAMPLES = SAMPLE_RATE_HZ // FRAMES_PER_S
_WINDOW_SAMPLES = SAMPLE_RATE_HZ // 40  # 25 ms
_BLOCK_FRAMES = 60 * FRAMES_PER_S  # one minute at a time: the complex spectrum is ten times the size of the bands


def filter_bank(waveform: Waveform) -> NDArray[np.float16]:
    """Return the log energies, shape ``(frames, 80)``, frame i from sample 160 i on.

    As float16, which halves what four hours take and moves an embedding by less than a thousandth.
    """
    n_frames = max(1, 1 + (len(waveform) - _WINDOW_SAMPLES) // HOP_SAMPLES)
    bands = np.empty((n_frames, N_BANDS), dtype=np.float16)
    for first in range(0, n_frames, _BLOCK_FRAMES):
        last = min(first + _BLOCK_FRAMES, n_frames)
        samples = waveform[first * HOP_SAMPLES : (last - 1) * HOP_SAMPLES + _WINDOW_SAMPLES]
        padded = np.pad(samples, (0, (last - 1 - first) * HOP_SAMPLES + _WINDOW_SAMPLES - len(samples)))
        bands[first:last] = fbank(
            torch.from_numpy(padded)[None], num_mel_bins=N_BANDS, sample_frequency=SAMPLE_RATE_HZ, dither=0.0
        ).numpy()
    return bands
