"""What the ledger's books need of a database, whichever keeps it, and values that they keep in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
Mark = int | str
"""How far a database is; only whether two of them differ means anything."""


class LedgerDatabase(Protocol):
    """A database and this process's connection to it, used by one thread at a time."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend the connection for reading: all statements see the database as it was when the first one ran."""

    def writing(self, conversation_id: str | None = None, /) -> AbstractContextManager[Connection]:
        """Lend the connection for one transaction: all of it is done or, where an error is raised, none of it.

        With a conversation, nobody else writes of that one meanwhile, whatever process it is.
        """

    def has_row(self, question: str, value: str) -> bool:
        """Return whether a query with one parameter, a question mark, finds a row. Within a transaction."""

    def change_mark(self) -> Mark:
        """Return a mark that differs after every commit by another connection, of this process or another."""

    def sync(self) -> None:
        """Have whatever was committed since the last call survive a crash of the machine that keeps it.

        Raises OSError or `LedgerUnavailable` where it may not.
        """

    def sync_all(self) -> None:
        """Do so for whatever was committed through any connection."""

    def erase_deleted(self) -> None:
        """Have what was deleted be in none of our own files any more."""

    def free_pages(self, most: int, /) -> int:
        """Give at most so many unused pages back to the disk; return how many unused ones are left."""

    def make_shrinkable(self) -> bool:
        """Have the file be one that `free_pages` can shrink; return whether it is, or nothing of ours is to shrink."""

    def find_damage(self) -> list[str]:
        """Return what is wrong with the database."""

    def close(self) -> None:
        """End the connection."""


class CachedRead(Generic[T]):
    """A value read from a database, read again once another connection has committed anything.

    What this connection changes of it, its writer tells with `drop`.
    """

    def __init__(self, database: LedgerDatabase, read: Callable[[], T]) -> None:
        """Read with `read`, at the first `get`."""
        self._database, self._read = database, read
        self._kept: tuple[Mark, T] | None = None

    def get(self) -> T:
        """Return the value."""
        mark = self._database.change_mark()  # before the value: what is committed between the two is seen next time
        if self._kept is None or self._kept[0] != mark:
            self._kept = mark, self._read()
        return self._kept[1]

    def drop(self) -> None:
        """Read the value again at the next `get`."""
        self._kept = None
