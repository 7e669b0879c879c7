"""A column of text that holds the members of an enum."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from sqlalchemy import Dialect, String, TypeDecorator

E = TypeVar("E", bound=StrEnum)


class EnumText(TypeDecorator[E]):
    """A text column whose values are those of an enum: anything else in it is an error when it is read."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[E]) -> None:
        """Take the enum."""
        super().__init__()
        self.kind = kind

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:  # noqa: ARG002 - SQLAlchemy's way
        """Return the member of what was read."""
        return None if value is None else self.kind(value)
