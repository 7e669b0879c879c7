"""Room set aside: a file that is given up when the disk is full, so that results and deletions can still be written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import structlog

_LOG = structlog.get_logger(__name__)
BALLAST = "ballast"  # below the bridge's root
BLOCK_BYTES = 2**20
REMEDY = "the disk is full, no audio is accepted: make room, such as `omi-bridge purge --audio --older-than 1d`"


def wants_reserve(free_bytes: int, ballast_bytes: int, *, is_held: bool) -> bool:
    """Whether the ballast should lie on the disk.

    It is given up below half its size of free room and taken back when twice its size is free, so that giving it up
    alone never brings it back.
    """
    return free_bytes >= (ballast_bytes // 2 if is_held else 2 * ballast_bytes)


class DiskReserve:
    """A private file of `size` bytes on the bridge's disk. While it is given up, no audio is accepted."""

    def __init__(self, root: Path, size: int) -> None:
        """Work with a file below the bridge's root; `update` makes or removes it."""
        self._path, self._size = root / BALLAST, size

    @property
    def is_held(self) -> bool:
        """Whether the room is set aside."""
        return self._path.exists()

    def room_bytes(self) -> int:
        """Return how much audio may still be written: nothing while the disk is full."""
        if not self.is_held:
            return 0
        return max(0, self._free_bytes() - self._size // 2)

    def update(self) -> bool:
        """Give the ballast up where the disk is full, take it back where there is room again; say whether it changed.

        Where the disk refuses, that is no room either: nothing is raised.
        """
        if self.is_held:
            return self.give_way()
        free_bytes = self._free_bytes()
        if not wants_reserve(free_bytes, self._size, is_held=False) or not self._write():
            return False
        _LOG.info("disk_has_room", free_bytes=free_bytes)
        return True

    def give_way(self) -> bool:
        """Give the ballast up where the disk is full; say whether it was. Any process may, before it writes."""
        if not self.is_held or wants_reserve(self._free_bytes(), self._size, is_held=True):
            return False
        free_bytes = self._free_bytes()
        self._path.unlink(missing_ok=True)
        _LOG.error("disk_full", free_bytes=free_bytes, remedy=REMEDY)
        return True

    def _write(self) -> bool:
        """Write it whole or not at all: random bytes, which no file system compresses to nothing."""
        unfinished = self._path.with_name(f".{self._path.name}")
        try:
            with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
                for start in range(0, self._size, BLOCK_BYTES):
                    file.write(os.urandom(min(BLOCK_BYTES, self._size - start)))
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
