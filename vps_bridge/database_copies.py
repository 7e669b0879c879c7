"""Copies of SQLite files that are in use: all of them as they are at one moment, whoever writes meanwhile."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

from vps_bridge.database import BUSY_TIMEOUT_MS, DatabaseUnreadable, unusable

PAGES_AT_ONCE = 2_000  # of 4 KiB, between two reports of how far it is


def copy_databases(
    copies: Mapping[Path, Path], on_progress: Callable[[int, int], None], on_copy: Callable[[Path], None]
) -> None:
    """Copy files, each to its path, at once: all snapshots are taken before the first page is copied.

    Nobody who writes waits. `on_progress` is called with bytes copied and bytes in all, `on_copy` with each path once
    its copy is whole, by the thread of each copy. A copy has no log beside it; it is not synced to disk.

    Raises:
        DatabaseError: one of them cannot be read.
        OSError: a copy cannot be written.
    """
    with ExitStack() as stack:
        sources = [stack.enter_context(closing(_open(path))) for path in copies]
        sizes = [_pin(source, path) for source, path in zip(sources, copies, strict=True)]
        for target in copies.values():
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        done = dict.fromkeys(copies, 0)

        def report(path: Path, done_bytes: int) -> None:
            done[path] = done_bytes
            on_progress(sum(done.values()), sum(sizes))

        def copy(source: sqlite3.Connection, path: Path) -> None:
            _copy(source, copies[path], partial(report, path))
            on_copy(copies[path])

        on_progress(0, sum(sizes))
        with ThreadPoolExecutor(max(1, len(copies))) as pool:
            list(pool.map(copy, sources, copies))


def _pin(source: sqlite3.Connection, path: Path) -> int:
    """Begin to see a file as it is now; return its size in bytes."""
    try:
        source.execute("BEGIN")
        pages, page_bytes = (source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    return int(pages * page_bytes)


def _copy(source: sqlite3.Connection, target: Path, report: Callable[[int], None]) -> None:
    page_bytes = source.execute("PRAGMA page_size").fetchone()[0]
    with closing(sqlite3.connect(target)) as copy:
        copy.execute("PRAGMA synchronous = OFF")  # a backup's second copy, the archive, is synced
        try:
            source.backup(
                copy, pages=PAGES_AT_ONCE, progress=lambda _, left, total: report(page_bytes * (total - left))
            )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_IOERR_WRITE":  # only the copy is written: a quota, or its disk
                raise
            raise OSError(errno.EIO, f"the copy cannot be written ({error})", str(target)) from error


def check_database(path: Path) -> None:
    """Read all of a file that nobody uses, and compare its rows with its indexes.

    Raises `DatabaseUnreadable` with the first of what is wrong, or what `unusable` tells.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
            found += [
                f"row {row[1]} of {row[0]} belongs to none" for row in connection.execute("PRAGMA foreign_key_check")
            ]
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    wrong = [line for line in found if line != "ok"]
    if wrong:
        raise DatabaseUnreadable(path, wrong[0])


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    return connection
