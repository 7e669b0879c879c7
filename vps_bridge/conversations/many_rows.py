"""Statements with many rows, made of several with fewer: each is answered soon, where the server answers at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable

MAX_ROWS = 1_000


def execute_many(connection: Connection, statement: Executable, rows: Sequence[dict[str, Any]]) -> None:
    """Execute a statement for each of these rows; nothing where there are none."""
    for first in range(0, len(rows), MAX_ROWS):
        connection.execute(statement, rows[first : first + MAX_ROWS])
