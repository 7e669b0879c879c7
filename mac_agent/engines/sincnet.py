"""The first layers of the segmentation network, computed once for all windows that share their input.

Each second of audio is seen by ten windows. The band-pass filters, the dearest layer, are linear: what a window's own
normalisation does before them can be done after them instead, exactly, and the maximum of an absolute value over three
frames is that of its largest or its smallest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mac_agent.engines.frames import FRAME_SAMPLES, HOP_FRAMES, HOP_SAMPLES, WINDOW_SAMPLES

if TYPE_CHECKING:
    from pyannote.audio.models.blocks.sincnet import SincNet

_POOL = 3
_FILTER_TAPS = 251
_FILTER_STRIDE = 10
_POOLED = ((WINDOW_SAMPLES - _FILTER_TAPS) // _FILTER_STRIDE + 1) // _POOL  # 2658 pooled frames in a window
_POOLED_HOP = HOP_FRAMES * FRAME_SAMPLES // (_FILTER_STRIDE * _POOL)  # 270 from one window to the next


class SharedSincNet(nn.Module):
    """Does to a stretch of audio what ``SincNet`` does to each of its windows."""

    def __init__(self, sincnet: SincNet) -> None:
        super().__init__()
        self.sincnet = sincnet

    def forward(self, stretch: torch.Tensor) -> torch.Tensor:
        """Compute the features of every window.

        Args:
            stretch: shape ``(samples,)``, the first window starts at sample 0, the last ends at its end.

        Returns:
            Shape ``(windows, 60, 293)``.
        """
        net = self.sincnet
        windows = stretch.unfold(0, WINDOW_SAMPLES, HOP_SAMPLES)
        norm = net.wav_norm1d
        variance, mean = torch.var_mean(windows, dim=1, correction=0)
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        filters: Any = net.conv1d[0]
        gain = filters.filterbank.filters().sum(dim=-1).view(1, -1)  # what a filter makes of a constant
        shift = (norm.bias - scale * mean)[:, None] * gain
        heard = filters(stretch[None, None])
        highest = self._windows(nn.functional.max_pool1d(heard, _POOL))
        lowest = self._windows(-nn.functional.max_pool1d(-heard, _POOL))
        scale, shift = scale[:, None, None], shift[:, :, None]
        features = torch.maximum((highest * scale + shift).abs(), (lowest * scale + shift).abs())
        features = nn.functional.leaky_relu(net.norm1d[0](features))
        for conv1d, pool1d, norm1d in list(zip(net.conv1d, net.pool1d, net.norm1d, strict=True))[1:]:
            features = nn.functional.leaky_relu(norm1d(pool1d(conv1d(features))))
        return features

    @staticmethod
    def _windows(pooled: torch.Tensor) -> torch.Tensor:
        """From ``(1, filters, frames)`` to ``(windows, filters, 2658)``."""
        return pooled[0].unfold(1, _POOLED, _POOLED_HOP).transpose(0, 1)
