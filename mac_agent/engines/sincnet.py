"""The first layers of the segmentation network, computed once for all windows that share their input.

Each second of audio is in ten windows. The band-pass filters, the most expensive layer, are linear, so the
normalisation of each window can be applied after them with exactly the same result. The next layer takes the largest
absolute value of three frames, which is that of their largest or their smallest value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from asteroid_filterbanks import Encoder, ParamSincFB
from torch import nn

from mac_agent.engines.engine import SAMPLE_RATE_HZ
from mac_agent.engines.frames import FRAME_SAMPLES

if TYPE_CHECKING:
    from mac_agent.engines.frames import WindowGrid

FEATURES = 60
_FILTERS = 80
_POOL = 3
_TAPS = 5
_FILTER_TAPS = 251
_FILTER_STRIDE = 10
_LEAST_HZ = 50
_TOGETHER = 2  # windows whose features fit a processor's caches: with 32, each step waits for memory


class SharedSincNet(nn.Module):
    """Computes for a longer piece of audio what pyannote's ``SincNet`` computes for each of its windows.

    The layers have the names and shapes of those of ``pyannote.audio.models.blocks.sincnet``.
    """

    def __init__(self, grid: WindowGrid) -> None:
        super().__init__()
        filters = ParamSincFB(
            _FILTERS,
            _FILTER_TAPS,
            stride=_FILTER_STRIDE,
            sample_rate=SAMPLE_RATE_HZ,
            min_low_hz=_LEAST_HZ,
            min_band_hz=_LEAST_HZ,
        )
        self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
        self.conv1d = nn.ModuleList(
            [Encoder(filters), nn.Conv1d(_FILTERS, FEATURES, _TAPS), nn.Conv1d(FEATURES, FEATURES, _TAPS)]
        )
        self.norm1d = nn.ModuleList(
            nn.InstanceNorm1d(channels, affine=True) for channels in (_FILTERS, FEATURES, FEATURES)
        )
        self.grid = grid
        self._pooled = ((grid.window_samples - _FILTER_TAPS) // _FILTER_STRIDE + 1) // _POOL
        self._pooled_hop = grid.hop_frames * FRAME_SAMPLES // (_FILTER_STRIDE * _POOL)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Compute the features of every window.

        Args:
            samples: shape ``(samples,)``; the first window starts at the first sample, the last ends at the last.

        Returns:
            Shape ``(windows, FEATURES, frames)``.
        """
        windows = samples.unfold(0, self.grid.window_samples, self.grid.hop_samples)
        norm = self.wav_norm1d
        variance, mean = torch.var_mean(windows, dim=1, correction=0)
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        filters: Any = self.conv1d[0]
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
        features = torch.maximum((highest * scale + shift).abs_(), (lowest * scale + shift).abs_())
        features = nn.functional.leaky_relu(self.norm1d[0](features))
        for conv1d, norm1d in list(zip(self.conv1d, self.norm1d, strict=True))[1:]:
            features = nn.functional.leaky_relu(norm1d(nn.functional.max_pool1d(conv1d(features), _POOL)))
        return features

    def _windows(self, pooled: torch.Tensor) -> torch.Tensor:
        """Cut pooled frames, shape ``(1, filters, frames)``, into windows: ``(windows, filters, frames)``."""
        return pooled[0].unfold(1, self._pooled, self._pooled_hop).transpose(0, 1)
