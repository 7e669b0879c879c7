"""Choose the device that runs the networks, and test whether it computes what the CPU computes."""

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


def choose_device(requested: str) -> torch.device:
    """Return the requested device; for `auto`, the first of mps, cuda and cpu that is available.

    Raises:
        DeviceUnavailable: torch cannot use it on this machine.
    """
    if requested == "auto":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceUnavailable(
            f"torch cannot use the device {requested!r} here ({error}). Choose device 'cpu' or 'auto'."
        ) from error
    return device


def agrees_with_cpu(on_cpu: Engine, on_device: Engine, clip: Waveform) -> bool:
    """Return whether the turns from a device equal those from the CPU, with boundaries within one frame.

    A device that raises an error does not agree. The test diarizes a real conversation, because some drivers reported
    success and returned wrong timestamps, silence or zeros.
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
    """Ignore the progress."""
