"""Score who speaks in each window of five seconds, with pyannote's segmentation network slid over a recording."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from mac_agent.engines.checkpoint import read_tensors
from mac_agent.engines.engine import SAMPLE_RATE_HZ
from mac_agent.engines.frames import HOP_SAMPLES, LOCAL_SPEAKERS, WINDOW_FRAMES, WINDOW_SAMPLES, count_windows
from mac_agent.engines.sincnet import SharedSincNet
from mac_agent.weights.models import SEGMENTATION

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

_BATCH = 32


def load_segmentation(data_dir: Path, device: torch.device) -> PyanNet:
    """Build the network and load the pinned weights. Its input is a piece of audio (see ``sincnet``), not windows.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: the file differs from the pinned one.
    """
    network = PyanNet(lstm={"num_layers": 4, "dropout": 0.5})
    network.specifications = Specifications(
        problem=Problem.MULTI_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=WINDOW_SAMPLES / SAMPLE_RATE_HZ,
        classes=[f"speaker#{n + 1}" for n in range(LOCAL_SPEAKERS)],
        permutation_invariant=True,
    )
    network.build()  # type: ignore[no-untyped-call] # pyannote does not annotate it
    network.load_state_dict(read_tensors(data_dir, SEGMENTATION, "state_dict"), strict=True)
    network.sincnet = SharedSincNet(network.sincnet)  # type: ignore[assignment] # same features, other input
    return network.to(device).eval()


def segment(network: PyanNet, waveform: Waveform, report: Callable[[float], None]) -> NDArray[np.float16]:
    """Score every window.

    Returns:
        Probability that a local speaker speaks, shape ``(windows, 293, 3)``. Frame f of window w is frame
        ``30 w + f`` of the recording. The order of the local speakers differs from window to window.
    """
    n_windows = count_windows(len(waveform))
    scores = np.empty((n_windows, WINDOW_FRAMES, LOCAL_SPEAKERS), dtype=np.float16)
    for first in range(0, n_windows, _BATCH):
        last = min(first + _BATCH, n_windows)
        samples = waveform[first * HOP_SAMPLES : (last - 1) * HOP_SAMPLES + WINDOW_SAMPLES]
        missing = (last - 1 - first) * HOP_SAMPLES + WINDOW_SAMPLES - len(samples)
        padded = torch.from_numpy(np.pad(samples, (0, missing)))
        with torch.inference_mode():
            found = network(padded.to(network.device))
        scores[first:last] = found.cpu().numpy()
        report(last / n_windows)
    return scores
