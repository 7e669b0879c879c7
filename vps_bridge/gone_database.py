"""A bridge's database that is not there any more: who opens it says so, and makes no new one in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vps_bridge.database import DatabaseError
from vps_bridge.opened import is_marked

if TYPE_CHECKING:
    from pathlib import Path


class DatabaseGone(DatabaseError):
    """A bridge has run here, and its file is not here any more: a new one would have nothing of what was in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is gone, and a bridge has run here",
            "Put it back before a bridge that runs is stopped, with its -wal and -shm: until then it accepts nothing. "
            f"Else restore a backup. To begin without what was in it: `install -m 600 /dev/null {path}`, as the "
            "bridge's user.",
        )


def refuse_gone(path: Path) -> None:
    """Raise `DatabaseGone` for a file that is not there where a bridge has run: it is never made anew in silence."""
    if is_marked(path.parent) and not path.exists():
        raise DatabaseGone(path)
