"""Which bridges run on this ledger, and which of them owns a conversation or an agent.

Whoever becomes an owner acts at once; whoever ceases to be one acts until it knows. So when bridges come and go, two
may do a thing for a moment, which the ledger allows once, and at no moment does nobody.
"""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from schemas.bridge import BridgeHeartbeat, BridgeState
from vps_bridge.ledger import Ledger, LedgerBusy
from vps_bridge.rules.ownership import (
    LIFE_BEATS,
    BridgePlaces,
    KnownBridge,
    choose_owner,
    choose_owners,
    find_obstacle,
)
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
LOOK_S = 0.5
START_S = 120.0  # a bridge that opens its files beats only then, and owns nothing meanwhile
MEMBERS = "members"
"""What bridges tell each other when one comes, goes, or hears nothing any more."""
HOUSEKEEPING = "housekeeping"
"""What one of the bridges does for all: it has the owner that a conversation of this id would have."""
DOUBTED_S = 3_600.0  # far longer than a chunk is on its way into the bucket


class Membership:
    """The bridges of one ledger, as this one knows them. A ledger in a file has one bridge, which owns all.

    `owns` may be called from any thread, everything else from the bridge's own.
    """

    def __init__(self, settings: BridgeSettings, ledger: Ledger, instance_id: str, places: BridgePlaces) -> None:
        """Write this bridge down. Raises `LedgerBusy` where it may not run beside another that is live."""
        self._ledger, self._is_shared_ledger = ledger, ledger.is_on_server
        self._beat_s = settings.heartbeat_s
        life_s = settings.heartbeat_s * LIFE_BEATS
        self._own = KnownBridge(settings.bridge_id, instance_id, is_ready=False, left_s=life_s, places=places)
        self._owners: tuple[str, ...] = ()
        self._others: dict[str, str] = {}  # the instances of the others that are live, by id
        self._beat_due_s = self._look_due_s = self._judges_s = 0.0
        self._has_left = False
        if self._is_shared_ledger:
            self._join()

    def _join(self) -> None:
        before = self._ledger.bridges.join(replace(self._own, left_s=self._own.left_s + START_S))
        others = [bridge for bridge in before if bridge.bridge_id != self._own.bridge_id]
        if len(others) < len(before):
            self._doubt_deletions()  # an earlier run of this bridge did not take its leave
        obstacle = find_obstacle(self._own.places, others)
        if obstacle is not None:
            self._ledger.bridges.leave(self._own.bridge_id, self._own.instance_id)
            raise LedgerBusy(obstacle)
        self._see(others)

    @property
    def others(self) -> dict[str, str]:
        """The instances of the other bridges that are live, by id."""
        return self._others

    def owns(self, name: str) -> bool:
        """Whether this bridge is the owner of a conversation or an agent."""
        owners = self._owners
        return not owners or choose_owner(name, owners) == self._own.bridge_id

    def look(self, now_s: float, *, is_ready: bool, at_once: bool = False) -> bool:
        """Beat where that is due, and see who is there; return whether the owners are others than before.

        `is_ready`: whether this bridge hears what is published.
        """
        if not self._is_shared_ledger or self._has_left:
            return False
        was_live = True
        if is_ready != self._own.is_ready or now_s >= self._beat_due_s:
            was_live = self._beat(now_s, is_ready=is_ready)
        elif now_s < self._look_due_s and not at_once:
            return False
        if not was_live:  # the server may have been away for all of us: each has a life to come back
            self._judges_s = now_s + self._own.left_s
        found = self._read(now_s)
        if was_live:
            self._look_due_s = now_s + LOOK_S
            return self._see(found)
        # Others have acted in our place. We own nothing for this moment: what is ours is taken up anew at the next.
        self._look_due_s = 0.0
        return self._see([bridge for bridge in found if bridge.bridge_id != self._own.bridge_id])

    def _beat(self, now_s: float, *, is_ready: bool) -> bool:
        """Write a beat; return whether this bridge was live until now."""
        is_new = is_ready != self._own.is_ready
        own = replace(self._own, is_ready=is_ready)
        was_live = self._ledger.bridges.beat(own)
        if not was_live:
            _LOG.warning("taken_for_dead", remedy="look at this machine's load, and at the way to the ledger's server")
        self._own, self._beat_due_s = own, now_s + self._beat_s
        if is_new or not was_live:
            self._ledger.tell(MEMBERS)
        return was_live

    def _read(self, now_s: float) -> list[KnownBridge]:
        """Return all bridges, this one too; see to those that died, and to our own place in the list."""
        found = self._ledger.bridges.all()
        own = next((bridge for bridge in found if bridge.instance_id == self._own.instance_id), None)
        is_live = own is not None and own.is_live
        if own is None or not is_live or own.is_ready != self._own.is_ready:
            self._beat_due_s = 0.0  # somebody took us for dead, or for deaf, or the server's clock was set
        dead = [bridge.bridge_id for bridge in found if not bridge.is_live]
        may_judge = is_live and now_s >= self._judges_s
        if dead and may_judge and self._ledger.bridges.drop_dead(dead):
            _LOG.warning("bridges_died", bridges=dead)
            self._doubt_deletions()
        return found

    def _see(self, found: list[KnownBridge]) -> bool:
        live = [bridge for bridge in found if bridge.is_live]
        self._others = {each.bridge_id: each.instance_id for each in live if each.bridge_id != self._own.bridge_id}
        owners = choose_owners(live) if self._others else ()
        if owners == self._owners:
            return False
        _LOG.info("owners", bridges=owners or (self._own.bridge_id,))
        self._owners = owners
        return True

    def _doubt_deletions(self) -> None:
        """Have what was deleted lately deleted once more: who died may have put audio of it into the bucket since."""
        if self._own.places.shared.get("spool_url") is not None:
            self._ledger.bridges.doubt_deletions(time.time() - DOUBTED_S)

    def is_of_peer(self, beat: BridgeHeartbeat) -> bool:
        """Whether a heartbeat is another bridge's on this ledger, which runs beside this one."""
        is_ours = beat.ledger_id == self._ledger.ledger_id and self._is_shared_ledger
        return is_ours and beat.instance_id != self._own.instance_id

    def note_beat(self, beat: BridgeHeartbeat) -> None:
        """Take in a live heartbeat of another bridge on this ledger.

        The will of one says that its connection is no more: it hears nothing, so it owns nothing until it says else.
        """
        if beat.state is BridgeState.OFFLINE and self._others.get(beat.bridge_id) == beat.instance_id:
            self._ledger.bridges.note_deaf(beat.bridge_id, beat.instance_id)
            self._ledger.tell(MEMBERS)
            self._look_due_s = 0.0

    def leave(self) -> None:
        """Take leave of the others, who take over at once.

        What this bridge owned it goes on doing until it ends: the others may not have seen it yet.
        """
        if not self._is_shared_ledger:
            return
        self._has_left = True
        self._ledger.bridges.leave(self._own.bridge_id, self._own.instance_id)
        self._ledger.tell(MEMBERS)
        self._ledger.sync()
