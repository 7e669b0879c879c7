"""The GE2E speaker encoder of Resemblyzer, which computes an embedding from the mels of one voice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mac_agent.engines.checkpoint import read_tensors
from mac_agent.engines.mel import N_MELS
from mac_agent.weights.models import ENCODER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mac_agent.engines.mel_cuts import MelCut

DIMENSION = 256
_BATCH = 64
_SMALLEST_NORM = 1e-6


class Encoder(nn.Module):
    """Three LSTM layers, a projection, ReLU and L2 norm (Wan et al., 2018; weights by Resemblyzer)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(N_MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, DIMENSION)

    def forward(self, mels: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed a batch.

        Args:
            mels: shape ``(batch, frames, 40)``, zeros after each item's length.
            lengths: frames of each item, shape ``(batch,)``. The LSTM is causal, so its state after the last
                frame of an item does not depend on what follows.

        Returns:
            Shape ``(batch, 256)``, L2-normalised.
        """
        states, _ = self.lstm(mels)
        last = states[torch.arange(len(states), device=states.device), lengths - 1]
        raw = torch.relu(self.linear(last))
        return nn.functional.normalize(raw, dim=1, eps=_SMALLEST_NORM)


def load_encoder(data_dir: Path, device: torch.device) -> Encoder:
    """Load the pinned weights.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: the file differs from the pinned one.
    """
    tensors = read_tensors(data_dir, ENCODER, "model_state")
    # The checkpoint also contains the two scalars of the training loss, which the network does not use.
    network = {name: tensor for name, tensor in tensors.items() if not name.startswith("similarity_")}
    encoder = Encoder()
    encoder.load_state_dict(network, strict=True)
    return encoder.to(device).eval()


def embed(
    encoder: Encoder, mels: NDArray[np.float32], cuts: Sequence[MelCut], report: Callable[[float], None]
) -> NDArray[np.float32]:
    """Embed cuts of a recording whose mel spectrogram is ``mels``, shape ``(frames, 40)``.

    Returns:
        Shape ``(cuts, 256)``, L2-normalised, in the order of ``cuts``.
    """
    embeddings = np.empty((len(cuts), DIMENSION), dtype=np.float32)
    device = next(encoder.parameters()).device
    # Cuts of similar length share a batch, so that little padding is computed.
    order = sorted(range(len(cuts)), key=lambda index: len(cuts[index].frames))
    for first in range(0, len(order), _BATCH):
        batch = order[first : first + _BATCH]
        lengths = [len(cuts[index].frames) for index in batch]
        padded = np.zeros((len(batch), max(lengths), N_MELS), dtype=np.float32)
        for row, index in enumerate(batch):
            padded[row, : lengths[row]] = mels[cuts[index].frames] * np.float32(cuts[index].gain)
        with torch.inference_mode():
            found = encoder(torch.from_numpy(padded).to(device), torch.tensor(lengths, device=device))
        embeddings[batch] = found.cpu().numpy()
        report((first + len(batch)) / len(order))
    return embeddings
