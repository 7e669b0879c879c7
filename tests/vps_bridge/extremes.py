"""For each number and time of a message, the least, the most and the next to them that its schema lets through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

TIMES = (
    "0001-01-01T00:00:00Z",
    "0001-01-02T00:00:00.000001+23:00",
    "1969-12-31T23:59:59.999999Z",
    "2026-05-04T09:00:00Z",
    "9999-12-31T23:59:59.999999Z",
)
_SMALLEST = 5e-324


def list_extremes(kind: type[BaseModel], *, without: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Yield (field, value) for each extreme of each field that is a number or a time."""
    schema = kind.model_json_schema(mode="validation")
    for name, described in schema["properties"].items():
        if name not in without:
            for option in described.get("anyOf", [described]):
                yield from ((name, value) for value in _values(option))


def _values(option: Mapping[str, Any]) -> list[Any]:
    if option.get("format") == "date-time":
        return list(TIMES)
    least, most = option.get("minimum"), option.get("maximum")
    match option.get("type"):
        case "integer":
            return [least, most]
        case "number":
            return [least, most, _SMALLEST, 0.0 if least else 1e-9]
        case _:
            return []
