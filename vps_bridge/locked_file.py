"""A database that another program keeps locked: it is whole, and nothing has to be moved away or restored."""

from __future__ import annotations

from pathlib import Path

LOCKED = "another program keeps it locked; the file is not damaged"


def is_locked(error: BaseException | None) -> bool:
    """Return whether an error, or the one that it came from, says that another program keeps a database locked."""
    while error is not None:
        said = getattr(error, "orig", error)  # SQLAlchemy's errors hold the driver's
        if getattr(said, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            return True
        error = error.__cause__
    return False


def find_holder(path: Path | None = None) -> str:
    """Return what finds the program that keeps a database locked; None: it is not known which one."""
    file = path or "FILE, ledger.sqlite3 or conversations.sqlite3 of the bridge,"
    return f"fuser -v {file} lists who has it open: end what is not omi-bridge, or wait for it."
