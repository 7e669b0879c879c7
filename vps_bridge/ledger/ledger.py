"""Opening the ledger: one live bridge per directory, everyone else reads."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from vps_bridge.database import DAMAGE_ERRORS, Database, DatabaseUnreadable, open_database, reason_of
from vps_bridge.ledger.agents import AgentBook
from vps_bridge.ledger.chunks import ChunkBook
from vps_bridge.ledger.conversation_events import EventBook
from vps_bridge.ledger.conversations import ConversationBook
from vps_bridge.ledger.corrections import CorrectionBook
from vps_bridge.ledger.erasure_log import ErasureLog
from vps_bridge.ledger.jobs import JobBook
from vps_bridge.ledger.kept_voices import KeptVoices
from vps_bridge.ledger.leases import LeaseBook
from vps_bridge.ledger.listing import Listing
from vps_bridge.ledger.measures import Measures
from vps_bridge.ledger.omi_conversations import OmiBook
from vps_bridge.ledger.operator_actions import OperatorActions
from vps_bridge.ledger.packing import PackBook
from vps_bridge.ledger.people import PeopleBook
from vps_bridge.ledger.refusals import RefusalBook
from vps_bridge.ledger.tables import MetaRow
from vps_bridge.ledger.webhook_outbox import WebhookBook

MIGRATIONS = Path(__file__).parent / "migrations"
FILE_NAME = "ledger.sqlite3"
LEDGER_ID = "ledger_id"


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

    def __init__(self, root: Path, *, exclusive: bool, sync_commits: bool | None = None) -> None:
        """Open the ledger below `root`; the running bridge takes it exclusively, commands share it.

        `sync_commits`: whether a transaction is on disk when it returns; by default those of commands are.

        Raises `LedgerBusy` where another bridge runs on it, `LedgerMissing` where a command finds none, and
        `vps_bridge.database.DatabaseError` where the file cannot be used.
        """
        self.root = root
        path = root / FILE_NAME
        self._lock: FileLock | None = None
        if exclusive:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(root / "ledger.lock")
        elif not path.exists():
            msg = f"no bridge has run with {root} yet: start `omi-bridge run`, or name its --data-dir"
            raise LedgerMissing(msg)
        syncs = not exclusive if sync_commits is None else sync_commits
        self._database = open_database(path, MIGRATIONS, sync_commits=syncs)
        try:
            self.ledger_id = self._read_id()
            self.erasures = ErasureLog(root, self.ledger_id)
            if exclusive:
                self.erasures.begin()
            self._open_books(self._database)
        except DAMAGE_ERRORS as error:
            self._database.close()
            raise DatabaseUnreadable(path, reason_of(error)) from error

    def _read_id(self) -> str:
        """Return the ledger's id, given to it at first."""
        new = insert(MetaRow).values(key=LEDGER_ID, value=secrets.token_hex(16)).on_conflict_do_nothing()
        with self._database.writing() as connection:
            connection.execute(new)
            return connection.execute(select(MetaRow.value).where(MetaRow.key == LEDGER_ID)).scalar_one()

    def _open_books(self, database: Database) -> None:
        """Open what reads and writes the tables; some of it reads them now."""
        self.conversations = ConversationBook(database, self.erasures)
        self.chunks = ChunkBook(database)
        self.events = EventBook(database)
        self.corrections = CorrectionBook(database)
        self.people = PeopleBook(database, self.erasures)
        self.jobs = JobBook(database)
        self.leases = LeaseBook(database)
        self.agents = AgentBook(database, self.erasures)
        self.operator_actions = OperatorActions(database, self.erasures)
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

    def free_bytes(self) -> int:
        """Return how much room the ledger's disk has left."""
        return shutil.disk_usage(self.root).free

    def close(self) -> None:
        """Close the database and let go of the lock."""
        self.sync()
        self._database.close()
        if self._lock is not None:
            self._lock.release()


def _lock(path: Path) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        msg = f"another omi-bridge already runs with {path.parent}: stop it, or give this one another --data-dir"
        raise LedgerBusy(msg) from None
    return lock
