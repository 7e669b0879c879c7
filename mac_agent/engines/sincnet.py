"""The first layers of the segmentation network, computed once for all windows that share their input.

Each second of audio is in ten windows. The band-pass filters, the most expensive layer, are linear, so the
normalisation of each window can be applied after them with exactly the same result. The next layer takes the largest
absolute value of three frames, which is that of their largest or their smallest value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mac_agent.engines.frames import FRAME_SAMPLES

if TYPE_CHECKING:
    from pyannote.audio.models.blocks.sincnet import SincNet

    from mac_agent.engines.frames import WindowGrid

_POOL = 3
_FILTER_TAPS = 251
_FILTER_STRIDE = 10
_TOGETHER = 2  # windows whose features fit a processor's caches: with 32, each step waits for memory


class SharedSincNet(nn.Module):
    """Computes for a longer piece of audio what ``SincNet`` computes for each of its windows."""

    def __init__(self, sincnet: SincNet, grid: WindowGrid) -> None:
        super().__init__()
        self.sincnet = sincnet
        self.grid = grid
        self._pooled = ((grid.window_samples - _FILTER_TAPS) // _FILTER_STRIDE + 1) // _POOL
        self._pooled_hop = grid.hop_frames * FRAME_SAMPLES // (_FILTER_STRIDE * _POOL)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Compute the features of every window.

        Args:
            samples: shape ``(samples,)``; the first window starts at the first sample, the last ends at the last.

        Returns:
            Shape ``(windows, 60, frames)``.
        """
        net = self.sincnet
        windows = samples.unfold(0, self.grid.window_samples, self.grid.hop_samples)
        norm = net.wav_norm1d
        variance, mean = torch.var_mean(windows, dim=1, correction=0)
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        filters: Any = net.conv1d[0]
        gain = filters.filterbank.filters().sum(dim=-1).view(1, -1)  # the response of each filter to a constant
        shift = (norm.bias - scale * mean)[:, None] * gain
        filtered = filters(samples[None, None])
        highest = self._windows(nn.functional.max_pool1d(filtered, _POOL))
        lowest = self._windows(-nn.functional.max_pool1d(-filtered, _POOL))
        scale, shift = scale[:, None, None], shift[:, :, None]
        few = (slice(first, first + _TOGETHER) for first in range(0, len(windows), _TOGETHER))
        return torch.cat([self._features(highest[some], lowest[some], scale[some], shift[some]) for some in few])

    def _features(
        self, highest: torch.Tensor, lowest: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        """Compute the features of a few windows from the filters' extremes, ``(windows, filters, frames)``."""
        net = self.sincnet
        features = torch.maximum((highest * scale + shift).abs_(), (lowest * scale + shift).abs_())
        features = nn.functional.leaky_relu(net.norm1d[0](features))
        for conv1d, pool1d, norm1d in list(zip(net.conv1d, net.pool1d, net.norm1d, strict=True))[1:]:
            features = nn.functional.leaky_relu(norm1d(pool1d(conv1d(features))))
        return features

    def _windows(self, pooled: torch.Tensor) -> torch.Tensor:
        """Cut pooled frames, shape ``(1, filters, frames)``, into windows: ``(windows, filters, frames)``."""
        return pooled[0].unfold(1, self._pooled, self._pooled_hop).transpose(0, 1)
