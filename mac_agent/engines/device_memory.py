"""How much memory of a GPU this process uses. Imports torch only for a GPU."""

from __future__ import annotations


def device_bytes(device: str) -> int:
    """Return the bytes that this process holds on a device, its cache included; 0 for the CPU, whose memory is RSS.

    Args:
        device: as `EngineInfo.device` names it: ``cpu``, ``mps``, ``cuda:0``, ``cpu (mps refused)``.
    """
    name = device.split(maxsplit=1)[0] if device else "cpu"
    if name == "mps":
        import torch  # noqa: PLC0415 - the engine on this device has imported it already

        return int(torch.mps.driver_allocated_memory())
    if name.startswith("cuda"):
        import torch  # noqa: PLC0415 - the same

        return int(torch.cuda.memory_reserved(name))
    return 0
