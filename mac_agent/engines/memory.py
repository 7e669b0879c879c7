"""What the driver of a device holds for this process. Imports torch only where a device needs it."""

from __future__ import annotations


def device_bytes(device: str) -> int:
    """Return the bytes held on a device, what is cached for reuse included; 0 on the CPU: that is resident memory.

    Args:
        device: as `EngineInfo.device` names it: ``cpu``, ``mps``, ``cuda:0``, ``cpu (mps refused)``.
    """
    name = device.split(maxsplit=1)[0] if device else "cpu"
    if name == "mps":
        import torch  # noqa: PLC0415 - an engine on a device has it loaded; one on the CPU may do without

        return int(torch.mps.driver_allocated_memory())
    if name.startswith("cuda"):
        import torch  # noqa: PLC0415 - the same

        return int(torch.cuda.memory_reserved(name))
    return 0
