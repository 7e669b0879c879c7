"""What the bridge knows of live agents, from their heartbeats that came without the retain flag."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from schemas.agent import AgentHeartbeat, AgentState, HeldJobState
from vps_bridge.rules.lease import AgentCapacity, AgentPresence, expected_s

_UP = (AgentState.STARTING, AgentState.ONLINE)
FORGOTTEN_S = 3_600.0  # far longer than any lease outlives its agent's last beat


@dataclass
class AgentView:
    """One agent, by its latest heartbeat. Times are monotonic seconds.

    `unlisted_beats` counts, for each current lease that its latest beats in a row did not list, those beats;
    `worked_s` says, for each lease it listed, how long its beats said that the job was running.
    """

    heartbeat: AgentHeartbeat
    last_beat_s: float
    offline_s: float | None = None
    unlisted_beats: dict[str, int] = field(default_factory=dict)
    worked_s: dict[str, float] = field(default_factory=dict)

    @property
    def state(self) -> AgentState:
        """The state in its last beat; `offline` once its will came."""
        return self.heartbeat.state if self.offline_s is None else AgentState.OFFLINE

    @property
    def presence(self) -> AgentPresence:
        """What the lease rules need."""
        state = self.heartbeat.state
        return AgentPresence(
            self.last_beat_s,
            self.offline_s,
            stopped=state is AgentState.STOPPED,
            draining=state is AgentState.DRAINING,
        )

    @property
    def embedding(self) -> tuple[str, str]:
        """Model and revision of the embeddings it makes."""
        engine = self.heartbeat.engine
        return (engine.embedding_model, engine.embedding_revision) if engine else ("", "")

    def count_unlisted(self, lease_ids: Iterable[str]) -> None:
        """Note which of its current leases the latest beat did not list."""
        self.unlisted_beats = {lease_id: self.unlisted_beats.get(lease_id, 0) + 1 for lease_id in lease_ids}


class AgentRoster:
    """The agents whose heartbeats came since the bridge started."""

    def __init__(self) -> None:
        """Start with nobody: a retained heartbeat proves nothing."""
        self._views: dict[str, AgentView] = {}

    def get(self, agent_id: str) -> AgentView | None:
        """Return an agent's view."""
        return self._views.get(agent_id)

    def note_beat(self, heartbeat: AgentHeartbeat, now_s: float) -> AgentView:
        """Take in a live beat; `offline` is a will: no sign of life, and it counts only for the instance it names."""
        view = self._views.get(heartbeat.agent_id)
        if view is None:
            self._forget_silent(now_s)
        if heartbeat.state is AgentState.OFFLINE:
            if view is None:
                view = self._views[heartbeat.agent_id] = AgentView(heartbeat, -math.inf, offline_s=now_s)
            elif view.heartbeat.instance_id == heartbeat.instance_id and view.offline_s is None:
                view.offline_s = now_s
            return view
        if view is None or view.heartbeat.instance_id != heartbeat.instance_id:
            view = self._views[heartbeat.agent_id] = AgentView(heartbeat, now_s)
        view.worked_s = _add_worked(view, heartbeat, now_s)
        view.heartbeat, view.last_beat_s, view.offline_s = heartbeat, now_s, None
        return view

    def _forget_silent(self, now_s: float) -> None:
        """Forget agents that were not heard for long: anyone at the broker can beat under ever new ids."""
        self._views = {
            agent_id: view
            for agent_id, view in self._views.items()
            if now_s - max(view.last_beat_s, view.offline_s or -math.inf) <= FORGOTTEN_S
        }

    def live(self, now_s: float, stale_s: float) -> list[AgentView]:
        """Return the agents that are up: their last beat is recent, they are connected, and they are not stopping."""
        return [
            view
            for view in self._views.values()
            if view.offline_s is None and now_s - view.last_beat_s <= stale_s and view.heartbeat.state in _UP
        ]

    def capacities(
        self, now_s: float, stale_s: float, allowed: frozenset[str], leases: Sequence[tuple[str, str, float]]
    ) -> list[AgentCapacity]:
        """Return the agents that may work now, those that are free for a job and those that are busy.

        `leases` are the current ones, (agent_id, lease_id, seconds of audio).
        """
        held: dict[str, list[tuple[str, float]]] = {}
        for agent_id, lease_id, audio_s in leases:
            held.setdefault(agent_id, []).append((lease_id, audio_s))
        return [
            _describe_capacity(view, held.get(view.heartbeat.agent_id, ()))
            for view in self.live(now_s, stale_s)
            if view.heartbeat.state is AgentState.ONLINE and view.heartbeat.agent_id in allowed
        ]


def _add_worked(view: AgentView, heartbeat: AgentHeartbeat, now_s: float) -> dict[str, float]:
    """Return for how long each lease's job has run: the time between two beats counts that both list it as running."""
    was_running = {job.lease_id for job in view.heartbeat.jobs if job.state is HeldJobState.RUNNING}
    worked_s = {}
    for job in heartbeat.jobs:
        ran = job.state is HeldJobState.RUNNING and job.lease_id in was_running
        worked_s[job.lease_id] = view.worked_s.get(job.lease_id, 0.0) + (now_s - view.last_beat_s if ran else 0.0)
    return worked_s


def _describe_capacity(view: AgentView, held: Sequence[tuple[str, float]]) -> AgentCapacity:
    beat = view.heartbeat
    listed = {job.lease_id for job in beat.jobs}
    return AgentCapacity(
        agent_id=beat.agent_id,
        free=beat.free_capacity - sum(lease_id not in listed for lease_id, _ in held),
        speed_x_real_time=beat.speed_x_real_time,
        embedding=view.embedding,
        held=len(held),
        held_s=sum(expected_s(audio_s, beat.speed_x_real_time) for _, audio_s in held),
    )
