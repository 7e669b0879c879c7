"""The mel spectrogram on which the speaker encoder was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torchaudio.transforms import MelSpectrogram

from mac_agent.engines.engine import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform

N_MELS = 40
HOP_SAMPLES = SAMPLE_RATE_HZ // 100  # 10 ms
FRAMES_PER_S = SAMPLE_RATE_HZ // HOP_SAMPLES  # 100
_WINDOW_SAMPLES = SAMPLE_RATE_HZ // 40  # 25 ms
_BLOCK_FRAMES = 60 * FRAMES_PER_S  # one minute at a time: the complex spectrum is ten times the size of the mels


def mel_spectrogram(waveform: Waveform) -> NDArray[np.float32]:
    """Return power (not log) mels, shape ``(1 + samples // 160, 40)``, frame i centred on sample 160 i.

    Equal to ``librosa.feature.melspectrogram(y, sr=16000, n_fft=400, hop_length=160, n_mels=40)``, which Resemblyzer
    calls: Slaney filters and norm, Hann window, zero padding at both ends.
    """
    spectrum = MelSpectrogram(
        sample_rate=SAMPLE_RATE_HZ,
        n_fft=_WINDOW_SAMPLES,
        hop_length=HOP_SAMPLES,
        n_mels=N_MELS,
        norm="slaney",
        mel_scale="slaney",
        center=False,
    )
    half = _WINDOW_SAMPLES // 2
    n_frames = 1 + len(waveform) // HOP_SAMPLES
    mels = np.empty((n_frames, N_MELS), dtype=np.float32)
    for first in range(0, n_frames, _BLOCK_FRAMES):
        last = min(first + _BLOCK_FRAMES, n_frames)
        start, stop = first * HOP_SAMPLES - half, (last - 1) * HOP_SAMPLES + half
        inside = waveform[max(0, start) : stop]
        block = np.pad(inside, (max(0, -start), stop - max(0, start) - len(inside)))
        mels[first:last] = spectrum(torch.from_numpy(block)).T.numpy()
    return mels
