"""Opening the ledger: one live bridge per directory, everyone else reads."""

from __future__ import annotations

import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from sqlalchemy import select

from vps_bridge.database import DAMAGE_ERRORS, Database, open_database, unusable
from vps_bridge.errors import DatabaseMoved, LedgerUnavailable
from vps_bridge.gone_database import refuse_gone
from vps_bridge.ledger.agents import AgentBook
from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.bridges import BridgeBook
from vps_bridge.ledger.chunks import ChunkBook
from vps_bridge.ledger.conversation_events import EventBook
from vps_bridge.ledger.conversations import ConversationBook
from vps_bridge.ledger.corrections import CorrectionBook
from vps_bridge.ledger.erasure_copy import ErasureCopy
from vps_bridge.ledger.erasure_log import ErasureLog, Erasures
from vps_bridge.ledger.erasure_table import ErasureTable
from vps_bridge.ledger.evidence import EvidenceBook
from vps_bridge.ledger.jobs import JobBook
from vps_bridge.ledger.kept_voices import KeptVoices
from vps_bridge.ledger.leases import LeaseBook
from vps_bridge.ledger.listing import Listing
from vps_bridge.ledger.measures import Measures
from vps_bridge.ledger.news import NoNews
from vps_bridge.ledger.omi_conversations import OmiBook
from vps_bridge.ledger.operator_actions import OperatorActions
from vps_bridge.ledger.packing import PackBook
from vps_bridge.ledger.people import PeopleBook
from vps_bridge.ledger.refusals import RefusalBook
from vps_bridge.ledger.tables import MetaRow
from vps_bridge.ledger.webhook_outbox import WebhookBook

if TYPE_CHECKING:
    from vps_bridge.ledger.database import LedgerDatabase
    from vps_bridge.ledger.news import News, OnNews
    from vps_bridge.ledger.postgres import PostgresLedger
    from vps_bridge.ledger.server_connection import LedgerServer
    from vps_bridge.ledger.server_facts import ServerFacts

MIGRATIONS = Path(__file__).parent / "migrations"
FILE_NAME, LOCK_NAME = "ledger.sqlite3", "ledger.lock"
LEDGER_ID = "ledger_id"
HOLD_S, HOLD_POLL_S = 5.0, 0.2


class LedgerBusy(Exception):
    """Another live bridge holds this ledger."""


class LedgerMissing(Exception):
    """There is no ledger here yet: no bridge ever ran with this data directory."""


