"""The bridges that run on a ledger on a server, by their beats there: who is live is judged by the server's clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Double, bindparam, cast, delete, extract, func, select, text, update

from vps_bridge.database_server import name_connections
from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.tables import BridgeRow, TombstoneRow
from vps_bridge.rules.ownership import BridgePlaces, KnownBridge

MEMBERS = "members"
"""Whoever joins locks it, so that of two that may not run together one sees the other."""

_NOW = cast(extract("epoch", func.clock_timestamp()), Double)  # Unix time, of the one clock that all bridges share
# Statements are made once: making one costs several times what running it does.
_ALL = select(
    BridgeRow.bridge_id,
    BridgeRow.instance_id,
    BridgeRow.ready,
    (BridgeRow.live_until - _NOW).label("left_s"),
    BridgeRow.places,
).order_by(BridgeRow.bridge_id)
_NEW = insert(BridgeRow).values(
    bridge_id=bindparam("by_bridge"),
    instance_id=bindparam("by_instance"),
    ready=bindparam("is_ready"),
    live_until=_NOW + bindparam("life_s"),
    places=bindparam("its_places", type_=BridgeRow.places.type),
)
_PUT = _NEW.on_conflict_do_update(
    index_elements=[BridgeRow.bridge_id],
    set_={name: _NEW.excluded[name] for name in ("instance_id", "ready", "live_until", "places")},
)
_THIS = BridgeRow.bridge_id == bindparam("by_bridge"), BridgeRow.instance_id == bindparam("by_instance")
_LEAVE = delete(BridgeRow).where(*_THIS)
_UNREADY = update(BridgeRow).where(*_THIS).values(ready=False)
_IS_LIVE = select(BridgeRow.bridge_id).where(*_THIS, BridgeRow.live_until > _NOW)
_DROP_DEAD = delete(BridgeRow).where(BridgeRow.live_until <= _NOW)
# Of our own user alone: a connection of another one is not ours to end.
_HANG_UP_ON = text(
    "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
    "WHERE usename = current_user AND datname = current_database() AND application_name IN :names"
).bindparams(bindparam("names", expanding=True))
_DOUBT = update(TombstoneRow).where(TombstoneRow.deleted_at >= bindparam("since")).values(finished=False)


class BridgeBook:
    """The bridges of a ledger on a server. A ledger in a file has one bridge, which writes nothing here."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def all(self) -> list[KnownBridge]:
        """Return every bridge that did not take its leave, dead ones too, by id."""
        with self._database.reading() as connection:
            return [_to_known(row) for row in connection.execute(_ALL)]

    def join(self, own: KnownBridge) -> list[KnownBridge]:
        """Write a bridge down, with `left_s` as its life; return those that were there, one of its own id too."""
        with self._database.writing(MEMBERS) as connection:
            before = [_to_known(row) for row in connection.execute(_ALL)]
            connection.execute(_PUT, _values(own))
        return before

    def beat(self, own: KnownBridge) -> bool:
        """Say that a bridge is live for another `left_s`; return whether it was until now: others may have acted."""
        with self._database.writing() as connection:
            was_live = connection.execute(_IS_LIVE, _values(own)).first() is not None
            connection.execute(_PUT, _values(own))
        return was_live

    def leave(self, bridge_id: str, instance_id: str) -> None:
        """Take a bridge out: it stops, or may not run."""
        with self._database.writing() as connection:
            connection.execute(_LEAVE, {"by_bridge": bridge_id, "by_instance": instance_id})

    def note_deaf(self, bridge_id: str, instance_id: str) -> None:
        """Note that a bridge hears nothing any more, as its will says; if it does, its next beat tells."""
        with self._database.writing() as connection:
            connection.execute(_UNREADY, {"by_bridge": bridge_id, "by_instance": instance_id})

    def drop_dead(self, bridge_ids: Collection[str]) -> int:
        """Forget the bridges whose beats ceased, these and others; return how many this call did.

        First their connections are ended: one that hangs would keep others from what it has locked.
        """
        names = [name_connections(bridge_id) for bridge_id in bridge_ids]
        with self._database.writing() as connection:
            connection.execute(_HANG_UP_ON, {"names": names}).all()
            return connection.execute(_DROP_DEAD).rowcount

    def doubt_deletions(self, since: float) -> int:
        """Have deletions since a Unix time done once more: a bridge died that may have put audio meanwhile."""
        with self._database.writing() as connection:
            return connection.execute(_DOUBT, {"since": since}).rowcount


def _values(own: KnownBridge) -> dict[str, Any]:
    places = {"shared": dict(own.places.shared), "alone": sorted(own.places.alone)}
    ids = {"by_bridge": own.bridge_id, "by_instance": own.instance_id}
    return {**ids, "is_ready": own.is_ready, "life_s": own.left_s, "its_places": places}


def _to_known(row: Sequence[Any]) -> KnownBridge:
    bridge_id, instance_id, ready, left_s, places = row
    found = BridgePlaces(places.get("shared", {}), frozenset(places.get("alone", ())))
    return KnownBridge(bridge_id, instance_id, bool(ready), left_s, found)
