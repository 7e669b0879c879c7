"""The bridges an agent hears. Why no work comes is said in the log: there is no bridge, or it does not allow us."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from schemas.bridge import BridgeState

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.bridge import BridgeHeartbeat

SILENT_S = 35.0  # three intervals of the bridge's heartbeats, and a margin
_log = structlog.get_logger(__name__)


class HeardBridges:
    """Which bridges beat on this connection. Used by the agent's own thread.

    Args:
        agent_id: this agent's, as bridges list it.
        clock: monotonic seconds.
    """

    def __init__(self, agent_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._agent_id, self._clock = agent_id, clock
        self._instances: dict[str, str] = {}
        self._heard_s: float | None = None
        self._is_silence_told = self._is_waiting_told = False

    def begin_connection(self) -> None:
        """Forget them: which of them are on this broker, their next live heartbeats show."""
        self._instances.clear()
        self._heard_s, self._is_silence_told = self._clock(), False

    def take(self, beat: BridgeHeartbeat) -> bool:
        """Take in a live heartbeat; return whether it shows a bridge that is new, or is back."""
        is_known = self._instances.get(beat.bridge_id) == beat.instance_id
        if beat.state is not BridgeState.ONLINE:
            if is_known:  # the will of an instance before it may come late
                del self._instances[beat.bridge_id]
            return False
        self._heard_s, self._is_silence_told = self._clock(), False
        self._tell_permission(beat)
        self._instances[beat.bridge_id] = beat.instance_id
        return not is_known

    def tell_silence(self) -> None:
        """Say once that no bridge is heard, after a while."""
        if self._heard_s is None or self._is_silence_told or self._clock() - self._heard_s < SILENT_S:
            return
        self._is_silence_told = True
        remedy = "start it on the VPS (systemctl start omi-bridge); is it on this broker? omi-agent doctor"
        _log.warning("no live bridge: nothing to do", silent_s=round(self._clock() - self._heard_s), remedy=remedy)

    def _tell_permission(self, beat: BridgeHeartbeat) -> None:
        is_waiting = self._agent_id in beat.agents_waiting
        if is_waiting and not self._is_waiting_told:
            remedy = f"on the VPS: omi-bridge agents allow {self._agent_id}"
            _log.warning("not allowed yet: the bridge gives this agent no audio", bridge=beat.bridge_id, remedy=remedy)
        elif self._is_waiting_told and not is_waiting and self._agent_id in beat.agents_live_ids:
            _log.info("allowed", bridge=beat.bridge_id)
        self._is_waiting_told = is_waiting
