"""The ledger in PostgreSQL: one connection that is kept, and opened again where it is cut."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from vps_bridge.database import DatabaseError
from vps_bridge.database_server import ServerSchema, bring_up_to_date, describe_failure, read_revision
from vps_bridge.errors import CommitsInDoubt, LedgerUnavailable, StoreUnavailable
from vps_bridge.ledger.news import OnNews
from vps_bridge.ledger.server_connection import SCHEMA, SETTING, LedgerServer, ServerConnection
from vps_bridge.ledger.server_facts import ServerFacts
from vps_bridge.ledger.server_news import CHANNEL, ServerNews
from vps_bridge.outage import Outage

MIGRATIONS = Path(__file__).parent / "migrations"
TABLES = ServerSchema(SCHEMA, MIGRATIONS, MIGRATIONS / "postgres" / "0015_tables.sql")
MAX_PAUSE_S = 5.0  # between two attempts to connect: nobody is labelled meanwhile
RIGHTS = ("42501", "42P01")  # whoever may not use a schema does not see its tables
_LIVE_BRIDGE = 0x6F6D696C  # the advisory lock of the bridges that run on the ledger, or of what wants it alone
_WORD = re.compile(r"[A-Za-z0-9 _-]*")
_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = b"BEGIN"
# A commit of the bridge returns before it is on the server's disk; this one waits for all that were made before it.
_SYNC = b"BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'omi', ''); "
_COMMIT, _COMMIT_AND_TELL = b"COMMIT", b"NOTIFY %s; COMMIT" % CHANNEL.encode()
_SAFE = ("fsync", "full_page_writes")
_FACTS = "SELECT " + ", ".join(f"current_setting('{name}')" for name in ("server_version", *_SAFE))
_MARK = "SELECT pg_catalog.pg_current_snapshot()::text"


class PostgresLedger:
    """A `LedgerDatabase` in one schema of a PostgreSQL database.

    A transaction that is cut off may be done or not. Whoever began it gets `LedgerUnavailable` and promises nothing;
    the next one connects anew, after a pause that grows where the server does not answer.
    """

    def __init__(self, server: LedgerServer, *, sync_commits: bool) -> None:
        """Connect to nothing yet. Raises `SettingsError` where the driver is not installed."""
        self._server, self._sync_commits = server, sync_commits
        self._outage = Outage(max_pause_s=MAX_PAUSE_S, error=LedgerUnavailable)
        # An RLock: a transaction begun within another one is then told from one of another thread.
        self._lock, self._is_busy = threading.RLock(), False
        self._kept: ServerConnection | None = None
        # Whether anything was written or read since the last `sync`, and whether the connection ended before one.
        self._has_unsynced = self._has_lost = False
        self._held_as: str | None = None
        self._words: dict[str, None] = {}  # what the others are told with the next `sync`

    # ---------------------------------------------------------------------------------------------- opening

    def exists(self) -> bool:
        """Return whether the server has this ledger's tables. Raises `LedgerUnavailable`."""
        with self._using() as kept:
            return read_revision(kept.connection, TABLES) is not None

    def migrate(self) -> None:
        """Make the tables, or bring them to the newest schema. Raises `DatabaseError`, `LedgerUnavailable`."""
        with self.writing() as connection:
            try:
                bring_up_to_date(connection, TABLES, self._server.shown)
            except StoreUnavailable as error:
                raise DatabaseError(str(error)) from error

    def hold(self, bridge_id: str | None) -> bool:
        """Take the ledger until `close`: for a bridge, beside others of other ids, or (None) for oneself alone.

        False where somebody holds it that this cannot be beside.
        """
        with self._using() as kept:
            wanted = bridge_id or ""
            is_held = _take_ledger(kept, wanted)
            self._held_as = wanted if is_held else None
            return is_held

    # ------------------------------------------------------------------------------------------ transactions

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """See `LedgerDatabase.reading`."""
        with self._transaction(_READ, _COMMIT) as connection:
            yield connection
            self._has_unsynced |= not self._sync_commits  # what was read, another bridge may not have on disk yet

    @contextmanager
    def writing(self, conversation_id: str | None = None, /) -> Iterator[Connection]:
        """See `LedgerDatabase.writing`. Each statement sees what was committed before it began."""
        begin = _WRITE
        if conversation_id is not None:
            begin += b"; SELECT pg_advisory_xact_lock(%d)" % lock_number(conversation_id)
        # What the bridge writes is announced with its next `sync`.
        with self._transaction(begin, _COMMIT_AND_TELL if self._sync_commits else _COMMIT) as connection:
            yield connection
            self._has_unsynced |= not self._sync_commits  # before the commit: what is cut off may be done

    @contextmanager
    def _transaction(self, begin: bytes, commit: bytes) -> Iterator[Connection]:
        with self._using() as kept:
            if self._is_busy:
                msg = "a transaction was begun within another one"
                raise RuntimeError(msg)
            self._is_busy = True
            try:
                kept.exchange(begin)
                yield kept.connection
                kept.exchange(commit)
            except Exception:
                kept.roll_back()
                raise
            except BaseException:  # Ctrl-C in the middle of an answer
                self._drop()
                raise
            finally:
                self._is_busy = False

    def has_row(self, question: str, value: str) -> bool:
        """See `LedgerDatabase.has_row`."""
        with self._using() as kept:
            return kept.connection.exec_driver_sql(question.replace("?", "%s"), (value,)).first() is not None

    def change_mark(self) -> str:
        """Return the transactions that the server knows, of its whole cluster: those under way and the next one."""
        with self._using() as kept:
            return str(kept.connection.exec_driver_sql(_MARK).scalar_one())

    # ---------------------------------------------------------------------------------------- what is on disk

    def sync(self) -> None:
        """See `LedgerDatabase.sync`; also for what other processes had committed, which we may have read.

        Raises `CommitsInDoubt`, once, where the connection was cut since the last call: what was committed or read
        through it may be lost with a crash of the server, so nobody is promised it.
        """
        if not self._sync_commits:
            self.sync_all()

    def sync_all(self) -> None:
        """See `LedgerDatabase.sync_all`."""
        with self._using() as kept:
            if self._has_lost:
                self._has_lost = self._has_unsynced = False
                msg = "hung up before it had everything on its disk: nothing of it was promised, all is asked again"
                raise CommitsInDoubt(f"{self._server.shown} {msg}")
            words = tuple(self._words)
            kept.exchange(_SYNC + b"".join(_announce(word) for word in words) + _COMMIT)
            self._has_unsynced = False
            for word in words:
                self._words.pop(word, None)

    def tell(self, word: str) -> None:
        """Have other bridges told something with the next `sync`. What they miss they find by looking."""
        self._words[word] = None

    @property
    def is_sync_due(self) -> bool:
        """Whether the others are to be told something, or our own side that commits are in doubt."""
        return bool(self._words) or self._has_lost

    def erase_deleted(self) -> None:
        """Leave that to the server: its files are not ours, and its own vacuum reuses what was deleted."""

    def free_pages(self, _most: int, /) -> int:
        """Return 0: there are no pages of ours."""
        return 0

    def make_shrinkable(self) -> bool:
        """Return True: there is no file of ours."""
        return True

    def describe(self) -> ServerFacts:
        """Return what an operator should know of the server. Raises `LedgerUnavailable`."""
        with self._using() as kept:
            version, *settings = kept.connection.exec_driver_sql(_FACTS).one()
        risks = tuple(f"{name} is {value}" for name, value in zip(_SAFE, settings, strict=True) if value != "on")
        return ServerFacts(self._server.shown, str(version), risks)

    def find_damage(self) -> list[str]:
        """Return nothing where the server answers: it checks what it reads itself. Raises `LedgerUnavailable`."""
        self.change_mark()
        return []

    # ---------------------------------------------------------------------------------- several who write

    def listen(self, on_news: OnNews) -> ServerNews:
        """Have `on_news` called, from another thread, with what another connection announces."""
        return ServerNews(self._server, self._own_ids, on_news)

    def _own_ids(self) -> set[int]:
        kept = self._kept
        return {kept.server_id} if kept is not None else set()

    def take(self, name: str) -> bool:
        """Take a lock of this name until `give`, or until the connection ends; False where another one has it."""
        return self._ask(f"SELECT pg_try_advisory_lock({lock_number(name)})")

    def give(self, name: str) -> None:
        """Give a lock back that `take` took. Where the connection was cut, the server has done it."""
        self._ask(f"SELECT pg_advisory_unlock({lock_number(name)})")

    def _ask(self, question: str) -> bool:
        with self._using() as kept:
            return bool(kept.connection.exec_driver_sql(question).scalar_one())

    def close(self) -> None:
        """End the connection, and let go of the ledger."""
        with self._lock:
            self._held_as = None
            self._drop()

    # -------------------------------------------------------------------------------------- the connection

    @contextmanager
    def _using(self) -> Iterator[ServerConnection]:
        """Lend the connection, made where there is none; what a server or the way to it does is explained."""
        with self._lock:
            kept = self._kept or self._outage.guard(self._connect)
            try:
                yield kept
            except LedgerUnavailable:
                if kept.is_broken:
                    self._drop()
                raise
            except DBAPIError as error:
                if kept.is_broken or error.connection_invalidated:
                    self._drop()
                    raise kept.explain_end() from error
                if not _is_outage(error):
                    raise  # a wrong statement
                words = describe_failure(error, SCHEMA, SETTING)
                raise LedgerUnavailable(f"{self._server.shown} {words}") from error
            finally:
                if not self._is_busy:
                    kept.rest()

    def _connect(self) -> ServerConnection:
        kept = ServerConnection(self._server, sync_commits=self._sync_commits)
        if self._held_as is not None and not _take_ledger(kept, self._held_as):
            kept.close()
            raise LedgerUnavailable(
                f"{self._server.shown}: another connection holds the ledger. Where no other bridge of this id runs, "
                "the server has not noticed yet that ours ended"
            )
        self._kept = kept
        return kept

    def _drop(self) -> None:
        """Let go of the connection, which may be broken."""
        self._has_lost |= self._has_unsynced
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()