class Ledger:
    """The ledger of one bridge. Every method of its books is one transaction, or says why two will do.

    In the running bridge transactions are on disk only once `sync` was called: it does so before any message that
    promises something leaves, and one fsync serves all that was committed since the last. A command's transactions are
    on disk when they return.
    """

    def __init__(
        self,
        root: Path,
        *,
        exclusive: bool,
        sync_commits: bool | None = None,
        server: LedgerServer | None = None,
        bridge_id: str | None = None,
    ) -> None:
        """Open the ledger: the running bridge takes it exclusively, commands share it.

        Args:
            root: the bridge's directory. Ledger and log of erasures are files there, unless a server keeps them.
            exclusive: this is the bridge, or does what only the bridge may.
            sync_commits: whether a transaction is on disk when it returns; by default those of commands are.
            server: the server that keeps it.
            bridge_id: of a running bridge: on a server it takes the ledger beside bridges of other ids.

        Raises:
            LedgerBusy: another bridge runs on it.
            LedgerMissing: a command finds none.
            LedgerUnavailable: the server cannot be used.
            vps_bridge.database.DatabaseError: the file cannot be used.
        """
        self.root = root
        self._lock: FileLock | None = None
        self._on_server: PostgresLedger | None = None
        if exclusive:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(root / LOCK_NAME)
        syncs = not exclusive if sync_commits is None else sync_commits
        try:
            if server is not None:
                root.mkdir(parents=True, exist_ok=True, mode=0o700)  # of a command elsewhere: how full its disk is
                self._on_server = _open_on_server(server, bridge_id, exclusive=exclusive, sync_commits=syncs)
            database = self._on_server or _open_file(root / FILE_NAME, exclusive=exclusive, sync_commits=syncs)
            self._database: LedgerDatabase = database
            self._read(database, exclusive=exclusive, file=None if server else root / FILE_NAME)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    @classmethod
    def open_copy(cls, root: Path) -> Ledger:
        """Open a copy of a ledger's file that is only needed for a moment: nothing of it is synced to disk."""
        ledger = cls(root, exclusive=True)
        if isinstance(ledger._database, Database):
            ledger._database.stop_syncing()
        return ledger

    def _read(self, database: LedgerDatabase, *, exclusive: bool, file: Path | None) -> None:
        """Read what each use needs. Raises `DatabaseError` where a file cannot be read there."""
        try:
            self.ledger_id = _read_id(database)
            self._open_books(database, self._open_erasures(exclusive=exclusive))
        except DAMAGE_ERRORS as error:
            database.close()
            if file is None:
                raise
            raise unusable(file, error) from error

    def _open_erasures(self, *, exclusive: bool) -> Erasures:
        """Return where erasures are noted: in a file of its own, or where several bridges see it."""
        self.erasure_copy: ErasureCopy | None = None
        if self.is_on_server:
            table = ErasureTable(self._database, self.ledger_id)
            self.erasure_copy = ErasureCopy(self.root, self.ledger_id, table) if exclusive else None
            return table
        log = ErasureLog(self.root, self.ledger_id)
        if exclusive:
            log.begin()
        return log

    def _open_books(self, database: LedgerDatabase, erasures: Erasures) -> None:
        """Open what reads and writes the tables; some of it reads them now."""
        self.erasures = erasures
        self.bridges = BridgeBook(database)
        self.conversations = ConversationBook(database, erasures)
        self.chunks = ChunkBook(database)
        self.events = EventBook(database)
        self.corrections = CorrectionBook(database)
        self.evidence = EvidenceBook(database)
        self.people = PeopleBook(database, erasures)
        self.jobs = JobBook(database)
        self.leases = LeaseBook(database)
        self.agents = AgentBook(database, erasures)
        self.operator_actions = OperatorActions(database, erasures)
        self.refusals = RefusalBook(database)
        self.listing = Listing(database)
        self.measures = Measures(database)
        self.omi = OmiBook(database)
        self.webhook = WebhookBook(database)
        self.packs = PackBook(database)
        self.kept_voices = KeptVoices(database)

    def sync(self) -> None:
        """Put on disk whatever was committed since the last call. Raises OSError where the disk fails."""
        self._database.sync()

    def sync_all(self) -> None:
        """Put on disk whatever any process has committed. Raises OSError where the disk fails."""
        self._database.sync_all()

    def copy_erasures(self) -> None:
        """Copy what was erased on a server, by whomever, into the bridge's own log. Raises OSError where that fails."""
        if self.erasure_copy is not None:
            self.erasure_copy.keep_up()

    def forget_deleted_pages(self) -> None:
        """Truncate the write-ahead log, so that what was deleted is in no file any more."""
        self._database.erase_deleted()

    def free_pages(self, most: int) -> int:
        """Give room that is not used any more back to the disk, a few pages; return how many are left to give."""
        return self._database.free_pages(most)

    def make_shrinkable(self) -> bool:
        """Have the file give room back, where an earlier version made it so that it cannot; see `Database`."""
        return self._database.make_shrinkable()

    def find_damage(self) -> list[str]:
        """Return what is wrong with the file."""
        return self._database.find_damage()

    @property
    def is_on_server(self) -> bool:
        """Whether a server keeps it, and no file of ours."""
        return self._on_server is not None

    def describe_server(self) -> ServerFacts | None:
        """Return what is worth knowing of the server that keeps it; None where a file does."""
        return None if self._on_server is None else self._on_server.describe()

    def listen(self, on_news: OnNews) -> News:
        """Have `on_news` called, from another thread, with what others tell who write into a ledger on a server."""
        return NoNews() if self._on_server is None else self._on_server.listen(on_news)

    def tell(self, word: str) -> None:
        """Have other bridges told something, ids and spaces, with the next `sync`; where a file keeps it nobody."""
        if self._on_server is not None:
            self._on_server.tell(word)

    @property
    def is_sync_due(self) -> bool:
        """Whether a `sync` has something to tell, be it to other bridges or (`CommitsInDoubt`) to this one."""
        return self._on_server is not None and self._on_server.is_sync_due

    def take_turn(self, name: str) -> bool:
        """Take something of which only one process may have one, until `give_turn` or our connection ends."""
        return self._on_server is None or self._on_server.take(name)

    def give_turn(self, name: str) -> None:
        """Give back what `take_turn` took."""
        if self._on_server is not None:
            self._on_server.give(name)

    def take_labels(self, conversation_id: str) -> bool:
        """Take the linking and labelling of a conversation for this process; False where another one has it.

        Until `give_labels`, or until our connection ends. A ledger in a file has one bridge, which has it all.
        """
        return self.take_turn(f"labels of {conversation_id}")

    def give_labels(self, conversation_id: str) -> None:
        """Give back what `take_labels` took."""
        self.give_turn(f"labels of {conversation_id}")

    def free_bytes(self) -> int:
        """Return how much room the ledger's disk has left."""
        return shutil.disk_usage(self.root).free

    def close(self) -> None:
        """Close the database and let go of the lock."""
        try:
            with suppress(LedgerUnavailable, DatabaseMoved):  # nobody was promised what may be lost with it
                self.sync()
                self.copy_erasures()
        finally:
            self._database.close()
            if self._lock is not None:
                self._lock.release()


