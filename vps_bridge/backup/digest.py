"""The sha256 of a file's bytes, made by another thread while they are copied: each byte is read once."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor, Future
from typing import BinaryIO


class Digest:
    """A sha256 that is made of blocks in their order, each while the next one is read or written."""

    def __init__(self, pool: Executor) -> None:
        """Calculate in a thread of the pool."""
        self._hash, self._pool = hashlib.sha256(), pool
        self._latest: Future[None] | None = None

    def update(self, block: bytes) -> None:
        """Take the next block, once the one before it is done with: so no more than two are kept."""
        self._wait()
        self._latest = self._pool.submit(self._hash.update, block)

    def hexdigest(self) -> str:
        """Return the digest of all blocks so far, 64 hex digits."""
        self._wait()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._latest is not None:
            self._latest.result()


class DigestedFile:
    """A file whose bytes go into a digest as they are read."""

    def __init__(self, file: BinaryIO, digest: Digest) -> None:
        """Read from a file that is open."""
        self._file, self._digest = file, digest

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end, or all that are left. Raises OSError."""
        block = self._file.read(size)
        self._digest.update(block)
        return block
