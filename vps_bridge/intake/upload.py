"""Files of chunks that have arrived, or are being uploaded over HTTP: not accepted until the spool has adopted them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from schemas.failure import FailureCode
from vps_bridge.errors import Refusal


class ArrivedFile:
    """A chunk's file before it is accepted."""

    kept_as: str | None = None
    """Its name in the spool, where that is a bucket and has it already."""

    def __init__(self, path: Path, sha256: str, size_bytes: int) -> None:
        """Take a file that is whole; it is deleted with `discard`."""
        self.path, self.bytes, self._sha256 = path, size_bytes, sha256

    @property
    def sha256(self) -> str:
        """The hash of what it holds."""
        return self._sha256

    def discard(self) -> None:
        """Delete the file, unless it has become a chunk of the spool."""
        self.path.unlink(missing_ok=True)


class Upload(ArrivedFile):
    """A file in `directory` that grows block by block, for at most `max_bytes`, unless the spool has adopted it.

    The next bridge to start empties the directory, so nothing is left over if this one is killed meanwhile. Methods
    raise `OSError` when the disk does.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Start an empty file."""
        super().__init__(directory / f"u-{secrets.token_hex(16)}", "", 0)
        self._max_bytes, self._hash = max_bytes, hashlib.sha256()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.fdopen(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._hash.hexdigest()

    def write(self, block: bytes) -> None:
        """Append a block. Raises `Refusal` where the chunk grows too large."""
        check_size(self.bytes + len(block), self._max_bytes)
        self._file.write(block)
        self._hash.update(block)
        self.bytes += len(block)

    def finish(self) -> None:
        """Sync the file to disk. Done in the HTTP server's thread, so that the bridge's own does not wait for it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """As `ArrivedFile.discard`."""
        with contextlib.suppress(OSError):  # closing writes what is buffered, which fails on a full disk
            self._file.close()
        super().discard()


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Raise `Refusal` where a chunk is larger than is accepted."""
    if size_bytes > max_bytes:
        msg = f"{size_bytes} bytes pass the limit of {max_bytes}: publish shorter chunks"
        raise Refusal(FailureCode.INGEST_TOO_LARGE, msg)
