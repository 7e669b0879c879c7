"""Read the tensors of a checkpoint whose sha256 was verified, and nothing else in it."""

from __future__ import annotations

import io
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

import torch

from mac_agent.weights.models import verified_content

if TYPE_CHECKING:
    from pathlib import Path

    from mac_agent.weights.models import WeightsFile


class _Placeholder:
    """Replaces a class that a pickle names: it accepts any arguments and state, and ignores them."""

    def __new__(cls, *_args: object) -> Self:
        """Accept the arguments that the pickle was written with."""
        return super().__new__(cls)

    def __init__(self, *_args: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, _state: object) -> None:
        """Ignore the state."""


# Lightning wrote its configuration into the checkpoint. These are all the names in it that torch does not allow by
# default; any other name in the file makes loading fail.
_LIGHTNING_GLOBALS = (
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "pyannote.audio.core.model.Introspection",
    "pyannote.audio.core.task.Problem",
    "pyannote.audio.core.task.Resolution",
    "pyannote.audio.core.task.Specifications",
    "torch.torch_version.TorchVersion",
    "typing.Any",
)
_PLAIN_CONTAINERS = ((list, "builtins.list"), (dict, "builtins.dict"), (int, "builtins.int"))


def read_tensors(data_dir: Path, weights: WeightsFile, key: str) -> dict[str, torch.Tensor]:
    """Return the state dict stored under ``key``; no code in the file is executed.

    Raises:
        ModelMissing: the file was never fetched.
        ModelChanged: the file differs from the pinned one; it is not opened.
    """
    return _only_tensors(_read(data_dir, weights)[key])


def read_state_dict(data_dir: Path, weights: WeightsFile) -> dict[str, torch.Tensor]:
    """Return the state dict of a file that holds nothing else; raises what `read_tensors` does."""
    return _only_tensors(_read(data_dir, weights))


def _read(data_dir: Path, weights: WeightsFile) -> dict[str, Any]:
    content = io.BytesIO(verified_content(data_dir, weights))
    placeholders = [(type(name.rsplit(".", 1)[1], (_Placeholder,), {}), name) for name in _LIGHTNING_GLOBALS]
    allowed: list[Any] = [*placeholders, *_PLAIN_CONTAINERS, (defaultdict, "collections.defaultdict")]
    with torch.serialization.safe_globals(allowed):
        checkpoint: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    return checkpoint


def _only_tensors(entries: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in entries.items() if isinstance(tensor, torch.Tensor)}
