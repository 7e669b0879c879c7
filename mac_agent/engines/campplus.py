"""CAM++ (3D-Speaker), a speaker network of densely connected time-delay layers with context-aware masks.

Wang et al., "CAM++: A fast and efficient network for speaker verification using context-aware masking", 2023. The
modules are named as in the published checkpoint, so that its state dict fits them without a change.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn

from mac_agent.engines.checkpoint import read_state_dict
from mac_agent.engines.filterbank import N_BANDS
from mac_agent.weights.models import CAMPPLUS

if TYPE_CHECKING:
    from pathlib import Path

DIMENSION = 192
_CHANNELS, _GROWTH, _BOTTLENECK = 128, 32, 128
_DENSE_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation of each
MASK_FRAMES = 100  # masks follow the mean over 2 s beside that over all frames: a frame is 20 ms after the first layer
_POOLING = -2  # mean and deviation over the frames, and the last layer
_HEAD_CHANNELS = 32
_HEAD_BANDS = 8  # the head reduces the bands to an eighth


class CAMPPlus(nn.Module):
    """The network from filter bank to embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.head = _Head()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = _HEAD_CHANNELS * N_BANDS // _HEAD_BANDS
        layers["tdnn"] = _ConvNormRelu(channels, _CHANNELS)
        channels = _CHANNELS
        for number, (n_layers, dilation) in enumerate(_DENSE_BLOCKS, 1):
            layers[f"block{number}"] = _DenseBlock(n_layers, channels, dilation)
            channels += n_layers * _GROWTH
            layers[f"transit{number}"] = _Transit(channels)
            channels //= 2
        layers["out_nonlinear"] = _norm_relu(channels)
        layers["stats"] = _MeanAndDeviation()
        layers["dense"] = _Dense(2 * channels)
        self.xvector = nn.Sequential(layers)

    def forward(self, bands: torch.Tensor) -> torch.Tensor:
        """Embed a batch of equally long pieces.

        Args:
            bands: log filter bank less its mean over the piece, shape ``(batch, frames, 80)``.

        Returns:
            Shape ``(batch, 192)``, not normalised.
        """
        return self.pool(self.frames(bands))

    def frames(self, bands: torch.Tensor) -> torch.Tensor:
        """Return what is pooled, one frame for two of the bands: shape ``(batch, 512, (frames + 1) // 2)``."""
        found: torch.Tensor = self.xvector[:_POOLING](self.head(bands.transpose(1, 2)))
        return found

    def pool(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the embedding of such frames, of all or of some that follow each other."""
        embedding: torch.Tensor = self.xvector[_POOLING:](frames)
        return embedding


def load_campplus(data_dir: Path) -> CAMPPlus:
    """Load the pinned weights.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: the file differs from the pinned one.
    """
    network = CAMPPlus()
    network.load_state_dict(read_state_dict(data_dir, CAMPPLUS), strict=True)
    return network.eval()


class _Head(nn.Module):
    """Residual convolutions over bands and time, which reduce the bands to an eighth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, _HEAD_CHANNELS, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_HEAD_CHANNELS)
        self.layer1 = nn.Sequential(_ResidualBlock(stride=2), _ResidualBlock(stride=1))
        self.layer2 = nn.Sequential(_ResidualBlock(stride=2), _ResidualBlock(stride=1))
        self.conv2 = nn.Conv2d(_HEAD_CHANNELS, _HEAD_CHANNELS, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_HEAD_CHANNELS)

    def forward(self, bands: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, 80, frames)`` to ``(batch, 320, frames)``."""
        found = torch.relu(self.bn1(self.conv1(bands[:, None])))
        found = torch.relu(self.bn2(self.conv2(self.layer2(self.layer1(found)))))
        return found.flatten(1, 2)


class _ResidualBlock(nn.Module):
    def __init__(self, *, stride: int) -> None:
        super().__init__()
        n = _HEAD_CHANNELS
        self.conv1 = nn.Conv2d(n, n, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n)
        self.conv2 = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(n, n, 1, stride=(stride, 1), bias=False), nn.BatchNorm2d(n))

    def forward(self, block_input: torch.Tensor) -> torch.Tensor:
        found = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(block_input)))))
        return torch.relu(found + self.shortcut(block_input))


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


class _Pointwise(nn.Conv1d):
    """A convolution over one frame, as a product of matrices: for the few frames of an utterance that is faster."""

    def __init__(self, channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(channels, out_channels, 1, bias=bias)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.weight[:, :, 0] @ frames
        return product if self.bias is None else product + self.bias[:, None]


class _ConvNormRelu(nn.Module):
    """The first time-delay layer, which halves the rate of frames."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, out_channels, 5, stride=2, padding=2, bias=False)
        self.nonlinear = _norm_relu(out_channels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.nonlinear(self.linear(frames))
        return found


class _DenseBlock(nn.Module):
    """Layers each of which sees the output of all before it."""

    def __init__(self, n_layers: int, channels: int, dilation: int) -> None:
        super().__init__()
        for number in range(n_layers):
            self.add_module(f"tdnnd{number + 1}", _DenseLayer(channels + number * _GROWTH, dilation))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            frames = torch.cat([frames, layer(frames)], dim=1)
        return frames


class _DenseLayer(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm_relu(channels)
        self.linear1 = _Pointwise(channels, _BOTTLENECK, bias=False)
        self.nonlinear2 = _norm_relu(_BOTTLENECK)
        self.cam_layer = _MaskedLayer(dilation)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(frames))))
        return found


class _MaskedLayer(nn.Module):
    """A time-delay layer whose output is masked by what is heard around: over 2 s and over all frames."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(_BOTTLENECK, _GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = _Pointwise(_BOTTLENECK, _BOTTLENECK // 2)
        self.linear2 = _Pointwise(_BOTTLENECK // 2, _GROWTH)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        n_frames = frames.shape[-1]
        near = nn.functional.avg_pool1d(frames, MASK_FRAMES, MASK_FRAMES, ceil_mode=True)
        context = frames.mean(-1, keepdim=True) + near
        mask = torch.sigmoid(self.linear2(torch.relu(self.linear1(context))))
        masked: torch.Tensor = self.linear_local(frames) * mask.repeat_interleave(MASK_FRAMES, dim=-1)[..., :n_frames]
        return masked


class _Transit(nn.Module):
    """Halves the channels between two dense blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nonlinear = _norm_relu(channels)
        self.linear = _Pointwise(channels, channels // 2, bias=False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(self.nonlinear(frames))
        return found


class _MeanAndDeviation(nn.Module):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        correction = min(1, frames.shape[-1] - 1)  # one frame deviates by nothing
        return torch.cat([frames.mean(-1), frames.std(-1, correction=correction)], dim=-1)


class _Dense(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = _Pointwise(channels, DIMENSION, bias=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(DIMENSION, affine=False)))

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.nonlinear(self.linear(statistics[..., None])[..., 0])
        return found
