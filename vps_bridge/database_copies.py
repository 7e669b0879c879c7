"""Copies of SQLite files that are in use: all of them as they are at one moment, whoever writes meanwhile."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

from vps_bridge.database import BUSY_TIMEOUT_MS, DatabaseUnreadable

PAGES_AT_ONCE = 2_000  # of 4 KiB, between two reports of how far it is


def copy_databases(copies: Mapping[Path, Path], on_progress: Callable[[int, int], None]) -> None:
    """Copy files, each to its path, in the given order: all snapshots are taken before the first page is copied.

    Nobody who writes waits. `on_progress` is called with bytes copied and bytes in all.

    Raises:
        DatabaseUnreadable: one of them is no database, or is damaged.
        OSError: a copy cannot be written.
    """
    with ExitStack() as stack:
        sources = [(stack.enter_context(closing(_open(path))), target) for path, target in copies.items()]
        pages = 0
        for source, _ in sources:
            source.execute("BEGIN")
            pages += source.execute("PRAGMA page_count").fetchone()[0]  # this first read pins what is seen
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        done = 0
        for source, target in sources:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            page_bytes = source.execute("PRAGMA page_size").fetchone()[0]

            def report(_status: int, left: int, total: int, before: int = done, size: int = page_bytes) -> None:
                on_progress(size * (before + total - left), size * pages)

            with closing(sqlite3.connect(target)) as copy:
                source.backup(copy, pages=PAGES_AT_ONCE, progress=report)
                copy.execute("PRAGMA journal_mode = DELETE").fetchone()
            done += source.execute("PRAGMA page_count").fetchone()[0]


def check_database(path: Path) -> None:
    """Read all of a file that nobody uses, and compare its rows with its indexes.

    Raises `DatabaseUnreadable` with the first of what is wrong.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
            found += [
                f"row {row[1]} of {row[0]} belongs to none" for row in connection.execute("PRAGMA foreign_key_check")
            ]
    except sqlite3.Error as error:
        raise DatabaseUnreadable(path, str(error)) from error
    wrong = [line for line in found if line != "ok"]
    if wrong:
        raise DatabaseUnreadable(path, wrong[0])


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    except sqlite3.Error as error:
        raise DatabaseUnreadable(path, str(error)) from error
    return connection