def _open_file(path: Path, *, exclusive: bool, sync_commits: bool) -> LedgerDatabase:
    refuse_gone(path)
    if not exclusive and not path.exists():
        msg = f"no bridge has run with {path.parent} yet: start `omi-bridge run`, or name its --data-dir"
        raise LedgerMissing(msg)
    return open_database(path, MIGRATIONS, sync_commits=sync_commits)


def _open_on_server(
    server: LedgerServer, bridge_id: str | None, *, exclusive: bool, sync_commits: bool
) -> PostgresLedger:
    from vps_bridge.ledger.postgres import PostgresLedger  # noqa: PLC0415 - nearly every ledger is a file

    database = PostgresLedger(server, sync_commits=sync_commits)
    try:
        _take(database, server, bridge_id, exclusive=exclusive)
        database.migrate()
    except BaseException:
        database.close()
        raise
    return database


def _hold(database: PostgresLedger, bridge_id: str | None) -> bool:
    """Take the ledger; after a `kill -9` the server may need a moment to notice that the last bridge is gone."""
    until_s = time.monotonic() + HOLD_S
    while not database.hold(bridge_id):
        if time.monotonic() > until_s:
            return False
        time.sleep(HOLD_POLL_S)
    return True


def _take(database: PostgresLedger, server: LedgerServer, bridge_id: str | None, *, exclusive: bool) -> None:
    if exclusive and not _hold(database, bridge_id):
        named = f" as {bridge_id}" if bridge_id else ""
        remedy = "an OMI_BRIDGE_ID of its own" if bridge_id else "another OMI_DATABASE_URL"
        raise LedgerBusy(f"another omi-bridge runs{named} on this ledger: stop it, or give this one {remedy}")
    if not exclusive and not database.exists():
        msg = f"{server.shown} keeps no ledger yet: start `omi-bridge run`, or correct OMI_DATABASE_URL"
        raise LedgerMissing(msg)


def _read_id(database: LedgerDatabase) -> str:
    """Return the ledger's random id, made where it has none yet."""
    new = insert(MetaRow).values(key=LEDGER_ID, value=secrets.token_hex(16)).on_conflict_do_nothing()
    with database.writing() as connection:
        connection.execute(new)
        found: str = connection.execute(select(MetaRow.value).where(MetaRow.key == LEDGER_ID)).scalar_one()
        return found


def _lock(path: Path) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        msg = f"another omi-bridge already runs with {path.parent}: stop it, or give this one another --data-dir"
        raise LedgerBusy(msg) from None
    return lock
