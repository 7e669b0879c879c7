"""Keeping the memory of freed messages for the next ones."""

from __future__ import annotations

import ctypes

MESSAGES_BYTES = 16 * 2**20
"""Enough for a process that forwards messages: several copies of the largest (2 MB)."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h


def keep_freed_memory(max_bytes: int) -> bool:
    """Let this process keep what it frees, up to `max_bytes` at the end of each heap, instead of giving it back.

    glibc returns a block as large as a message to the system at once, and the next message has to get each of its pages
    again: 256 KiB take 1.7 ms instead of 1.1 from process to process (docs/adr/0008-freed-memory.md).

    Returns:
        Whether it was done. Other C libraries (macOS, musl) have no such option; with them nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, max_bytes) == 1 for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
