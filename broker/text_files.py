"""Reading text files that people write: with a byte-order mark or without."""

from __future__ import annotations

import codecs
from pathlib import Path

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_text(path: Path) -> str:
    """Return a file's text: UTF-8, or what its byte-order mark says; the mark is not part of it.

    Raises `OSError`, and `UnicodeDecodeError` where it is no such text.
    """
    data = path.read_bytes()
    return data.decode(next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8"))
