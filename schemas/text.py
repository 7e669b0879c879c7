"""Text and JSON as people and programs write them: with a byte-order mark or without, and never with a key twice."""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Any

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_LINE_END = re.compile(r"\r\n|\r|\n")
_ANY_MARK = tuple(mark for mark, _ in _MARKS)


class KeyRepeated(ValueError):
    """An object that has a key twice, so that nobody knows which of the two values is meant."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} stands twice in one object: keep the one that is meant")
        self.key = key


def has_mark(data: bytes) -> bool:
    """Whether the data begins with a byte-order mark."""
    return data.startswith(_ANY_MARK)


def decode_text(data: bytes) -> str:
    """Return text that is UTF-8, or what its byte-order mark says; the mark is not part of it.

    Raises `UnicodeDecodeError` where it is no such text.
    """
    if not has_mark(data):
        return data.decode()
    return data.decode(next(encoding for mark, encoding in _MARKS if data.startswith(mark)))


def split_lines(text: str) -> list[str]:
    r"""Return the lines of a file: they end in \n, \r\n or \r. Every other mark, such as U+2028, is part of a line."""
    return _LINE_END.split(text)


def unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return an object of these pairs, for the parsers of JSON and msgpack. Raises `KeyRepeated`."""
    refuse_repeated(pairs)
    return dict(pairs)


def refuse_repeated(pairs: list[tuple[Any, Any]]) -> None:
    """Raise `KeyRepeated` where two of the pairs that a parser found in one object have one key."""
    if len(seen := {key for key, _ in pairs}) == len(pairs):
        return
    for key, _ in pairs:
        if key not in seen:
            raise KeyRepeated(str(key))
        seen.remove(key)


def is_blank(text: str) -> bool:
    """Whether there is no character in it that can be seen: a name of such stands in no list and on no label."""
    return all(unicodedata.category(character)[0] in "CZ" for character in text)


def compose_name(name: Any) -> Any:  # noqa: ANN401 - anything, before validation
    """Return a name as it is compared: composed (NFC), with single spaces and none around it; else what was given.

    Keyboards and file systems write "ë" as one character or as two, and people paste names with what stands around
    them: whoever is named again so is the same person. Capitals are left: two people may differ by them alone.
    """
    if not isinstance(name, str):
        return name
    return unicodedata.normalize("NFC", " ".join(name.split())) or name  # one of spaces alone is refused as it is
