"""What the bridge knows of the agents that are alive, from beats that proved life. Pure bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.agent import AgentHeartbeat, AgentState
from vps_bridge.lease import AgentPresence, Worker


@dataclass
class AgentView:
    """One agent as last heard. Times are monotonic seconds."""

    heartbeat: AgentHeartbeat
    last_beat_s: float
    offline_s: float | None = None
    granted_since_beat: int = 0
    unlisted_beats: dict[str, int] = field(default_factory=dict)

    @property
    def presence(self) -> AgentPresence:
        """What the lease rules need."""
        return AgentPresence(self.last_beat_s, self.offline_s, stopped=self.heartbeat.state is AgentState.STOPPED)

    @property
    def embedding(self) -> tuple[str, str]:
        """Model and revision of the embeddings it makes."""
        engine = self.heartbeat.engine
        return (engine.embedding_model, engine.embedding_revision) if engine else ("", "")


class AgentRoster:
    """The agents that were heard since the bridge started."""

    def __init__(self) -> None:
        """Start with nobody: a retained heartbeat proves nothing."""
        self._views: dict[str, AgentView] = {}

    def get(self, agent_id: str) -> AgentView | None:
        """Return an agent's view."""
        return self._views.get(agent_id)

    def note_beat(self, heartbeat: AgentHeartbeat, now_s: float) -> AgentView:
        """Take in a live beat; `offline` is a will and counts only for the instance it names."""
        view = self._views.get(heartbeat.agent_id)
        if heartbeat.state is AgentState.OFFLINE:
            if view is None:
                view = self._views[heartbeat.agent_id] = AgentView(heartbeat, now_s, offline_s=now_s)
            elif view.heartbeat.instance_id == heartbeat.instance_id and view.offline_s is None:
                view.offline_s = now_s
            return view
        if view is None or view.heartbeat.instance_id != heartbeat.instance_id:
            view = self._views[heartbeat.agent_id] = AgentView(heartbeat, now_s)
        view.heartbeat, view.last_beat_s, view.offline_s, view.granted_since_beat = heartbeat, now_s, None, 0
        return view

    def live(self, now_s: float, stale_s: float) -> list[AgentView]:
        """Return the agents that are up: heard of lately, connected, and not leaving."""
        states = (AgentState.STARTING, AgentState.ONLINE)
        return [
            view
            for view in self._views.values()
            if view.offline_s is None and now_s - view.last_beat_s <= stale_s and view.heartbeat.state in states
        ]

    def workers(self, now_s: float, stale_s: float, allowed: frozenset[str]) -> list[Worker]:
        """Return the agents that may and can take a job now."""
        return [
            Worker(
                agent_id=view.heartbeat.agent_id,
                free=view.heartbeat.free_capacity - view.granted_since_beat,
                speed_x_real_time=view.heartbeat.speed_x_real_time,
                embedding=view.embedding,
            )
            for view in self.live(now_s, stale_s)
            if view.heartbeat.state is AgentState.ONLINE and view.heartbeat.agent_id in allowed
        ]
