"""The bridge's SQLite files: private, durable, and migrated to the schema this code expects."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError as DriverError
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from vps_bridge.errors import DatabaseMoved
from vps_bridge.locked_file import LOCKED, find_holder, is_locked

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection as SqliteConnection

BUSY_TIMEOUT_MS = 5_000
READERS_TIMEOUT_MS = 250  # so long the log waits for those who read before it is emptied
MAX_FINDINGS = 5
AUTO_VACUUM_INCREMENTAL = 2
RESTORE = "Stop the bridge, move the file with its -wal and -shm away, and restore a backup."
REWRITE_FACTOR = 2.2  # the new file grows in the log before it takes the old one's place
SCRATCH_BYTES = 2**18  # what SQLite needs to open a file: the log's index and a few of its pages
# secure_delete: what is deleted is overwritten.
# auto_vacuum: a file can give room back in small steps. It only takes effect in a new file, so it comes first.
_PRAGMAS = (
    "PRAGMA auto_vacuum = INCREMENTAL",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
)


STORAGE_ERRORS = (OSError, sqlite3.Error, DBAPIError)
"""What a disk that is full or fails raises, in a file or in a database."""
DAMAGE_ERRORS = (sqlite3.DatabaseError, DriverError, UnicodeDecodeError)
"""What a damaged file raises; the last where what SQLite says of it holds bytes of the damage."""
PROGRAM_FAULTS = (IntegrityError, ProgrammingError)
"""Of these the ones that no damage explains, where the file is whole."""


class DatabaseError(Exception):
    """A database that cannot be used: what is wrong with it, and the remedy."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        """Say both; a problem that names its remedy itself needs none."""
        super().__init__(f"{problem}. {remedy}" if remedy else problem)
        self.problem, self.remedy = problem, remedy


class DatabaseNewer(DatabaseError):
    """A newer program has written this file."""

    def __init__(self, path: Path, revision: str) -> None:
        super().__init__(
            f"{path} was written by a newer version of omi-diarization (schema {revision})",
            "Install that version again, or restore a backup that was made before the upgrade.",
        )


class DatabaseUnreadable(DatabaseError):
    """The file is not a SQLite database, or is damaged. Where an error says so, `unusable` finds out whether it is."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be used as a database: {reason}",
            RESTORE,
        )
        self.path, self.reason = path, reason


class DatabaseLocked(DatabaseError):
    """Another program keeps the file locked: it is whole, and stays where it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} cannot be used now: {LOCKED}", find_holder(path))


class DatabaseForbidden(DatabaseError):
    """This user may not read or write the file, or make it: it stays where it is."""

    def __init__(self, path: Path, reason: str) -> None:
        remedy = (
            "Run this as the user whose it is (sudo -u USER), as the service does, or give it to this user (chown)."
        )
        super().__init__(f"{path} cannot be used by this user: {reason}", remedy)


class DiskFull(DatabaseError):
    """The disk has no room even to open the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the disk of {path} is full", "Make room on it and start again; nothing is lost.")


class DiskRefuses(DatabaseError):
    """The disk does not do what it is asked, which says nothing of the file: a quota, a limit, a mount, a fault."""

    def __init__(self, path: Path, reason: str) -> None:
        remedy = (
            "The file may be whole: leave it where it is. Look at the disk's log (dmesg), a quota, `ulimit -f`; then "
            "omi-bridge doctor reads all of it. Where the disk is broken, restore a backup on another one."
        )
        super().__init__(f"the disk refuses what is asked of {path}: {reason}", remedy)


def unusable(path: Path, error: Exception) -> DatabaseError:
    """Return what to tell of a file that could not be opened or read: only a damaged one is moved away."""
    said = getattr(error, "orig", error)  # SQLAlchemy's errors hold the driver's
    name, code = getattr(said, "sqlite_errorname", ""), getattr(said, "errno", None)
    if is_locked(error):
        return DatabaseLocked(path)
    if name == "SQLITE_FULL" or code == errno.ENOSPC or _is_disk_full(path):
        return DiskFull(path)
    is_closed = name.startswith("SQLITE_CANTOPEN") and not os.access(path, os.R_OK | os.W_OK)
    if is_closed or name.startswith(("SQLITE_READONLY", "SQLITE_PERM")) or code in (errno.EACCES, errno.EPERM):
        return DatabaseForbidden(path, reason_of(error))
    if name.startswith("SQLITE_IOERR") or code in (errno.EIO, errno.EDQUOT, errno.EFBIG):
        return DiskRefuses(path, reason_of(error))
    return DatabaseUnreadable(path, reason_of(error))


def _is_disk_full(path: Path) -> bool:
    return path.parent.exists() and shutil.disk_usage(path.parent).free < SCRATCH_BYTES


