"""Choose the mel frames from which each piece is embedded: clean, without noise, at one level. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from mac_agent.engines.clean_frames import clean_seconds, count_talkers, find_clean_frames, frames_around
from mac_agent.engines.frames import FIRST_FRAME_START_S, FRAME_S
from mac_agent.engines.mel import FRAMES_PER_S, HOP_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform
    from mac_agent.engines.frames import WindowGrid
    from mac_agent.engines.tracks import Piece

CONTEXT_MELS = 160  # 1.6 s, on which the encoder was trained
LEVEL_DBFS = -30.0  # Resemblyzer raises quieter speech to this level and does not change louder speech
_MAYBE_SPEECH = 0.3  # well below the 0.5 of speech, so that breathing does not count as noise
_LEAST_SILENT_MELS = 50  # half a second; less silence is not enough to estimate the noise
_KEPT_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class MelCut:
    """The mel frames from which one piece is embedded."""

    frames: NDArray[np.int32]
    """Indices of the mel frames, at most 1.6 s of them, around the piece and from its own utterance."""
    gain: float
    """Factor on their power that raises quiet speech to the level of the encoder."""
    clean_s: float
    """Seconds of the piece itself in which nobody else speaks."""


def cut_mels(waveform: Waveform, n_mels: int, pieces: Sequence[Piece]) -> list[MelCut]:
    """Choose the mel frames of every piece, with context from its own utterance but not from overlapping speech."""
    power = mel_frame_power(waveform, n_mels)
    talkers = count_talkers(pieces)
    cuts: list[MelCut] = []
    for _, group in groupby(pieces, key=lambda piece: piece.utterance):
        utterance = list(group)
        alone = find_clean_frames(utterance[0].first, utterance[-1].last, talkers, n_mels)
        for piece in utterance:
            chosen = alone[frames_around(alone, piece, CONTEXT_MELS)]
            gain = level_gain(float(power[chosen].mean()))
            cuts.append(MelCut(chosen.astype(np.int32), gain**2, clean_seconds(piece, talkers)))
    return cuts


def subtract_noise(mels: NDArray[np.float32], scores: NDArray[np.float16], grid: WindowGrid) -> NDArray[np.float32]:
    """Subtract the recording's steady noise from its mels, in place.

    The mels are power, not its logarithm, so steady noise adds the same amount to every frame. It is estimated as the
    median of the frames in which no window finds speech. A tenth of each mel is always kept.

    Args:
        mels: shape ``(frames, 40)``.
        scores: shape ``(windows, frames, 3)``.
        grid: how these windows lie over the recording.
    """
    spoken = np.zeros(grid.covered_frames(len(scores)), dtype=bool)
    for window, score in enumerate(scores):
        spoken[grid.frames_of(window)] |= (score > _MAYBE_SPEECH).any(axis=1)
    frame = ((np.arange(len(mels)) / FRAMES_PER_S - FIRST_FRAME_START_S) / FRAME_S).astype(int)
    silent = ~spoken[np.clip(frame, 0, len(spoken) - 1)]
    if np.count_nonzero(silent) >= _LEAST_SILENT_MELS:
        noise = np.median(mels[silent], axis=0)
        np.maximum(mels - noise, _KEPT_SHARE * mels, out=mels)
    return mels


def level_gain(power: float) -> float:
    """Return the gain that raises speech of this mean square to the encoder's level; never below 1."""
    rms = np.sqrt(power) + 1e-9
    return max(1.0, float(10 ** (LEVEL_DBFS / 20) / rms))


def mel_frame_power(waveform: Waveform, n_mels: int) -> NDArray[np.float64]:
    """Return the mean square of the 10 ms around each mel frame, shape ``(n_mels,)``."""
    total = np.zeros(n_mels)
    # In half hops: frame i is centred on sample i * HOP_SAMPLES, so it spans two halves of neighbouring hops.
    half = HOP_SAMPLES // 2
    halves = waveform[: len(waveform) // half * half].reshape(-1, half)
    energy = np.einsum("ij,ij->i", halves, halves)
    before, after = energy[1::2], energy[::2]
    total[1 : len(before) + 1] += before[: n_mels - 1]
    total[: len(after)] += after[:n_mels]
    return total / HOP_SAMPLES
