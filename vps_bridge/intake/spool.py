"""The spool: accepted audio, one file for each chunk, under random names.

It is a directory on the VPS's disk: a file is there with its directory entry (both fsynced) before the ledger refers to
it.
Where the settings name a bucket it is `BucketSpool`, which has the same methods: `vps_bridge/intake/bucket_spool.py`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from vps_bridge.ledger.records import ChunkRecord

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

    def adopt(self, path: Path, name: str | None = None) -> str:
        """Move a finished file of the same file system into the spool, durably; return its name, which may be given."""
        name = name or secrets.token_hex(16)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.rename(self.path(name))
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

    def is_sound(self, chunk: ChunkRecord) -> bool:
        """Whether the spool still holds what was accepted."""
        if chunk.spool_name is None:
            return False
        try:
            with self.path(chunk.spool_name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == chunk.sha256
        except FileNotFoundError:
            return False

    def is_at_hand(self, chunk: ChunkRecord, then: Callable[[], object]) -> bool:  # noqa: ARG002 - others have to wait
        """Whether a chunk can be read now, or never; else `then` is called on the bridge's own thread once it can."""
        return True

    def fetch(self, chunk: ChunkRecord) -> Path:
        """Return a chunk's file, and wait for it where it has to come. For any thread but the bridge's own.

        Raises `FileNotFoundError` where it is gone, and `StoreUnavailable` where it cannot be had now.
        """
        path = self.path(chunk.spool_name or "")
        if not path.is_file():
            raise FileNotFoundError(path.name)
        return path

    def remove(self, *names: str) -> frozenset[str]:
        """Delete chunks; return those that are gone now. Ask again for the others. One gone before is no error."""
        asked = frozenset(names)
        for name in asked:
            self.path(name).unlink(missing_ok=True)
        return asked

    def discard(self, name: str) -> None:
        """Delete a chunk that was not accepted."""
        self.remove(name)

    def erase(self, conversation_id: str, names: Iterable[str]) -> bool:  # noqa: ARG002 - a bucket finds them by it
        """Delete all audio of a deleted conversation; return whether all is gone now. If not, ask again."""
        self.remove(*names)
        return True

    def forget(self, conversation_id: str) -> None:
        """Drop the copies that are here of a conversation which another bridge deleted."""

    def sweep(self, known: set[str]) -> int:
        """Delete every file the ledger does not know (left by a crash between the two writes); return how many."""
        strays = [path for path in self.directory.iterdir() if path.is_file() and path.name not in known]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)

    def tidy(self, *, keep_copies: bool) -> None:
        """Do what has to be done now and then; without `keep_copies` the disk is full."""

    def may_erase(self, conversation_id: str) -> bool:  # noqa: ARG002 - a bucket may be resting
        """Whether `erase` has something to do, or to tell, of a conversation now."""
        return True

    @property
    def problem(self) -> str | None:
        """Why audio cannot be accepted now; None where nothing is known that speaks against it."""
        return None

    def probe(self, now_s: float) -> None:
        """Ask again what did not answer."""

    def close(self) -> None:
        """End what is under way."""

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
