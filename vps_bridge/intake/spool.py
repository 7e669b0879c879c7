"""The spool: accepted audio on the VPS's disk, one file for each chunk, under random names.

A file is on disk with its directory entry (both fsynced) before the ledger refers to it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

SPOOL = "spool"  # below the bridge's root


class Spool:
    """A private directory of chunks. Methods raise `OSError` when the disk is full or fails."""

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
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(audio)
                file.flush()
                os.fsync(file.fileno())
            self._sync_directory()
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return name

    def adopt(self, path: Path) -> str:
        """Move a finished file of the same file system into the spool, durably, and return its new name."""
        name = secrets.token_hex(16)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.rename(self.directory / name)
        self._sync_directory()
        return name

    def path(self, name: str) -> Path:
        """Return the path of a chunk."""
        return self.directory / name

    def read(self, name: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of a chunk."""
        with self.path(name).open("rb") as file:
            file.seek(start)
            return file.read(max(0, end - start))

    def sha256(self, name: str) -> str:
        """Return the hash of a chunk as it is on disk now. Raises `FileNotFoundError` where it is gone."""
        with self.path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def remove(self, name: str) -> None:
        """Delete a chunk; one that is gone already is no error."""
        self.path(name).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> int:
        """Delete every file the ledger does not know (left by a crash between the two writes); return how many."""
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
