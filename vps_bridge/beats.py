"""The bridge's heartbeats while it serves: which agents live, what waits, and what an operator should know."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from schemas.agent import AgentHeartbeat
from schemas.bridge import BridgeState
from schemas.topics import Topics
from vps_bridge.admission import Admission
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.error_guard import ErrorGuard
from vps_bridge.errors import LedgerUnavailable
from vps_bridge.intake.disk_reserve import REMEDY, DiskReserve
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger
from vps_bridge.presence import Presence
from vps_bridge.publisher import Publisher
from vps_bridge.settings import BridgeSettings
from vps_bridge.webhook.sender import Webhook


class BeatSources(NamedTuple):
    """What a beat tells of. `read_until_s` returns the time up to which every message has been taken."""

    dispatcher: Dispatcher
    admission: Admission
    webhook: Webhook
    guard: ErrorGuard
    disk_reserve: DiskReserve
    spool: Spool
    read_until_s: Callable[[], float]


class BridgeBeats:
    """Makes and sends them. Runs on the bridge's own thread only."""

    def __init__(
        self,
        settings: BridgeSettings,
        ledger: Ledger,
        presence: Presence,
        publisher: Publisher,
        sources: BeatSources,
    ) -> None:
        """Tell of these."""
        self._settings, self._ledger, self._presence, self._publisher = settings, ledger, presence, publisher
        self._of = sources
        self.topic = Topics(settings.topic_root).bridge_heartbeat(settings.bridge_id)
        self._reported: tuple[tuple[list[str], list[str]], bool] = (([], []), True)

    def live_agents(self) -> list[AgentHeartbeat]:
        """Return the last beats of the agents that are live and allowed."""
        allowed = self._ledger.agents.allowed()
        return [beat for beat in self._live() if beat.agent_id in allowed]

    def has_news(self) -> bool:
        """Whether other agents are live or allowed than the last beat says, or the spool does otherwise."""
        return (self._name_agents(), self._of.spool.problem is None) != self._reported

    def publish(self) -> None:
        """Send a beat. Where the ledger cannot be asked, one that says so, and that no audio is accepted."""
        try:
            self._publish_counts()
        except LedgerUnavailable as error:
            # Whoever has audio keeps it until we accept again; agents keep the work that they have.
            beat = self._presence.make_beat(BridgeState.ONLINE)
            away = beat.model_copy(update={"last_error": f"the ledger: {error}"})
            self._publisher.send_ahead(self.topic, away, retain=True)
            raise

    def _publish_counts(self) -> None:
        (live, waiting), problem = self._name_agents(), self._of.spool.problem
        beat = self._presence.make_online_beat(
            live=live,
            waiting=waiting,
            counts=self._ledger.jobs.counts(),
            dropped=self._of.admission.dropped,
            has_room=self._of.disk_reserve.is_held and problem is None,
            webhook=self._of.webhook.describe(),
            last_error=(problem or self._of.guard.summary()) if self._of.disk_reserve.is_held else REMEDY,
        )
        self._reported = (live, waiting), problem is None
        self._publisher.send(self.topic, beat, retain=True)

    def _live(self) -> list[AgentHeartbeat]:
        views = self._of.dispatcher.roster.live(self._of.read_until_s(), self._settings.stale_s)
        return [view.heartbeat for view in views]

    def _name_agents(self) -> tuple[list[str], list[str]]:
        """Return the live agents: those that are allowed, and those that nobody has allowed yet."""
        live = sorted(beat.agent_id for beat in self._live())
        allowed = self._ledger.agents.allowed()
        return [name for name in live if name in allowed], [name for name in live if name not in allowed]
