"""The spool: accepted audio on the VPS's disk, one file a chunk, named by nobody outside.

A file is on disk with its directory entry (both fsynced) before the ledger knows of it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

SPOOL = "spool"  # below the bridge's root


class Spool:
    """A private directory of chunks. Methods raise `OSError` when the disk is full or gone."""

    def __init__(self, directory: Path) -> None:
        """Create the directory with access for this user only."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)

    def write(self, audio: bytes) -> str:
        """Store a whole chunk durably and return its name in the spool."""
        name = secrets.token_hex(16)
        path = self.directory / name
        try:
            with os.fdopen(_create_private(path), "wb") as file:
                file.write(audio)
                file.flush()
                os.fsync(file.fileno())
            self._sync_directory()
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return name

    def adopt(self, path: Path) -> str:
        """Take a finished file of the same file system into the spool, durably, and return its name."""
        name = secrets.token_hex(16)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.rename(self.directory / name)
        self._sync_directory()
        return name

    def path(self, name: str) -> Path:
        """Return where a chunk lies."""
        return self.directory / name

    def read(self, name: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of a chunk."""
        with self.path(name).open("rb") as file:
            file.seek(start)
            return file.read(max(0, end - start))

    def sha256(self, name: str) -> str:
        """Return the hash of a chunk as it lies there. Raises `FileNotFoundError` where it does not."""
        with self.path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def remove(self, name: str) -> None:
        """Unlink a chunk; one that is gone already is no error."""
        self.path(name).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> int:
        """Unlink every file the ledger does not know (a crash between file and ledger); return how many."""
        strays = [path for path in self.directory.iterdir() if path.is_file() and path.name not in known]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class PartialChunk:
    """A chunk that is arriving in parts; nothing of it is promised to anybody yet."""

    def __init__(self, path: Path, total_bytes: int) -> None:
        """Start an empty file for `total_bytes` bytes."""
        self.path = path
        self.total_bytes = total_bytes
        self._received: dict[int, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(_create_private(path))

    def add(self, byte_offset: int, part: bytes) -> bool:
        """Write one part where it belongs and say whether the chunk is complete. A part may come twice."""
        with self.path.open("r+b") as file:
            file.seek(byte_offset)
            file.write(part)
        self._received[byte_offset] = max(len(part), self._received.get(byte_offset, 0))
        return self._covered_bytes() >= self.total_bytes

    def _covered_bytes(self) -> int:
        reach = 0
        for start in sorted(self._received):
            if start > reach:
                break
            reach = max(reach, start + self._received[start])
        return reach

    def sha256(self) -> str:
        """Return the hash of what was received."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def discard(self) -> None:
        """Unlink it."""
        self.path.unlink(missing_ok=True)


def _create_private(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
