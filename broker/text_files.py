"""Reading text files that people write."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

from schemas.text import decode_text

MAX_TEXT_BYTES = 16 * 2**20
PIPE_WAIT_S = 10.0  # whoever writes into a pipe, such as `--config <(sops -d config.toml)`, pauses no longer
PIPE_READ_BYTES = 2**16


def read_text(path: Path) -> str:
    """Return a file's text: UTF-8, or what its byte-order mark says; the mark is not part of it.

    Raises `OSError`, also where no end comes, and `UnicodeDecodeError` where it is no such text.
    """
    data = read_at_most(path, MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_TEXT_BYTES // 2**20} MiB: it is another file", str(path))
    return decode_text(data)


def read_at_most(path: Path, max_bytes: int) -> bytes:
    """Return the first bytes of a file or a pipe. Raises `OSError`, also where nobody writes into the pipe."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else a pipe that nobody opens waits for ever
    with os.fdopen(number, "rb") as file:
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            return _read_pipe(number, path, max_bytes)
        os.set_blocking(number, True)
        return file.read(max_bytes)


def _read_pipe(number: int, path: Path, max_bytes: int) -> bytes:
    ready = select.poll()
    ready.register(number, select.POLLIN)
    data = bytearray()
    while len(data) < max_bytes:
        if not ready.poll(1000 * PIPE_WAIT_S):
            raise TimeoutError(errno.ETIMEDOUT, f"it is a pipe, and for {PIPE_WAIT_S:.0f} s nobody wrote", str(path))
        if not (part := os.read(number, PIPE_READ_BYTES)):
            break
        data += part
    return bytes(data[:max_bytes])
