"""Writing a large file to disk piece by piece, so that it takes no more than two pieces of the machine's memory.

Otherwise the pages of a backup would push those of a live bridge's databases out of the system's cache, and would reach
the disk some time after they were said to be there.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

PIECE_BYTES = 32 * 2**20


class LargeFile(io.BufferedWriter):
    """A file of which one piece is brought to disk while the next is written; `sync` has the rest there too."""

    def __init__(self, file: Path | int) -> None:
        """Write to a path, from its beginning, or to a file that is open under this descriptor and is closed here."""
        super().__init__(io.FileIO(file, "wb"))
        self._unsynced_bytes = 0
        self._pool = ThreadPoolExecutor(1)
        self._syncing: Future[None] | None = None

    def write(self, block: bytes) -> int:  # type: ignore[override]
        """Write a block. Raises OSError where the disk is full or fails."""
        # Of all buffers the base class takes only bytes come here: Python 3.11 has no name for the others.
        written = super().write(block)
        self._unsynced_bytes += written
        if self._unsynced_bytes >= PIECE_BYTES:
            self._begin_sync()
        return written

    def sync(self) -> None:
        """Have all that was written on disk, and out of the cache where the system can be told. Raises OSError."""
        self._begin_sync()
        self._wait()

    def close(self) -> None:
        """Close the file, once nothing of it is on its way to the disk any more."""
        self._pool.shutdown()
        super().close()

    def _begin_sync(self) -> None:
        self.flush()
        self._unsynced_bytes = 0
        self._wait()
        self._syncing = self._pool.submit(_sync, self.fileno())

    def _wait(self) -> None:
        if self._syncing is not None:
            self._syncing.result()


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):  # macOS has none
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