def lock_number(name: str) -> int:
    """Return the number of the advisory lock for a conversation: of 64 bits, so that two seldom share one."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _take_ledger(kept: ServerConnection, bridge_id: str) -> bool:
    """Take the locks of a bridge, or of what wants the ledger alone (no id)."""
    if not bridge_id:
        return _try_lock(kept, f"pg_try_advisory_lock({_LIVE_BRIDGE})")
    own = lock_number(f"bridge {bridge_id}")
    is_ours = _try_lock(kept, f"pg_try_advisory_lock({own})")
    if is_ours and not _try_lock(kept, f"pg_try_advisory_lock_shared({_LIVE_BRIDGE})"):
        _try_lock(kept, f"pg_advisory_unlock({own})")
        return False
    return is_ours


def _try_lock(kept: ServerConnection, call: str) -> bool:
    return bool(kept.connection.exec_driver_sql(f"SELECT {call}").scalar_one())


def _announce(word: str) -> bytes:
    # Ids are checked where they come in; a word that is none is told as "look at everything".
    text = word if _WORD.fullmatch(word) else ""
    return f"NOTIFY {CHANNEL}, '{text}'; ".encode()


def _is_outage(error: DBAPIError) -> bool:
    if isinstance(error, OperationalError | InterfaceError | InternalError):
        return True
    return getattr(error.orig, "sqlstate", None) in RIGHTS
