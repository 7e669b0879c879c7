"""Where in a JSON file a value stands that cannot be read, so that an error can name it."""

from __future__ import annotations

import re
from typing import Any

MAX_NAME_CHARS = 40
_OF_TIME_OR_SPEAKER = re.compile(r"start|end|from|to|ts|time|offset|duration|speaker|millis", re.IGNORECASE)


class UnreadableValue(Exception):
    """A value of a transcript that is there and cannot be what it should be; `value` itself is never told."""

    def __init__(self, value: object, expected: str) -> None:
        super().__init__(expected)
        self.value, self.expected = value, expected


def path_of(content: object, value: object) -> str | None:
    """Return where this very value stands, such as `results.items[3].start_time`; None where nobody can tell.

    Values are told apart as objects: two equal texts of a file are two. Of true, false and small numbers, of which
    Python keeps one, the first that stands where a time or a speaker does is meant.
    """
    is_shared = value is None or isinstance(value, bool | int)
    waiting: list[tuple[str, str, Any]] = [("", "", content)]
    while waiting:
        path, name, found = waiting.pop()
        if found is value and (not is_shared or _OF_TIME_OR_SPEAKER.search(name)):
            return path or None
        if isinstance(found, dict):
            for key, item in reversed(found.items()):
                waiting.append((f"{path}.{key[:MAX_NAME_CHARS]}" if path else key[:MAX_NAME_CHARS], key, item))
        elif isinstance(found, list):
            waiting += [(f"{path}[{place}]", name, item) for place, item in reversed(list(enumerate(found)))]
    return None
