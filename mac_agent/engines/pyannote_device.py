"""Which device runs the networks, and whether its arithmetic can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import torch

from mac_agent.engines.agreement import changed_s
from mac_agent.engines.engine import Hints
from mac_agent.errors import DeviceUnavailable

if TYPE_CHECKING:
    from mac_agent.engines.engine import Engine, Waveform

FRAME_S = 0.016875  # one frame of the segmentation network

_log = structlog.get_logger("mac_agent.engines.device")


def choose_device(asked: str) -> torch.device:
    """Return the device: for `auto` the first of mps, cuda and cpu that is here, else the one asked for.

    Raises:
        DeviceUnavailable: torch cannot use it on this machine.
    """
    if asked == "auto":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceUnavailable(
            f"torch cannot use the device {asked!r} here ({error}). Choose device 'cpu' or 'auto'."
        ) from error
    return device


def agrees_with_cpu(on_cpu: Engine, on_device: Engine, clip: Waveform) -> bool:
    """Return whether a device gives the turns that the CPU gives, boundaries within one frame.

    A device that raises does not agree. What it answers on one real conversation is what it is judged by: wrong
    timestamps, silence and zeros have all been seen from drivers that reported success.
    """
    expected = on_cpu.diarize(clip, Hints(), _ignore)
    try:
        found = on_device.diarize(clip, Hints(), _ignore)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        _log.error("device failed the self-test", device=on_device.info.device, error=type(error).__name__)
        return False
    changed = changed_s(expected.turns, found.turns, tolerance_s=FRAME_S)
    if changed > 0 or not expected.turns:
        _log.error("device failed the self-test", device=on_device.info.device, changed_s=round(changed, 3))
        return False
    return True


def _ignore(_stage: str, _done: float) -> None:
    """Report to nobody."""
