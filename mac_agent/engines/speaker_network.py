"""pyannote's speaker network (a ResNet of the WeSpeaker family), rearranged to do the same in less time."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def prepare_network(resnet: Any, device: torch.device) -> Any:  # noqa: ANN401 - pyannote is not annotated
    """Return a copy of the network with its batch norms folded in; on the CPU channels last, its blocks fused.

    The same function to within rounding (1e-5 of an embedding), for two thirds of the time:
    docs/adr/0003-exact-and-stretch.md.
    """
    folded = fold_batch_norms(resnet)
    if device.type == "cpu":
        folded = folded.to(memory_format=torch.channels_last)
        if can_fuse():
            fuse_blocks(folded)
    return folded


def fold_batch_norms(resnet: Any) -> Any:  # noqa: ANN401 - pyannote is not annotated
    """Return a copy of the network in which every convolution does what its batch norm did after it."""
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

    They are what torch.compile calls on a CPU, have no public name, and so are looked for.
    """
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # torch's, not annotated
    return has_onednn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def fuse_blocks(folded: Any) -> None:  # noqa: ANN401 - pyannote is not annotated
    """Replace the blocks of a network whose batch norms were folded."""
    for name in _LAYERS:
        setattr(folded, name, nn.Sequential(*(FusedBlock(block) for block in getattr(folded, name))))


class FusedBlock(nn.Module):
    """A residual block whose ReLUs and sum are part of its convolutions: no pass over memory is made for them."""

    def __init__(self, block: Any) -> None:  # noqa: ANN401 - pyannote is not annotated
        super().__init__()
        found = [getattr(block, conv) for conv, _ in _CONVOLUTIONS if hasattr(block, conv)]
        self.inner, self.last = nn.ModuleList(found[:-1]), found[-1]
        self.shortcut = block.shortcut

    def forward(self, block_input: torch.Tensor) -> torch.Tensor:
        """Do what the block did; what is given is overwritten where it is its own shortcut."""
        hidden = block_input
        for conv in self.inner:
            hidden = torch.ops.mkldnn._convolution_pointwise(hidden, *_arguments(conv), "relu", [], "")  # noqa: SLF001
        total: torch.Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            self.shortcut(block_input), hidden, *_arguments(self.last), "add", 1.0, "relu", [], ""
        )
        return total


def _arguments(conv: Any) -> tuple[Any, ...]:  # noqa: ANN401 - nn.Module gives its parts no type
    return conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups


def finish_embedding(resnet: Any, stats: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - pyannote is not annotated
    """Return the embeddings of pooled statistics, the last step of `ResNet.forward_embedding`."""
    embedding = resnet.seg_1(stats)
    if resnet.two_emb_layer:
        embedding = resnet.seg_2(resnet.seg_bn_1(torch.relu(embedding)))
    found: torch.Tensor = embedding
    return found
