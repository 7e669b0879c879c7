"""Results and failures, kept on disk and offered until the bridge settles them.

Only what can be computed again lives here, so a file of another schema version is replaced, not migrated.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import structlog
from sqlalchemy import (
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from broker.backoff import Backoff
from schemas.record import is_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine, Row

SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 5_000
SAVE_AGAIN_S = 5.0
IDLE_S = 1.0
PRIMARY_CODE = 0xFF  # of SQLite's extended error codes
DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH}
"""Also SQLITE_ERROR: a damaged schema has no such table or column."""

_log = structlog.get_logger("mac_agent.outbox")
_metadata = MetaData()
_entries = Table(
    "entries",
    _metadata,
    Column("job_id", String, primary_key=True),
    Column("lease_id", String, nullable=False),
    Column("ledger_id", String, nullable=False),
    Column("conversation_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("stored_at", Float, nullable=False),  # wall clock, for people and for the order only
    Column("position", Integer, nullable=False),
)
# Statements are made once: making one costs several times what running it does.
_NEW = insert(_entries)
_PUT = _NEW.values(
    position=select(func.coalesce(func.max(_entries.c.position), 0) + 1).scalar_subquery()
).on_conflict_do_update(
    index_elements=["job_id"],
    set_={
        column.name: _NEW.excluded[column.name] for column in _entries.c if column.name not in ("job_id", "position")
    },
)
_FORGET = delete(_entries).where(_entries.c.job_id == bindparam("of_job"))


class OutboxError(Exception):
    """The outbox cannot be used; the message names the remedy."""


class EntryKind(StrEnum):
    """Which message an entry is."""

    TURNS = "turns"
    FAILURE = "failure"


@dataclass(frozen=True)
class OutboxEntry:
    """An encoded message, and what the bridge calls it."""

    job_id: str
    lease_id: str
    ledger_id: str
    conversation_id: str
    kind: EntryKind
    payload: bytes


@dataclass
class _Schedule:
    """When to offer an entry next. In memory: a new process offers everything at once."""

    due_s: float
    backoff: Backoff


@dataclass(frozen=True)
class OutboxFacts:
    """What somebody who looks from outside sees: how many results wait, since when, and what is wrong with the file."""

    waiting: int = 0
    oldest_at: float | None = None
    damage: str | None = None


def inspect_outbox(path: Path) -> OutboxFacts:
    """Look into an outbox beside a running agent, without changing it; none at all is an empty one."""
    if not path.exists():
        return OutboxFacts()
    oldest = select(func.count(), func.min(_entries.c.stored_at))
    engine = create_engine(f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
            if found != "ok":
                return OutboxFacts(damage=str(found))
            waiting, oldest_at = connection.execute(oldest).one()
    except (DatabaseError, UnicodeDecodeError) as error:
        return OutboxFacts(damage=str(error.orig if isinstance(error, DatabaseError) else error))
    finally:
        engine.dispose()
    return OutboxFacts(waiting, oldest_at)


class Outbox:
    """One SQLite file, used by one thread of one process.

    Args:
        path: the file; made private (0600).
        retry_s: pause before the second offer; doubles.
        retry_max_s: longest pause.
        clock: monotonic seconds.
    """

    def __init__(
        self, path: Path, *, retry_s: float, retry_max_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the file, or begin a new one.

        Raises:
            OutboxError: the file can neither be used nor replaced.
        """
        self._first_pause, self._clock = Backoff.start(retry_s, retry_max_s), clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._engine, kept = _open(path)
        except (OSError, DatabaseError) as error:
            raise OutboxError(
                f"The outbox {path} cannot be opened ({type(error).__name__}). Check its owner and the disk; "
                "if the file is damaged, delete it: results in it will be computed again."
            ) from error
        self._unsaved: set[str] = set()
        self._save_due_s = 0.0
        self._log_dirty_s: float | None = None
        self._index = {entry.job_id: entry for entry in kept}
        self._schedules = {job_id: _Schedule(0.0, self._first_pause) for job_id in self._index}

    def put(self, entry: OutboxEntry) -> None:
        """Store an entry durably, in place of an earlier one of the same job. It is due at once.

        On a full disk it is kept in memory and offered all the same; `tidy` stores it once there is room.

        Raises:
            OutboxError: the file cannot be written, for another reason.
        """
        self._index[entry.job_id] = entry
        self._schedules[entry.job_id] = _Schedule(0.0, self._first_pause)
        self._save(entry.job_id)

    def settle(self, job_id: str) -> None:
        """Forget an entry: the bridge has it, or wants it no more."""
        if self._index.pop(job_id, None) is None:
            return
        self._schedules.pop(job_id, None)
        self._save(job_id)

    def tidy(self) -> None:
        """Store what a full disk refused, and empty the write-ahead log once all is settled. Call it often."""
        now_s = self._clock()
        if self._unsaved and now_s >= self._save_due_s:
            self._save_due_s = now_s + SAVE_AGAIN_S
            for job_id in list(self._unsaved):
                self._save(job_id)
        if self._log_dirty_s is not None and not self._index and now_s - self._log_dirty_s > IDLE_S:
            self._log_dirty_s = None
            self._empty_log()

    def get(self, job_id: str) -> OutboxEntry | None:
        """Return the entry of a job."""
        return self._index.get(job_id)

    def entries(self) -> list[OutboxEntry]:
        """Return all entries, oldest first."""
        return list(self._index.values())

    def due(self) -> list[OutboxEntry]:
        """Return the entries whose time to be offered has come."""
        now = self._clock()
        return [entry for job_id, entry in self._index.items() if self._schedules[job_id].due_s <= now]

    def note_offered(self, job_id: str) -> None:
        """Wait longer before this entry is due again."""
        schedule = self._schedules.get(job_id)
        if schedule is not None:
            schedule.due_s = self._clock() + schedule.backoff.pause_s
            schedule.backoff = schedule.backoff.longer()

    def make_due(self, job_id: str | None = None) -> None:
        """Offer one entry, or all of them, at once: the bridge or the connection is a new one."""
        for each in [job_id] if job_id is not None else list(self._schedules):
            if each in self._schedules:
                self._schedules[each] = _Schedule(0.0, self._first_pause)

    def close(self) -> None:
        """Release the file."""
        self._engine.dispose()

    def _empty_log(self) -> None:
        """Fold the write-ahead log into the file and cut it: settled turns are left in neither."""
        try:
            with self._engine.connect() as connection:
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        except DatabaseError as error:
            if not _is_full(error):
                raise OutboxError(f"The outbox cannot be written ({error.orig}). Check its disk.") from error
            self._log_dirty_s = self._clock()  # again, once there may be room

    def _save(self, job_id: str) -> None:
        """Bring what the file holds of a job in line with what memory holds."""
        try:
            with self._engine.begin() as connection:
                _write(connection, job_id, self._index.get(job_id))
        except DatabaseError as error:
            if not _is_full(error):
                raise OutboxError(
                    f"The outbox cannot be written ({type(error.orig).__name__}: {error.orig}). Check its owner and "
                    "the disk; what is not in it is computed again."
                ) from error
            if not self._unsaved:
                self._save_due_s = self._clock() + SAVE_AGAIN_S
                _log.error("disk full: results are kept in memory", remedy="make room on the agent's disk")
            self._unsaved.add(job_id)
            return
        if job_id in self._unsaved:
            self._unsaved.remove(job_id)
            _log.info("stored after all", job=job_id)
        self._log_dirty_s = self._clock()


