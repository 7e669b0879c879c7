"""A file that reserves disk space: it is deleted when the disk is full, so that results and deletions can be written.

Users know it as the ballast: the file's name and the setting `ballast_bytes` are in their installations and stay.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import structlog

_LOG = structlog.get_logger(__name__)
FILE_NAME = "ballast"  # below the bridge's root
BLOCK_BYTES = 2**20
REMEDY = (
    "the disk is full, no audio is accepted: make room, such as `omi-bridge purge --audio --older-than 1d`, or lower "
    "OMI_BALLAST_BYTES where twice as much will never be free"
)


def wants_reserve(free_bytes: int, reserve_bytes: int, *, is_held: bool) -> bool:
    """Whether the reserve should be on the disk.

    It is deleted when less than half its size is free, and written again when twice its size is free: the space that
    its own deletion frees is never enough to bring it back.
    """
    return free_bytes >= (reserve_bytes // 2 if is_held else 2 * reserve_bytes)


class DiskReserve:
    """A private file of `size_bytes` on the bridge's disk. While it is deleted, no audio is accepted."""

    def __init__(self, root: Path, size_bytes: int) -> None:
        """Use a file below the bridge's root; `update` writes or deletes it."""
        self._path, self._size_bytes = root / FILE_NAME, size_bytes

    @property
    def is_held(self) -> bool:
        """Whether the reserve is on the disk."""
        return self._path.exists()

    def room_bytes(self) -> int:
        """Return how much audio may still be written: none while the disk is full."""
        if not self.is_held:
            return 0
        return max(0, self._free_bytes() - self._size_bytes // 2)

    def update(self) -> bool:
        """Delete the reserve where the disk is full, write it where there is room again; return whether it changed.

        A disk that refuses to take it has no room either: nothing is raised then.
        """
        if self.is_held:
            return self.release_if_full()
        free_bytes = self._free_bytes()
        if not wants_reserve(free_bytes, self._size_bytes, is_held=False) or not self._write():
            return False
        _LOG.info("disk_has_room", free_bytes=free_bytes)
        return True

    def release_if_full(self) -> bool:
        """Delete the reserve where the disk is full; return whether it was. Any process may do so before it writes."""
        if not self.is_held or wants_reserve(self._free_bytes(), self._size_bytes, is_held=True):
            return False
        free_bytes = self._free_bytes()
        self._path.unlink(missing_ok=True)
        _LOG.error("disk_full", free_bytes=free_bytes, remedy=REMEDY)
        return True

    def _write(self) -> bool:
        """Write the whole file or nothing: random bytes, because a file system may compress anything else."""
        # A fixed name: what a crash left is deleted, and a link that somebody put there is never followed.
        unfinished = self._path.with_name(f".{self._path.name}")
        try:
            unfinished.unlink(missing_ok=True)
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY
            with os.fdopen(os.open(unfinished, flags, 0o600), "wb") as file:
                for start in range(0, self._size_bytes, BLOCK_BYTES):
                    file.write(os.urandom(min(BLOCK_BYTES, self._size_bytes - start)))
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self._path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            _LOG.warning("no_ballast", error=error.strerror)
            return False
        return True

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._path.parent).free
