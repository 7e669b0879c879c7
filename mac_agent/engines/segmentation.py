"""Score who speaks in each window of a recording, with pyannote's segmentation networks slid over it.

The networks are written out: only to import pyannote.audio takes three seconds and a quarter of a gigabyte.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mac_agent.engines.checkpoint import read_tensors
from mac_agent.engines.frames import FIVE_SECONDS, LOCAL_SPEAKERS, TEN_SECONDS
from mac_agent.engines.sincnet import FEATURES, SharedSincNet
from mac_agent.weights.models import SEGMENTATION, SEGMENTATION_3

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform
    from mac_agent.engines.frames import WindowGrid
    from mac_agent.weights.models import WeightsFile

_BATCH = 16  # windows at a time: more fit the caches of no processor that this was measured on
_TOGETHER = 2  # segmentation-3.0 knows at most two who speak at once
_HIDDEN, _LSTM_LAYERS = 128, 4


def load_segmentation(data_dir: Path, device: torch.device) -> SegmentationNetwork:
    """Build the network of 2022 and load the pinned weights.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: the file differs from the pinned one.
    """
    return _load(data_dir, device, SEGMENTATION, SegmentationNetwork(FIVE_SECONDS, LOCAL_SPEAKERS, nn.Sigmoid()))


def load_segmentation_3(data_dir: Path, device: torch.device) -> SegmentationNetwork:
    """Build segmentation-3.0 and load the pinned weights; raises what `load_segmentation` does."""
    speakers = SpeakersOfPowerset()
    return _load(data_dir, device, SEGMENTATION_3, SegmentationNetwork(TEN_SECONDS, len(speakers.members), speakers))


def _load(
    data_dir: Path, device: torch.device, weights: WeightsFile, network: SegmentationNetwork
) -> SegmentationNetwork:
    network.load_state_dict(read_tensors(data_dir, weights, "state_dict"), strict=True)
    return network.to(device).eval()


class SegmentationNetwork(nn.Module):
    """What ``pyannote.audio.models.segmentation.PyanNet`` computes, layer by layer and under the same names.

    Its input is a piece of audio (see ``sincnet``), not windows.
    """

    def __init__(self, grid: WindowGrid, classes: int, activation: nn.Module) -> None:
        super().__init__()
        self.sincnet = SharedSincNet(grid)
        self.lstm = nn.LSTM(FEATURES, _HIDDEN, num_layers=_LSTM_LAYERS, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(2 * _HIDDEN, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)])
        self.classifier = nn.Linear(_HIDDEN, classes)
        self.activation = activation

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Map ``(samples,)`` to the probability that each local speaker speaks, ``(windows, frames, 3)``."""
        hidden, _ = self.lstm(self.sincnet(samples).transpose(1, 2))
        for linear in self.linear:
            hidden = nn.functional.leaky_relu(linear(hidden))
        found: torch.Tensor = self.activation(self.classifier(hidden))
        return found


class SpeakersOfPowerset(nn.Module):
    """Turns the score of every set of speakers into the probability that each speaker speaks."""

    members: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        sets = [chosen for size in range(_TOGETHER + 1) for chosen in combinations(range(LOCAL_SPEAKERS), size)]
        members = torch.tensor([[float(speaker in chosen) for speaker in range(LOCAL_SPEAKERS)] for chosen in sets])
        self.register_buffer("members", members, persistent=False)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Map ``(windows, frames, 7)``, not normalised, to ``(windows, frames, 3)``."""
        return torch.softmax(scores, dim=-1) @ self.members.to(scores.dtype)


def score(
    network: SegmentationNetwork, grid: WindowGrid, waveform: Waveform, report: Callable[[float], None]
) -> NDArray[np.float16]:
    """Score every window.

    Returns:
        Probability that a local speaker speaks, shape ``(windows, frames, 3)``. Frame f of window w is frame
        ``grid.hop_frames * w + f`` of the recording. The order of the local speakers differs from window to window.
    """
    n_windows = grid.count_windows(len(waveform))
    device = next(network.parameters()).device
    scores = np.empty((n_windows, grid.window_frames, LOCAL_SPEAKERS), dtype=np.float16)
    for first in range(0, n_windows, _BATCH):
        last = min(first + _BATCH, n_windows)
        samples = waveform[first * grid.hop_samples : (last - 1) * grid.hop_samples + grid.window_samples]
        missing = (last - 1 - first) * grid.hop_samples + grid.window_samples - len(samples)
        padded = torch.from_numpy(np.pad(samples, (0, missing)))
        with torch.inference_mode():
            found = network(padded.to(device))
        scores[first:last] = found.cpu().numpy()
        report(last / n_windows)
    return scores
