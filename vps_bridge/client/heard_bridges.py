"""The bridges whose heartbeats came: of several on one ledger it is enough that one lives and takes audio."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from schemas.bridge import BridgeHeartbeat, BridgeState

FRESH_BEAT_S = 30.0
MAX_BRIDGES = 16  # those heard last


class HeardBridges:
    """The latest heartbeat of each bridge. Used by one thread."""

    def __init__(self) -> None:
        """Start without one."""
        self._beats: dict[str, tuple[float, BridgeHeartbeat]] = {}  # the one heard last is the last

    def note(self, beat: BridgeHeartbeat, heard_s: float, *, retained: bool) -> None:
        """Note a heartbeat. Of a bridge whose clock is far from ours, before or behind, only a live one counts."""
        if retained and abs((datetime.now(UTC) - beat.sent_at).total_seconds()) > FRESH_BEAT_S:
            return
        self._beats.pop(beat.bridge_id, None)
        self._beats[beat.bridge_id] = heard_s, beat
        if len(self._beats) > MAX_BRIDGES:
            del self._beats[next(iter(self._beats))]

    @property
    def last(self) -> BridgeHeartbeat | None:
        """The heartbeat that came last of those that say most: from a bridge that takes audio, or that runs."""
        kept = [beat for _, beat in self._beats.values()]
        running = [beat for beat in kept if beat.state is BridgeState.ONLINE]
        found = [beat for beat in running if beat.accepting] or running or kept
        return found[-1] if found else None

    def find_accepting(self) -> BridgeHeartbeat | None:
        """Return the last heartbeat of a bridge that lives and takes audio."""
        oldest_s = time.monotonic() - FRESH_BEAT_S
        fresh = [beat for heard_s, beat in self._beats.values() if heard_s >= oldest_s]
        return next((beat for beat in reversed(fresh) if beat.state is BridgeState.ONLINE and beat.accepting), None)
