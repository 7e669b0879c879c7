"""When a worker that did nothing wrong is started again: what a driver or allocator kept, only its end gives back."""

from __future__ import annotations

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class WorkerMemory:
    """What a worker process holds."""

    rss_bytes: int
    device_bytes: int
    """What the driver of its device holds for it, caches included; 0 on the CPU."""

    @property
    def weighed_bytes(self) -> int:
        """What counts against the limit: on a device its driver's memory, which no resident size shows."""
        return self.device_bytes or self.rss_bytes


@dataclass(frozen=True)
class RecycleLimits:
    """After how much a worker is started again; 0 is never."""

    jobs: int = 0
    bytes: int = 0


def why_recycle(jobs: int, memory: WorkerMemory | None, limits: RecycleLimits) -> str | None:
    """Return why a worker between two jobs is to be started again, or None.

    Args:
        jobs: how many it has ended.
        memory: what it held at the end of the last one; None where it did not say.
        limits: what is allowed.
    """
    if limits.jobs and jobs >= limits.jobs:
        return f"{jobs} jobs done"
    if limits.bytes and memory is not None and memory.weighed_bytes > limits.bytes:
        kind = "device memory" if memory.device_bytes else "resident memory"
        return f"{memory.weighed_bytes / GB:.1f} GB of {kind} after {jobs} jobs, {limits.bytes / GB:.1f} GB allowed"
    return None
