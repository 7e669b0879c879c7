"""A part of a file as a file of its own."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

BUFFER_BYTES = 1 << 16


def open_window(stream: BinaryIO, start: int, end: int) -> BinaryIO:
    """Return the bytes [start, end) of a seekable file as a file to read. Closing it leaves the file open."""
    return io.BufferedReader(_Window(stream, start, end), BUFFER_BYTES)


class _Window(io.RawIOBase):
    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        super().__init__()
        self._stream, self._start, self._size = stream, start, max(0, end - start)
        self._position = 0

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever can be written into
        target = memoryview(buffer).cast("B")
        self._stream.seek(self._start + self._position)
        found = self._stream.read(min(len(target), max(0, self._size - self._position)))
        target[: len(found)] = found
        self._position += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