def _write(connection: Connection, job_id: str, entry: OutboxEntry | None) -> None:
    if entry is None:
        connection.execute(_FORGET, {"of_job": job_id})
        return
    values = {
        "job_id": entry.job_id,
        "lease_id": entry.lease_id,
        "ledger_id": entry.ledger_id,
        "conversation_id": entry.conversation_id,
        "kind": entry.kind.value,
        "payload": entry.payload,
        "stored_at": time.time(),
    }
    connection.execute(_PUT, values)


def _is_full(error: DatabaseError) -> bool:
    """Whether SQLite found no room, for the file or for the log beside it (which it calls an I/O error)."""
    return _code_of(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _code_of(error: DatabaseError) -> int:
    """Return SQLite's primary code; that of damage where Python could not read what was stored as text."""
    code: int = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & PRIMARY_CODE


def _open(path: Path) -> tuple[Engine, list[OutboxEntry]]:
    """Open the file and read it; one that is damaged or of another version is replaced."""
    kept = _read(path) if path.exists() else []
    if kept is None:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        kept = []
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # before SQLite, which would make it readable for all
    path.chmod(0o600)
    engine = _connect(path)
    with engine.begin() as connection:
        if not connection.execute(text("PRAGMA user_version")).scalar():  # on a full disk, nothing must be written
            _metadata.create_all(connection)
            connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
    return engine, kept


def _read(path: Path) -> list[OutboxEntry] | None:
    """Return what a file holds; None, said in the log, where it cannot be used."""
    version: int | None = None
    engine = _connect(path)
    try:
        with engine.connect() as connection:
            if not connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar():
                return []
            version = connection.execute(text("PRAGMA user_version")).scalar()
            if version == SCHEMA_VERSION and connection.execute(text("PRAGMA quick_check(1)")).scalar() == "ok":
                rows = connection.execute(select(_entries).order_by(_entries.c.position))
                return [_entry_of(row) for row in rows]
    except (DatabaseError, ValueError) as error:
        if isinstance(error, DatabaseError) and _code_of(error) not in DAMAGE_CODES:
            raise
    finally:
        engine.dispose()
    _log.warning(
        "outbox that is damaged or of another version replaced; the bridge grants its jobs again",
        found_version=version,
        version=SCHEMA_VERSION,
    )
    return None


def _entry_of(row: Row[Any]) -> OutboxEntry:
    """Return an entry. Raises ValueError where a damaged row is none."""
    entry = OutboxEntry(
        row.job_id, row.lease_id, row.ledger_id, row.conversation_id, EntryKind(row.kind), bytes(row.payload)
    )
    if not all(is_id(name) for name in (entry.job_id, entry.lease_id, entry.ledger_id, entry.conversation_id)):
        raise ValueError("an id")
    return entry


def _connect(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")

    def set_pragmas(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own connection
        # FULL: an entry is on the disk before it is published. secure_delete: settled turns leave no trace.
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", set_pragmas)
    return engine
