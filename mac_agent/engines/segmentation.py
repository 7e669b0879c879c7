"""Score who speaks in each window of a recording, with pyannote's segmentation networks slid over it."""

from __future__ import annotations

import os
import warnings
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mac_agent.engines.checkpoint import read_tensors
from mac_agent.engines.engine import SAMPLE_RATE_HZ
from mac_agent.engines.frames import FIVE_SECONDS, LOCAL_SPEAKERS, TEN_SECONDS
from mac_agent.engines.sincnet import SharedSincNet
from mac_agent.weights.models import SEGMENTATION, SEGMENTATION_3

# Unless this is set before the import, pyannote.audio sends a record of every file to its makers.
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
with warnings.catch_warnings():
    # It warns about torchcodec, which it needs only to open files itself.
    warnings.simplefilter("ignore")
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.segmentation import PyanNet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform
    from mac_agent.engines.frames import WindowGrid
    from mac_agent.weights.models import WeightsFile

_BATCH = 16  # windows at a time: more fit the caches of no processor that this was measured on
_TOGETHER = 2  # segmentation-3.0 knows at most two who speak at once


def load_segmentation(data_dir: Path, device: torch.device) -> PyanNet:
    """Build the network of 2022 and load the pinned weights. See `_load` for its input.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: the file differs from the pinned one.
    """
    return _load(data_dir, device, SEGMENTATION, FIVE_SECONDS, Problem.MULTI_LABEL_CLASSIFICATION)


def load_segmentation_3(data_dir: Path, device: torch.device) -> PyanNet:
    """Build segmentation-3.0 and load the pinned weights; raises what `load_segmentation` does."""
    network = _load(data_dir, device, SEGMENTATION_3, TEN_SECONDS, Problem.MONO_LABEL_CLASSIFICATION)
    network.activation = SpeakersOfPowerset().to(device)
    return network


def _load(data_dir: Path, device: torch.device, weights: WeightsFile, grid: WindowGrid, problem: Problem) -> PyanNet:
    """Return the network. Its input is a piece of audio (see ``sincnet``), not windows."""
    network = PyanNet(lstm={"num_layers": 4, "dropout": 0.5})
    network.specifications = Specifications(
        problem=problem,
        resolution=Resolution.FRAME,
        duration=grid.window_samples / SAMPLE_RATE_HZ,
        classes=[f"speaker#{n + 1}" for n in range(LOCAL_SPEAKERS)],
        permutation_invariant=True,
        powerset_max_classes=_TOGETHER if problem == Problem.MONO_LABEL_CLASSIFICATION else None,
    )
    network.build()  # type: ignore[no-untyped-call] # pyannote does not annotate it
    network.load_state_dict(read_tensors(data_dir, weights, "state_dict"), strict=True)
    network.sincnet = SharedSincNet(network.sincnet, grid)  # type: ignore[assignment] # same features, other input
    return network.to(device).eval()


class SpeakersOfPowerset(nn.Module):
    """Turns the score of every set of speakers into the probability that each speaker speaks."""

    members: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        sets = [chosen for size in range(_TOGETHER + 1) for chosen in combinations(range(LOCAL_SPEAKERS), size)]
        members = torch.tensor([[float(speaker in chosen) for speaker in range(LOCAL_SPEAKERS)] for chosen in sets])
        self.register_buffer("members", members)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Map ``(windows, frames, 7)``, not normalised, to ``(windows, frames, 3)``."""
        return torch.softmax(scores, dim=-1) @ self.members.to(scores.dtype)


def score(
    network: PyanNet, grid: WindowGrid, waveform: Waveform, report: Callable[[float], None]
) -> NDArray[np.float16]:
    """Score every window.

    Returns:
        Probability that a local speaker speaks, shape ``(windows, frames, 3)``. Frame f of window w is frame
        ``grid.hop_frames * w + f`` of the recording. The order of the local speakers differs from window to window.
    """
    n_windows = grid.count_windows(len(waveform))
    scores = np.empty((n_windows, grid.window_frames, LOCAL_SPEAKERS), dtype=np.float16)
    for first in range(0, n_windows, _BATCH):
        last = min(first + _BATCH, n_windows)
        samples = waveform[first * grid.hop_samples : (last - 1) * grid.hop_samples + grid.window_samples]
        missing = (last - 1 - first) * grid.hop_samples + grid.window_samples - len(samples)
        padded = torch.from_numpy(np.pad(samples, (0, missing)))
        with torch.inference_mode():
            found = network(padded.to(network.device))
        scores[first:last] = found.cpu().numpy()
        report(last / n_windows)
    return scores
