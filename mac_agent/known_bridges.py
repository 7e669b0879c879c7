"""The bridges that are alive on this broker, and what an operator reads in the log of an agent that gets no work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from schemas.bridge import BridgeHeartbeat, BridgeState

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger("mac_agent")
SILENCE_S = 30.0  # three heartbeats of a bridge


class KnownBridges:
    """Live bridges by their id. Every beat of them passes through here."""

    def __init__(self, agent_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._agent_id, self._clock = agent_id, clock
        self._instances: dict[str, str] = {}
        self._waiting: set[str] = set()
        self._quiet_since_s: float | None = None

    def forget(self) -> None:
        """Begin anew: which of them are on this broker, their next live heartbeats show."""
        self._instances.clear()
        self._quiet_since_s = self._clock()

    def is_new(self, beat: BridgeHeartbeat) -> bool:
        """Take in a live heartbeat; say whether its bridge is one that was not there before."""
        is_known = self._instances.get(beat.bridge_id) == beat.instance_id
        if beat.state is not BridgeState.ONLINE:
            if is_known:  # the will of an instance before it may come late
                del self._instances[beat.bridge_id]
                self._quiet_since_s = self._clock()
            return False
        self._quiet_since_s = None
        self._instances[beat.bridge_id] = beat.instance_id
        self._note_permission(beat)
        return not is_known

    def _note_permission(self, beat: BridgeHeartbeat) -> None:
        """Tell once that nobody allowed this agent, and once that somebody did."""
        is_waiting = self._agent_id in beat.agents_waiting
        if is_waiting == (beat.bridge_id in self._waiting):
            return
        if is_waiting:
            self._waiting.add(beat.bridge_id)
            remedy = f"on the bridge's machine: omi-bridge agents allow {self._agent_id}"
            _log.warning("not allowed: this agent gets no audio", bridge=beat.bridge_id, remedy=remedy)
        else:
            self._waiting.discard(beat.bridge_id)
            _log.info("allowed", bridge=beat.bridge_id)

    def tell_silence(self, *, is_connected: bool) -> None:
        """Log, once, that no bridge was heard for a while although the broker is there."""
        since_s = self._quiet_since_s
        if is_connected and not self._instances and since_s is not None and self._clock() - since_s >= SILENCE_S:
            self._quiet_since_s = None
            remedy = "on its machine: systemctl status omi-bridge, or omi-bridge doctor"
            _log.warning("no bridge is alive on this broker: no work comes", remedy=remedy)