def reason_of(error: Exception) -> str:
    """Return what SQLite said, without the statement that SQLAlchemy adds."""
    return str(error.orig if isinstance(error, DBAPIError) else error)


class Database:
    """A SQLite file and the one connection this process has to it, used by one thread at a time.

    Transactions are begun and ended here with SQLite's own statements; SQLAlchemy only builds the other statements and
    reads the rows. With the connection kept open and the statements built once, a read takes 30 microseconds; with a
    SQLAlchemy session it takes 300, which was two thirds of the bridge's time for a payload.
    """

    def __init__(self, path: Path, engine: Engine, *, sync_commits: bool) -> None:
        """Use what `open_database` opened."""
        self._path, self._engine, self._sync_commits = path, engine, sync_commits
        self._connection = engine.connect()
        driver = self._connection.connection.driver_connection
        if not isinstance(driver, sqlite3.Connection):
            msg = f"{type(driver).__name__} is not Python's own sqlite3"
            raise TypeError(msg)
        # An RLock: a transaction begun within another one is then an error of SQLite's and no deadlock.
        self._driver, self._lock, self._unsynced = driver, threading.RLock(), False
        self._file, self._log_path = path.stat(), f"{path}-wal"
        self._log: int | None = None  # descriptor of the write-ahead log

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend the connection for reading: all statements see the file as it was when the first one ran."""
        with self._lock:
            self._driver.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._roll_back()  # there is nothing to undo

    @contextmanager
    def writing(self, _conversation_id: str | None = None, /) -> Iterator[Connection]:
        """Lend the connection for one transaction: all of it is done or, where an error is raised, none of it.

        Nobody else writes meanwhile, of whichever conversation. It begins IMMEDIATE, so that a transaction which reads
        before it writes cannot get SQLITE_BUSY when it writes.
        """
        with self._lock:
            if self._sync_commits:  # else `sync` looks
                self._require_in_place()
            self._driver.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._driver.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            self._unsynced = not self._sync_commits

    def _roll_back(self) -> None:
        if self._connection.invalidated:  # Ctrl-C during a statement: SQLAlchemy closed the file, which rolled it back
            return
        if self._driver.in_transaction:  # SQLite itself ends it when the disk is full
            self._driver.execute("ROLLBACK")

    def has_row(self, question: str, value: str) -> bool:
        """Return whether a query with one parameter finds a row.

        The driver is asked directly: that takes 4 microseconds and not 50, for what nearly every call has to ask.
        """
        with self._lock:
            return self._driver.execute(question, (value,)).fetchone() is not None

    def change_mark(self) -> int:
        """Return a number that differs after every commit by another connection, of this process or another."""
        with self._lock:
            return int(self._driver.execute("PRAGMA data_version").fetchone()[0])

    def sync(self) -> None:
        """Sync to disk whatever was committed since the last call. Raises OSError where the disk fails.

        This does once for many commits what each does with synchronous=FULL: with NORMAL a commit only writes to the
        write-ahead log (sqlite.org/pragma.html#pragma_synchronous). Where there is no log, SQLite has moved it into the
        file and synced that.
        """
        if not self._unsynced:
            return
        self._unsynced = False  # before the sync: what another thread commits during it is left for the next call
        try:
            self._sync_log()
        except OSError:
            self._unsynced = True
            raise

    def stop_syncing(self) -> None:
        """Sync nothing from here on: this is a copy that nobody needs after a power cut."""
        with self._lock:
            self._driver.execute("PRAGMA synchronous = OFF")

    def sync_all(self) -> None:
        """Sync to disk whatever was committed through any connection: of this process or of another."""
        with self._lock:
            self._sync_log()

    def _sync_log(self) -> None:
        self._require_in_place()
        log = self._open_log()
        if log is not None:
            os.fdatasync(log) if hasattr(os, "fdatasync") else os.fsync(log)  # macOS has only fsync

    def _require_in_place(self) -> None:
        """Raise `DatabaseMoved` where the file is not at its place any more: nobody would find what is written."""
        try:
            is_in_place = os.path.samestat(os.stat(self._path), self._file)  # noqa: PTH116 - as below
        except FileNotFoundError:
            is_in_place = False
        if not is_in_place:
            raise DatabaseMoved(self._path)

    def _open_log(self) -> int | None:
        """Return the write-ahead log, or None where there is none.

        It stays open, so that what was refused because no file can be opened any more can still be told.
        """
        try:
            there = os.stat(self._log_path)  # noqa: PTH116 - with every receipt: a Path takes several times as long
        except FileNotFoundError:
            return None
        if self._log is None or not os.path.samestat(os.fstat(self._log), there):
            self._close_log()
            self._log = os.open(self._log_path, os.O_RDWR)
        return self._log

    def _close_log(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def erase_deleted(self) -> None:
        """Move the write-ahead log into the file and empty it, so that neither holds deleted rows any more.

        Not while another process reads for long, as a backup does: the next call does it, and nobody waits.
        """
        with self._lock:
            self._driver.execute(f"PRAGMA busy_timeout = {READERS_TIMEOUT_MS}").fetchall()
            try:
                self._driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._driver.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}").fetchall()

    def free_pages(self, most: int, /) -> int:
        """Give at most so many unused pages back to the disk; return how many unused ones are left.

        So few take some milliseconds. Of a file that cannot shrink (`make_shrinkable`) none is given back.
        """
        with self._lock:
            if not self._is_shrinkable():
                return 0
            unused = int(self._driver.execute("PRAGMA freelist_count").fetchone()[0])
            if unused:
                # A page is a row without a column, of which `execute` reads only the first.
                self._driver.executescript(f"PRAGMA incremental_vacuum({int(most)})")
            return max(0, unused - most)

    def make_shrinkable(self) -> bool:
        """Rewrite a file of an earlier version once, so that `free_pages` works; return whether it can shrink now.

        Needs twice the file's size on the disk, else the file stays as it is. SQLite does it as one transaction: a
        power cut leaves the old file. Raises what `STORAGE_ERRORS` names, for example where another process reads.
        """
        with self._lock:
            if self._is_shrinkable():
                return True
            if shutil.disk_usage(self._path.parent).free < REWRITE_FACTOR * self._path.stat().st_size:
                return False
            self._driver.execute("VACUUM")
            self._driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return self._is_shrinkable()

    def _is_shrinkable(self) -> bool:
        return int(self._driver.execute("PRAGMA auto_vacuum").fetchone()[0]) == AUTO_VACUUM_INCREMENTAL

    def find_damage(self) -> list[str]:
        """Return what SQLite finds wrong with the file, at most `MAX_FINDINGS`; reads all of it.

        Raises `DatabaseLocked` where another program keeps it from being read.
        """
        try:
            with self.reading() as connection:
                found = connection.exec_driver_sql(f"PRAGMA quick_check({MAX_FINDINGS})").scalars()
                return [line for line in found if line != "ok"]
        except DAMAGE_ERRORS as error:  # damaged where the check itself reads
            if is_locked(error):
                raise DatabaseLocked(self._path) from error
            return [reason_of(error)]

    def close(self) -> None:
        """Close the file; nothing can be read or written any more."""
        with self._lock:
            self._close_log()
            self._connection.close()
            self._engine.dispose()


def open_database(path: Path, migrations: Path, *, sync_commits: bool = True) -> Database:
    """Open `path`, made if it is missing (directory 0700, file 0600), and bring it to the newest schema.

    Args:
        path: the database file.
        migrations: an Alembic script directory: `env.py` that calls `run_migrations`, and `versions/`.
        sync_commits: a commit that returned survives a power cut. Without it a commit survives only the end of the
            process, until `Database.sync` was called.

    Raises:
        DatabaseError: the file cannot be used: a newer program has migrated it, or what `unusable` tells.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only a new file, and one that is not opened here already: closing a descriptor of a file ends all locks that
        # this process has on it (fcntl(2)), and another process would then remove the log that is in use.
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise unusable(path, error) from error
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", partial(_set_pragmas, synchronous="FULL" if sync_commits else "NORMAL"))
    try:
        _migrate(engine, path, migrations)
    except DAMAGE_ERRORS as error:
        engine.dispose()
        raise unusable(path, error) from error
    except DatabaseError:
        engine.dispose()
        raise
    return Database(path, engine, sync_commits=sync_commits)


def _migrate(engine: Engine, path: Path, migrations: Path) -> None:
    revisions = sorted(script.name.split("_")[0] for script in (migrations / "versions").glob("*.py"))
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # ended by SQLAlchemy's COMMIT or ROLLBACK
        current = _read_revision(connection)
        if current == revisions[-1]:
            return
        if current is not None and current not in revisions:
            raise DatabaseNewer(path, current)
        # Alembic takes a quarter of a command's start, and nearly every command finds the newest schema.
        from vps_bridge.migrations import migrate  # noqa: PLC0415

        migrate(connection, migrations)


def _read_revision(connection: Connection) -> str | None:
    """Return the newest migration that the file has seen, as Alembic notes it; None for a new file."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def _set_pragmas(connection: SqliteConnection, _record: object, *, synchronous: str) -> None:
    connection.isolation_level = None  # the driver begins no transactions by itself
    cursor = connection.cursor()
    for pragma in (*_PRAGMAS, f"PRAGMA synchronous = {synchronous}"):
        cursor.execute(pragma)
    cursor.close()
