"""CAM++ over several utterances at once: the same function as ``campplus.CAMPPlus``, in two thirds of the time.

An utterance of a second or two is too short to keep a processor busy with the 250 small products of the network.
Most of them concern one frame each, so utterances lie side by side in one matrix, a column a frame. Only two things
reach beyond a frame: convolutions over three frames, which are cut at the ends of each utterance, and the means that
masks follow, which are taken over each utterance's own columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mac_agent.engines.campplus import MASK_FRAMES
from mac_agent.engines.speaker_network import can_fuse, fused_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from mac_agent.engines.campplus import CAMPPlus

_TAPS = 3  # of the convolutions inside a dense block


@dataclass(frozen=True, eq=False)
class Columns:
    """Which column of the matrix belongs to which utterance, and to which two seconds of it."""

    means: torch.Tensor
    """Shape ``(columns, stretches)``: a matrix times this is the mean of each stretch plus that of its utterance."""
    stretch: torch.Tensor
    """The stretch of at most ``MASK_FRAMES`` that holds each column, shape ``(columns,)``."""
    place: torch.Tensor
    """How many columns of the same utterance lie before each column, shape ``(columns,)``."""
    left: torch.Tensor
    """How many lie after it."""


def lay_columns(lengths: Sequence[int], device: torch.device) -> Columns:
    """Lay utterances of these lengths side by side."""
    length = torch.tensor(lengths)
    utterance = torch.repeat_interleave(torch.arange(len(lengths)), length)
    first = torch.cumsum(length, 0) - length
    place = torch.arange(len(utterance)) - first[utterance]
    _, stretch = torch.unique_consecutive(
        utterance * (int(length.max()) + 1) + place // MASK_FRAMES, return_inverse=True
    )
    size = torch.bincount(stretch)
    owner = torch.zeros_like(size)
    owner[stretch] = utterance
    means = (utterance[:, None] == owner) / length[owner] + (stretch[:, None] == torch.arange(len(size))) / size
    left = length[utterance] - 1 - place
    return Columns(means.float().to(device), stretch.to(device), place.to(device), left.to(device))


class RowsOfCampplus:
    """The folded layers of a CAM++ network, run over several utterances at once."""

    def __init__(self, network: CAMPPlus, device: torch.device) -> None:
        layers: Any = dict(network.eval().xvector.named_children())
        self.device = device
        self._head = _fold_head(network.head, device)
        self._fused = device.type == "cpu" and can_fuse()
        tdnn = layers["tdnn"]
        self._first = fuse_conv_bn_eval(tdnn.linear, tdnn.nonlinear.batchnorm).to(device)
        self._blocks = [
            (
                [_DenseStep(layer, device) for layer in layers[f"block{number}"].children()],
                _NormRelu(layers[f"transit{number}"].nonlinear, device),
                layers[f"transit{number}"].linear.weight[:, :, 0].detach().to(device),
            )
            for number in (1, 2, 3)
        ]
        self._last = _NormRelu(layers["out_nonlinear"], device)
        dense = layers["dense"]
        self._dense = dense.linear.weight[:, :, 0].detach().to(device)
        norm = dense.nonlinear.batchnorm
        self._dense_mean, self._dense_scale = (
            norm.running_mean.to(device),
            torch.rsqrt(norm.running_var + norm.eps).to(device),
        )

    @torch.inference_mode()
    def frames(self, utterances: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what is pooled, one column for two frames of each utterance, the utterances side by side.

        Args:
            utterances: log filter banks less their means, each of shape ``(frames, 80)``.

        Returns:
            Shape ``(512, columns)``; an utterance of n frames has (n + 1) // 2 columns.
        """
        parts = [torch.relu(self._first(self._run_head(bands)))[0] for bands in utterances]
        columns = lay_columns([part.shape[1] for part in parts], self.device)
        frames = torch.cat(parts, dim=1)
        for steps, nonlinear, halved in self._blocks:
            frames = halved @ nonlinear(_run_block(steps, frames, columns))
        return self._last(frames)

    @torch.inference_mode()
    def pool(self, frames: torch.Tensor, spans: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Return the L2-normalised embedding of each (first, one past last column), shape ``(spans, 192)``.

        Sums from the first column on make the mean and deviation of any span a difference of two columns.
        """
        exact = torch.nn.functional.pad(frames.double(), (1, 0))
        edge = torch.tensor(spans, device=frames.device).T
        count = edge[1] - edge[0]
        total, squares = (
            torch.cumsum(values, 1)[:, edge[1]] - torch.cumsum(values, 1)[:, edge[0]] for values in (exact, exact**2)
        )
        mean = total / count
        deviation = torch.sqrt(torch.clamp(squares - total * mean, min=0.0) / torch.clamp(count - 1, min=1))
        statistics = torch.cat([mean, deviation]).float()
        found = ((self._dense @ statistics).T - self._dense_mean) * self._dense_scale
        return torch.nn.functional.normalize(found, dim=-1)

    def _run_head(self, bands: torch.Tensor) -> torch.Tensor:
        head, run, add = self._head, _convolve, _convolve_and_add
        if self._fused:
            run, add = _convolve_fused, _convolve_and_add_fused
        found = run(head.conv1, bands.T[None, None].contiguous(memory_format=torch.channels_last))
        for block in (*head.layer1, *head.layer2):
            shortcut = block.shortcut[0](found) if len(block.shortcut) else found
            found = add(block.conv2, run(block.conv1, found), shortcut)
        return run(head.conv2, found).flatten(1, 2)


def _run_block(steps: Sequence[_DenseStep], frames: torch.Tensor, columns: Columns) -> torch.Tensor:
    channels = [len(frames)]
    for step in steps:
        channels.append(channels[-1] + step.growth)
    grown = frames.new_empty(channels[-1], frames.shape[1])
    grown[: channels[0]] = frames
    for step, before, after in zip(steps, channels, channels[1:], strict=False):
        grown[before:after] = step(grown[:before], columns)
    return grown


class _NormRelu:
    """A batch norm as one product and one sum, and a ReLU."""

    def __init__(self, layers: Any, device: torch.device) -> None:  # noqa: ANN401 - nn.Module gives its parts no type
        norm = layers.batchnorm
        scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        self._scale = scale[:, None].to(device)
        self._shift = (norm.bias.detach() - norm.running_mean * scale)[:, None].to(device)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self._shift, frames, self._scale).relu_()


class _DenseStep:
    """One layer of a dense block: from all channels so far to 32 more."""

    def __init__(self, layer: Any, device: torch.device) -> None:  # noqa: ANN401 - nn.Module gives its parts no type
        self._nonlinear = _NormRelu(layer.nonlinear1, device)
        squeeze = fuse_conv_bn_eval(layer.linear1, layer.nonlinear2.batchnorm)
        self._squeeze, self._squeeze_bias = _matrix(squeeze, device)
        local = layer.cam_layer.linear_local
        self.growth: int = local.out_channels
        self._dilation: int = local.dilation[0]
        # A row for each tap and channel: one product computes what all three taps add.
        self._taps = local.weight.detach().permute(2, 0, 1).flatten(0, 1).contiguous().to(device)
        self._context, self._context_bias = _matrix(layer.cam_layer.linear1, device)
        self._mask, self._mask_bias = _matrix(layer.cam_layer.linear2, device)

    def __call__(self, frames: torch.Tensor, columns: Columns) -> torch.Tensor:
        squeezed = torch.addmm(self._squeeze_bias, self._squeeze, self._nonlinear(frames)).relu_()
        context = torch.addmm(self._context_bias, self._context, squeezed @ columns.means).relu_()
        mask = torch.sigmoid(torch.addmm(self._mask_bias, self._mask, context))
        before, found, after = (self._taps @ squeezed).view(_TAPS, self.growth, -1)
        reach = self._dilation
        if reach < found.shape[1]:
            found[:, reach:] += before[:, :-reach] * (columns.place[reach:] >= reach)
            found[:, :-reach] += after[:, reach:] * (columns.left[:-reach] >= reach)
        masked: torch.Tensor = found * mask[:, columns.stretch]
        return masked


def _matrix(convolution: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - not typed
    return convolution.weight[:, :, 0].detach().to(device), convolution.bias.detach()[:, None].to(device)


def _fold_head(head: Any, device: torch.device) -> Any:  # noqa: ANN401 - nn.Module gives its parts no type
    head.conv1, head.conv2 = fuse_conv_bn_eval(head.conv1, head.bn1), fuse_conv_bn_eval(head.conv2, head.bn2)
    for block in (*head.layer1, *head.layer2):
        block.conv1, block.conv2 = fuse_conv_bn_eval(block.conv1, block.bn1), fuse_conv_bn_eval(block.conv2, block.bn2)
        if len(block.shortcut):
            block.shortcut = torch.nn.Sequential(fuse_conv_bn_eval(*block.shortcut))
    return head.to(device, memory_format=torch.channels_last)


def _convolve(convolution: nn.Module, found: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = convolution(found)
    return hidden.relu_()


def _convolve_and_add(convolution: nn.Module, found: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = convolution(found)
    return hidden.add_(shortcut).relu_()


def _convolve_fused(convolution: nn.Module, found: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001 - torch.compile's, without a public name
        found, *fused_arguments(convolution), "relu", [], ""
    )
    return hidden


def _convolve_and_add_fused(convolution: nn.Module, found: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        shortcut, found, *fused_arguments(convolution), "add", 1.0, "relu", [], ""
    )
    return total
