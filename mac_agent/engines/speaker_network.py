"""pyannote's speaker network, a ResNet of the WeSpeaker family, rearranged to compute the same in less time."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def prepare_network(resnet: Any, device: torch.device) -> Any:  # noqa: ANN401 - pyannote is not annotated
    """Return a copy of the network with its batch norms folded; on the CPU also channels last, with fused blocks.

    It computes the same function to within rounding (1e-5 of an embedding) in two thirds of the time:
    docs/adr/0003-exact-and-stretch.md.
    """
    folded = fold_batch_norms(resnet)
    if device.type == "cpu":
        folded = folded.to(memory_format=torch.channels_last)
        if can_fuse():
            fuse_blocks(folded)
    return folded


def fold_batch_norms(resnet: Any) -> Any:  # noqa: ANN401 - pyannote is not annotated
    """Return a copy of the network in which every batch norm is folded into the convolution before it."""
    folded = copy.deepcopy(resnet)
    module: Any
    for module in folded.modules():
        for conv, norm in _CONVOLUTIONS:
            if hasattr(module, norm):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
        shortcut = getattr(module, "shortcut", None)
        if shortcut:
            module.shortcut = fuse_conv_bn_eval(*shortcut)
    return folded


def can_fuse() -> bool:
    """Return whether torch was built with oneDNN and its fused convolutions; torch for Apple silicon is not.

    torch.compile uses these convolutions on a CPU. They have no public name, so a version of torch may lack them.
    """
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # torch's, not annotated
    return has_onednn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def fuse_blocks(folded: Any) -> None:  # noqa: ANN401 - pyannote is not annotated
    """Replace the residual blocks of a network with folded batch norms by fused ones."""
    for name in _LAYERS:
        setattr(folded, name, nn.Sequential(*(FusedBlock(block) for block in getattr(folded, name))))


class FusedBlock(nn.Module):
    """A residual block whose ReLUs and sum are part of its convolutions, which saves a pass over memory for each."""

    def __init__(self, block: Any) -> None:  # noqa: ANN401 - pyannote is not annotated
        super().__init__()
        found = [getattr(block, conv) for conv, _ in _CONVOLUTIONS if hasattr(block, conv)]
        self.inner, self.last = nn.ModuleList(found[:-1]), found[-1]
        self.shortcut = block.shortcut

    def forward(self, block_input: torch.Tensor) -> torch.Tensor:
        """Compute the output of the block. The input is overwritten where the shortcut is the identity."""
        hidden = block_input
        for conv in self.inner:
            hidden = torch.ops.mkldnn._convolution_pointwise(hidden, *fused_arguments(conv), "relu", [], "")  # noqa: SLF001
        total: torch.Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            self.shortcut(block_input), hidden, *fused_arguments(self.last), "add", 1.0, "relu", [], ""
        )
        return total


def fused_arguments(conv: Any) -> tuple[Any, ...]:  # noqa: ANN401 - nn.Module gives its parts no type
    """Return what torch's fused convolutions take of a convolution."""
    return conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups


def finish_embedding(resnet: Any, stats: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - pyannote is not annotated
    """Return the embeddings of pooled statistics, the last step of `ResNet.forward_embedding`."""
    embedding = resnet.seg_1(stats)
    if resnet.two_emb_layer:
        embedding = resnet.seg_2(resnet.seg_bn_1(torch.relu(embedding)))
    found: torch.Tensor = embedding
    return found
