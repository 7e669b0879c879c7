"""A chunk that streams in over HTTP, on its way into the spool. Nothing of it is promised to anybody yet."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from schemas.failure import FailureCode
from vps_bridge.errors import Refusal


class Upload:
    """A private file that grows block by block; `discard` it unless the spool has adopted it.

    Where the bridge dies meanwhile, its next start wipes the directory. Methods raise `OSError` when the disk does.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Start an empty file."""
        self.path = directory / f"u-{secrets.token_hex(16)}"
        self.bytes = 0
        self._max_bytes, self._hash = max_bytes, hashlib.sha256()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.fdopen(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")

    @property
    def sha256(self) -> str:
        """The hash of what has come."""
        return self._hash.hexdigest()

    def write(self, block: bytes) -> None:
        """Append a block. Raises `Refusal` where the chunk grows too large."""
        check_size(self.bytes + len(block), self._max_bytes)
        self._file.write(block)
        self._hash.update(block)
        self.bytes += len(block)

    def finish(self) -> None:
        """Put it on disk, so that the bridge's own thread need not wait for that."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Unlink it, unless it has become a chunk of the spool."""
        with contextlib.suppress(OSError):  # what is still in its buffer does not fit on the disk either
            self._file.close()
        self.path.unlink(missing_ok=True)


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Raise `Refusal` where a chunk is larger than is accepted."""
    if size_bytes > max_bytes:
        msg = f"{size_bytes} bytes pass the limit of {max_bytes}: publish shorter chunks"
        raise Refusal(FailureCode.INGEST_TOO_LARGE, msg)
