"""Reading a file that somebody may still be writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from vps_bridge.client.errors import FileChanged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_parts(file: BinaryIO, path: Path, size: int, part_bytes: int) -> Iterator[bytes]:
    """Yield the first `size` bytes in parts: what is written behind them meanwhile is not this chunk's.

    Raises:
        FileChanged: the file ends before.
    """
    left = size
    while left:
        part = file.read(min(part_bytes, left))
        if not part:
            raise FileChanged(path)
        left -= len(part)
        yield part
