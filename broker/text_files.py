"""Reading text files that people write."""

from __future__ import annotations

from pathlib import Path

from schemas.text import decode_text


def read_text(path: Path) -> str:
    """Return a file's text: UTF-8, or what its byte-order mark says; the mark is not part of it.

    Raises `OSError`, and `UnicodeDecodeError` where it is no such text.
    """
    return decode_text(path.read_bytes())
