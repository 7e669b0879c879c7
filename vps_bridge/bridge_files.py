"""The files of a running bridge: opened in the order in which a full disk lets each be opened."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import NamedTuple, TypeVar

import structlog

from broker.backoff import Backoff
from vps_bridge.backup.erase_again import ErasedAgain, erase_restored
from vps_bridge.backup.make import remove_leftovers
from vps_bridge.compaction import make_shrinkable
from vps_bridge.conversations.open_store import open_store
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.errors import LedgerUnavailable
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.open_spool import open_spool
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.ledger.erasure_log import LOG_NAME, LOG_REMEDY, find_log_damage
from vps_bridge.opened import is_marked, mark_opened
from vps_bridge.rules.ownership import BridgePlaces
from vps_bridge.settings import BridgeSettings

T = TypeVar("T")
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 5.0
_LOG = structlog.get_logger(__name__)


def name_places(settings: BridgeSettings) -> BridgePlaces:
    """Return where a bridge keeps what others on its ledger have to have in common with it."""
    bucket = f"{settings.spool_endpoint or settings.spool_region} {settings.spool_url}" if settings.spool_url else None
    shared = {"spool_url": bucket, "conversations_url": settings.conversations_url, "topic_root": settings.topic_root}
    # What OMI sends waits on the disk of whoever took it for the conversation that it belongs to.
    alone = frozenset({"omi_http_port"} if settings.omi_http_port else ())
    return BridgePlaces({name: place and _digest(place) for name, place in shared.items()}, alone)


def _digest(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:16]


class BridgeFiles(NamedTuple):
    """What a bridge keeps on its disk, and its conversations, which may be elsewhere."""

    disk_reserve: DiskReserve
    ledger: Ledger
    spool: Spool
    store: ConversationStore

    def close(self) -> None:
        """Close everything, so that it can be opened again."""
        self.spool.close()
        self.ledger.close()
        self.store.close()


@contextmanager
def closed_on_error(files: BridgeFiles) -> Iterator[None]:
    """Leave them open, unless what follows fails."""
    try:
        yield
    except BaseException:
        files.close()
        raise


def open_files(
    settings: BridgeSettings, on_thread: Callable[[Callable[[], object]], object], join: Callable[[Ledger], None]
) -> BridgeFiles:
    """Open everything, made where it is missing. `on_thread` has something done by the bridge's own thread.

    `join` is called with the ledger before anything is done to what other bridges may share.

    Raises:
        LedgerBusy: another bridge has them, or runs beside which this one may not.
        vps_bridge.database.DatabaseError: a file cannot be used.
        SettingsError: the settings describe no store, or no bucket that can be used.
    """
    settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk_reserve = DiskReserve(settings.root, settings.ballast_bytes)
    disk_reserve.release_if_full()  # even opening a database takes some room
    _tell_erasures(settings)
    with ExitStack() as opened:
        ledger = _open_ledger(settings)
        opened.callback(ledger.close)
        disk_reserve.update()
        join(ledger)
        spool = open_spool(settings, ledger, on_thread)
        opened.callback(spool.close)
        store = open_store(settings)
        opened.callback(store.close)
        mark_opened(settings.root)
        remove_leftovers(settings.root)
        make_shrinkable(ledger, store)
        _erase_restored(ledger, spool, store)
        strays = spool.sweep(ledger.chunks.spool_names())
        opened.pop_all()
    _LOG.info("bridge_opened", ledger=ledger.ledger_id, root=str(settings.root), strays=strays)
    return BridgeFiles(disk_reserve, ledger, spool, store)


def _open_ledger(settings: BridgeSettings) -> Ledger:
    """Open the ledger, once the server that keeps it answers, if one does: both may have been started together."""
    return until_there(lambda: open_ledger(settings, exclusive=True, bridge_id=settings.bridge_id))


def _tell_erasures(settings: BridgeSettings) -> None:
    """Say where the log of erasures cannot be read, or is gone: a restore will not know what to erase again."""
    for damage in find_log_damage(settings.root):
        _LOG.error("erasures_unreadable", log=damage, remedy=LOG_REMEDY)
    log = settings.root / LOG_NAME
    if is_marked(settings.root) and settings.database_url is None and not log.exists():
        _LOG.error("erasures_lost", log=f"{log} is gone, and is begun anew", remedy=LOG_REMEDY)


def _erase_restored(ledger: Ledger, spool: Spool, store: ConversationStore) -> None:
    """Erase again what a restored dump brought back, and keep this bridge's copy of what is erased."""
    erased = erase_restored(ledger, spool, store)
    if erased != ErasedAgain():
        _LOG.warning("erased_again", reason="a dump from before was restored", **asdict(erased))
    ledger.copy_erasures()


def until_there(work: Callable[[], T]) -> T:
    """Do what needs the ledger's server, again and again until it is there. What failed must have left nothing open."""
    pauses = Backoff.start(MIN_PAUSE_S, MAX_PAUSE_S)
    while True:
        try:
            return work()
        except LedgerUnavailable as error:
            _LOG.warning("ledger_waits", reason=str(error), asked_again_s=round(pauses.pause_s, 1))
            time.sleep(pauses.jittered_s())
            pauses = pauses.longer()
