"""Opening one of the bridge's SQLite files: private, durable, and migrated to what this code expects."""

from __future__ import annotations

import os
import shutil
import threading
from functools import partial
from typing import TYPE_CHECKING

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError as DriverError

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection as SqliteConnection

BUSY_TIMEOUT_MS = 5_000
_MIGRATING = threading.Lock()  # Alembic keeps its environment in module globals: one migration at a time in a process
SCRATCH_BYTES = 2**18  # what SQLite wants beside a file it opens: its index of the log, a few pages of the log
# secure_delete: what is deleted is overwritten.
_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
)


class DatabaseError(Exception):
    """A database file that cannot be used; the message names the remedy."""


class DatabaseNewer(DatabaseError):
    """A newer program has written this file."""

    def __init__(self, path: Path, revision: str) -> None:
        super().__init__(
            f"{path} was written by a newer version of omi-diarization (schema {revision}). "
            "Install that version again, or restore the copy of the file made before the upgrade."
        )
        self.path = path


class DatabaseUnreadable(DatabaseError):
    """The file is not a SQLite database, is damaged, or may not be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be used as a database: {reason}. Check that this user owns it, "
            "or move it (with its -wal and -shm) away and restore a backup."
        )
        self.path = path


class DiskFull(DatabaseError):
    """There is no room even to open the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the disk of {path} is full: make room on it and start again; nothing is lost")
        self.path = path


def open_database(path: Path, migrations: Path, *, sync_commits: bool = True) -> Engine:
    """Open `path`, made if it is missing (directory 0700, file 0600), and bring it to the newest schema.

    Every transaction begins IMMEDIATE: what reads and then writes never meets SQLITE_BUSY half-way.

    Args:
        path: the database file.
        migrations: an Alembic script directory: `env.py` that calls `run_migrations`, and `versions/`.
        sync_commits: a commit that returned survives a power cut. Without it one survives the end of the process
            only, until the caller has synced the write-ahead log (`sync_log`).

    Raises:
        DatabaseNewer: a newer program has migrated the file.
        DatabaseUnreadable: it is no database, or may not be read or written.
        DiskFull: there is no room to open it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise DatabaseUnreadable(path, str(error)) from error
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", partial(_set_pragmas, synchronous="FULL" if sync_commits else "NORMAL"))
    event.listen(engine, "begin", _begin_immediate)
    try:
        _migrate(engine, path, migrations)
    except DriverError as error:
        engine.dispose()
        if shutil.disk_usage(path.parent).free < SCRATCH_BYTES:
            raise DiskFull(path) from error
        raise DatabaseUnreadable(path, str(error.orig)) from error
    except DatabaseError:
        engine.dispose()
        raise
    return engine


def run_migrations() -> None:
    """What the `env.py` of every migrations directory calls: run on the connection `open_database` holds."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(connection=connection)
    context.run_migrations()


def erase_deleted(engine: Engine) -> None:
    """Fold the write-ahead log into the file and empty it: deleted rows are left in neither."""
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def sync_log(path: Path) -> None:
    """Put on disk every transaction that was committed to the database at `path`.

    What a commit with synchronous=FULL does, once for many: with NORMAL a commit only writes to the write-ahead log
    (sqlite.org/pragma.html#pragma_synchronous). A log that is not there was folded into the file, which was synced.
    Raises OSError where the disk fails.
    """
    try:
        descriptor = os.open(path.with_name(f"{path.name}-wal"), os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)  # macOS has the second only
    finally:
        os.close(descriptor)


def _migrate(engine: Engine, path: Path, migrations: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise DatabaseNewer(path, current)
        config.attributes["connection"] = connection
        with _MIGRATING:
            command.upgrade(config, "head")


def _set_pragmas(connection: SqliteConnection, _record: object, *, synchronous: str) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, never by themselves
    cursor = connection.cursor()
    for pragma in (*_PRAGMAS, f"PRAGMA synchronous = {synchronous}"):
        cursor.execute(pragma)
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
