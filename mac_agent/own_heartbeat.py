"""The agent's own heartbeat: what it says now, and when it is to be sent."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mac_agent.heartbeat import BeatContent, list_versions, make_heartbeat, measure_memory
from mac_agent.result import describe_engine
from schemas.agent import AgentHeartbeat, AgentState

if TYPE_CHECKING:
    from collections.abc import Callable

    from mac_agent.engines.engine import EngineInfo
    from mac_agent.heartbeat import AgentCounters, AgentIdentity
    from mac_agent.held_jobs import HeldJobs
    from mac_agent.worker import Worker
    from schemas.turns import EngineDescription

DETAIL_PAUSE_S = 0.25  # the progress of held jobs is sent no more often; what the bridge acts on is sent at once


class OwnHeartbeat:
    """What the agent reports of itself, from its state, its jobs and its worker. Used by one thread.

    Args:
        identity: which process it is.
        counters: what the process did so far.
        held_jobs: the jobs it holds.
        worker: the worker process.
        engine_reason: why it runs this engine; part of every heartbeat.
        heartbeat_s: the longest pause between two heartbeats.
    """

    def __init__(
        self,
        identity: AgentIdentity,
        counters: AgentCounters,
        held_jobs: HeldJobs,
        worker: Worker,
        *,
        engine_reason: str,
        heartbeat_s: float,
    ) -> None:
        self._identity, self._counters, self._held_jobs, self._worker = identity, counters, held_jobs, worker
        self._engine_reason, self._mode_reason, self._heartbeat_s = engine_reason, "", heartbeat_s
        self._versions = list_versions()
        self._due_s = 0.0
        self._sent: BeatContent | None = None
        self._sent_s = 0.0
        self._not_before_s = 0.0
        self._engine: EngineDescription | None = None
        self.state = AgentState.STARTING
        """What the agent says it is."""

    def note_engine(self, info: EngineInfo) -> EngineDescription:
        """Note that the engine is loaded, go from starting to online, and return the engine as messages describe it."""
        self._engine, self._mode_reason = describe_engine(info), info.mode_reason
        if self.state is AgentState.STARTING:
            self.state = AgentState.ONLINE
        return self._engine

    def send_soon(self) -> None:
        """Let the next heartbeat be due at once."""
        self._due_s = self._not_before_s = 0.0

    def send_if_due(self, send: Callable[[AgentHeartbeat], bool], *, is_connected: bool) -> None:
        """Send a heartbeat where it is due by the clock, or because what it reports has changed.

        Without a connection nothing is sent: a new connection makes it due. One that could not be sent is tried again
        after the longest pause, whatever changes meanwhile.
        """
        now_s = time.monotonic()
        if now_s < self._not_before_s:
            return
        content = self._content()
        can_wait = not content.is_urgent(self._sent) and now_s < self._sent_s + DETAIL_PAUSE_S
        if now_s < self._due_s and (can_wait or content == self._sent):
            return
        if not is_connected:
            return
        self._due_s = now_s + self._heartbeat_s
        if send(self.make()):
            self._sent, self._sent_s = content, now_s
        else:
            self._not_before_s = self._due_s

    def make(self) -> AgentHeartbeat:
        """Return the heartbeat as it would be sent now."""
        worker = self._worker
        return make_heartbeat(
            self._identity,
            self.state,
            datetime.now(UTC),
            jobs=self._held_jobs.held_jobs(),
            free_capacity=self._free_capacity(),
            engine=self._engine,
            counters=self._counters,
            memory=measure_memory(worker.pid, worker.memory.device_bytes if worker.memory else 0),
            versions=self._versions,
            notes=self._notes(),
        )

    def _content(self) -> BeatContent:
        jobs = tuple((job.lease_id, job.state) for job in self._held_jobs.held_jobs())
        return BeatContent(self.state, self._free_capacity(), jobs, self._notes())

    def _free_capacity(self) -> int:
        """Return how many jobs the bridge may offer: none while no engine is loaded, unless one is back in seconds."""
        takes_jobs = self.state is AgentState.ONLINE and (self._worker.info is not None or self._worker.is_recycling)
        return self._held_jobs.free_places if takes_jobs else 0

    def _notes(self) -> dict[str, str]:
        worker = self._worker
        again = "is being" if worker.is_recycling else "was"
        recycled = f"{again} started again between jobs, {worker.recycles} times so far: {worker.recycled_for}"
        disk = "full: takes no job until there is room for the last one" if self._held_jobs.is_disk_full else ""
        return {
            "engine": self._engine_reason,
            "mode": self._mode_reason,
            "worker": recycled if worker.recycles else "",
            "disk": disk,
        }
