"""What the three programs write: text from outside cannot drive the terminal, and what it cannot show is escaped."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.text import Text

# Control characters but newline and tab, what turns the direction of writing, and halves of characters.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def make_visible(text: str) -> str:
    r"""Return text in which every character that would drive a terminal is written as an escape, such as \x1b."""
    return _UNSAFE.sub(lambda found: _escape(ord(found[0])), text)


def write_json(value: Any, *, indent: int | None = 2) -> str:  # noqa: ANN401 - any JSON document
    r"""Return a JSON document as text, with what would drive a terminal as JSON escapes it: \u009b."""
    return _as_json(json.dumps(value, indent=indent, ensure_ascii=False))


def print_json(value: Any, *, indent: int | None = 2) -> None:  # noqa: ANN401 - any JSON document
    """Write one JSON document to stdout; in pure ASCII where stdout cannot hold all of its characters.

    Raises `TypeError` where the value holds what JSON has no form for.
    """
    text = write_json(value, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = _as_json(json.dumps(value, indent=indent))
    sys.stdout.write(text + "\n")


class SafeConsole(Console):
    """A console of rich that shows text from outside as it is: no control characters and no codes of emoji in it."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of rich
        super().__init__(emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - those of rich
        """Take in a text, a cell or a title that is to be shown."""
        return super().render_str(make_visible(text), **options)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - two digits are enough


def _as_json(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
