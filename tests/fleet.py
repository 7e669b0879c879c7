"""Many agents in one process: real sessions on a real broker, and engines that only take their time.

Each does what `omi-agent` does as far as the bridge can see: it beats, pulls the audio of what it is offered, works on
one job after the other at its own speed, and offers a result until it is settled.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from broker.errors import BrokerError
from broker.session import Farewell, Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.agent import (
    AgentControl,
    AgentHeartbeat,
    AgentState,
    AgentWant,
    ByteRange,
    ControlType,
    HeldJob,
    HeldJobState,
)
from schemas.audio import AudioPart
from schemas.codec import decode, encode
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from schemas.turns import ChunkSpan, EngineDescription, SpeakerTurns
from tests.inbox import WAIT_S

TOPICS = Topics()
PLACES = 8  # as `OMI_MAX_JOBS`
TICK_S = 0.02
OFFER_RETRY_S, RETRY_MAX_S = 15.0, 300.0  # as the agent's settings
ENGINE = EngineDescription(name="fleet", embedding_model="none", embedding_revision="1")
DEFAULT_S = 10.0  # of a job whose offer says nothing about its length


@dataclass
class _Job:
    offer: AgentControl
    audio_s: float
    missing: set[str]
    parts: dict[str, dict[int, int]] = field(default_factory=dict)
    """Of each chunk the bytes that came, by their offset."""
    state: HeldJobState = HeldJobState.RECEIVING
    until_s: float = 0.0
    due_s: float = 0.0
    pause_s: float = OFFER_RETRY_S
    result: bytes = b""


@dataclass
class FleetAgent:
    """One agent; its fleet's thread drives it."""

    agent_id: str
    speed_x: float
    session: MqttSession = field(init=False)
    state: AgentState = AgentState.ONLINE
    instance_id: str = field(default_factory=lambda: f"i-{uuid.uuid4().hex}")
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    jobs: dict[str, _Job] = field(default_factory=dict)
    arrived: deque[Incoming] = field(default_factory=deque)
    done_s: float = 0.0
    """Seconds of audio whose result was settled."""
    settled: list[str] = field(default_factory=list)
    finished_s: float = 0.0
    """Seconds of audio that its engine is done with."""
    beat_due_s: float = 0.0
    told: tuple[object, ...] = ()
    connects: list[float] = field(default_factory=list)

    @property
    def free(self) -> int:
        active = sum(job.state is not HeldJobState.OUTBOX for job in self.jobs.values())
        return PLACES - active if self.state is AgentState.ONLINE else 0

    def worked_s(self, now_s: float) -> float:
        """Return the seconds of audio that its engine has worked through, its running job's too."""
        running = [job for job in list(self.jobs.values()) if job.state is HeldJobState.RUNNING]
        left_s = sum(max(0.0, job.until_s - now_s) * self.speed_x for job in running)
        return self.finished_s + sum(job.audio_s for job in running) - left_s


class Fleet:
    """Agents with their speeds (by id), in times real time. `with` connects them and lets them beat."""

    def __init__(
        self, settings: Callable[[str], BrokerSettings], speeds: Mapping[str, float], *, heartbeat_s: float = 2.0
    ) -> None:
        self.agents = {name: FleetAgent(name, speed) for name, speed in speeds.items()}
        self._settings, self._heartbeat_s = settings, heartbeat_s
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self.problems: list[BaseException] = []
        for agent in self.agents.values():
            self._prepare(agent)

    def _prepare(self, agent: FleetAgent) -> None:
        def note_connect() -> None:
            agent.connects.append(time.monotonic())
            agent.beat_due_s = 0.0
            for job in list(agent.jobs.values()):
                job.due_s, job.pause_s = 0.0, OFFER_RETRY_S

        agent.session = MqttSession(
            self._settings(f"agent:{agent.agent_id}"),
            client_id=f"{agent.agent_id}-{agent.instance_id[:10]}",
            on_message=agent.arrived.append,
            on_connect=note_connect,
        )
        agent.session.subscribe(TOPICS.control(agent.agent_id))
        agent.session.subscribe(TOPICS.filter(TopicKind.PARTS, sender_id=agent.agent_id))

    def __enter__(self) -> Self:
        for agent in self.agents.values():
            agent.session.start()
        for agent in self.agents.values():
            agent.session.wait_connected(WAIT_S)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join(WAIT_S)
        for agent in self.agents.values():
            agent.jobs.clear()
            farewell = encode(self._beat(agent, AgentState.STOPPED))
            agent.session.stop(Farewell(TOPICS.agent_heartbeat(agent.agent_id), farewell, retain=True), timeout_s=2.0)

    def restart(self, agent_id: str) -> None:
        """Kill an agent and start another process of it: what it worked on is gone, what it had finished is kept."""
        with self._lock:
            old = self.agents[agent_id]
            new = FleetAgent(agent_id, old.speed_x, done_s=old.done_s, settled=old.settled)
            new.jobs = {name: job for name, job in old.jobs.items() if job.state is HeldJobState.OUTBOX}
            self._prepare(new)
            self.agents[agent_id] = new
        old.session.stop()
        new.session.start()
        new.session.wait_connected(WAIT_S)

    # -------------------------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        try:
            while not self._ended.wait(TICK_S):
                with self._lock:
                    agents = list(self.agents.values())
                for agent in agents:
                    while agent.arrived:
                        self._take(agent, agent.arrived.popleft())
                    self._work(agent, time.monotonic())
        except BaseException as error:  # noqa: BLE001 - the test asks for it
            self.problems.append(error)

    def _take(self, agent: FleetAgent, message: Incoming) -> None:
        if TOPICS.parse(message.topic).kind is TopicKind.PARTS:
            self._take_part(agent, decode(AudioPart, message.payload))
            return
        control = decode(AgentControl, message.payload)
        job = agent.jobs.get(control.job_id or "")
        match control.type:
            case ControlType.OFFER:
                self._take_offer(agent, control, job)
            case ControlType.SETTLED | ControlType.CANCEL if job is not None:
                del agent.jobs[control.job_id or ""]
                if control.type is ControlType.SETTLED:
                    agent.settled.append(control.job_id or "")
                    agent.done_s += job.audio_s
            case ControlType.DRAIN:
                agent.state = AgentState.DRAINING
            case _:
                pass

    def _take_offer(self, agent: FleetAgent, offer: AgentControl, job: _Job | None) -> None:
        if job is not None:
            job.offer = offer if job.state is not HeldJobState.OUTBOX else job.offer
            job.due_s = 0.0
        elif agent.free > 0:
            audio_s = offer.expected_s * agent.speed_x or DEFAULT_S
            agent.jobs[offer.job_id or ""] = _Job(offer, audio_s, {chunk.chunk_id for chunk in offer.chunks})

    def _take_part(self, agent: FleetAgent, part: AudioPart) -> None:
        job = agent.jobs.get(part.job_id)
        if job is None or job.state is not HeldJobState.RECEIVING:
            return
        if hashlib.sha256(part.audio).hexdigest() == part.part_sha256:
            parts = job.parts.setdefault(part.chunk_id, {})
            parts[part.byte_offset] = len(part.audio)
            if sum(parts.values()) >= part.total_bytes:
                job.missing.discard(part.chunk_id)
        if not job.missing:
            job.state = HeldJobState.QUEUED

    def _work(self, agent: FleetAgent, now_s: float) -> None:
        if not agent.session.connected:
            return
        running = next((job for job in agent.jobs.values() if job.state is HeldJobState.RUNNING), None)
        if running is not None and now_s >= running.until_s:
            running.state, running.result = HeldJobState.OUTBOX, encode(_result(agent, running))
            running.due_s, running.pause_s = 0.0, OFFER_RETRY_S
            agent.finished_s += running.audio_s
            running = None
        if running is None:
            waiting = next((job for job in agent.jobs.values() if job.state is HeldJobState.QUEUED), None)
            if waiting is not None:
                waiting.state, waiting.until_s = HeldJobState.RUNNING, now_s + waiting.audio_s / agent.speed_x
        for job in list(agent.jobs.values()):
            if now_s >= job.due_s and job.state in (HeldJobState.RECEIVING, HeldJobState.OUTBOX):
                job.due_s, job.pause_s = now_s + job.pause_s, min(2 * job.pause_s, RETRY_MAX_S)
                self._send_of(agent, job)
        told = (agent.state, agent.free, tuple(agent.jobs))
        if now_s >= agent.beat_due_s or told != agent.told:
            agent.beat_due_s, agent.told = now_s + self._heartbeat_s, told
            self._send(
                agent, TOPICS.agent_heartbeat(agent.agent_id), encode(self._beat(agent, agent.state)), retain=True
            )

    def _send_of(self, agent: FleetAgent, job: _Job) -> None:
        offer = job.offer
        if job.state is HeldJobState.OUTBOX:
            self._send(agent, TOPICS.turns(offer.conversation_id or "", agent.agent_id), job.result)
            return
        for chunk in offer.chunks:
            if chunk.chunk_id in job.missing:
                whole = (ByteRange(start=0, end=chunk.bytes),)
                want: Message = AgentWant(
                    job_id=offer.job_id or "", lease_id=offer.lease_id or "", chunk_id=chunk.chunk_id, ranges=whole
                )
                self._send(agent, TOPICS.want(agent.agent_id), encode(want))

    def _send(self, agent: FleetAgent, topic: str, payload: bytes, *, retain: bool = False) -> None:
        try:
            agent.session.publish(topic, payload, retain=retain)
        except BrokerError:
            return  # offered again

    def _beat(self, agent: FleetAgent, state: AgentState) -> AgentHeartbeat:
        jobs = tuple(
            HeldJob(job_id=name, lease_id=job.offer.lease_id or "", state=job.state) for name, job in agent.jobs.items()
        )
        return AgentHeartbeat(
            agent_id=agent.agent_id,
            instance_id=agent.instance_id,
            state=state,
            sent_at=datetime.now(UTC),
            started_at=agent.started_at,
            engine=ENGINE,
            jobs=jobs,
            free_capacity=agent.free if state is AgentState.ONLINE else 0,
            speed_x_real_time=agent.speed_x,
        )


def _result(agent: FleetAgent, job: _Job) -> SpeakerTurns:
    """Return a result that says nobody spoke: what is measured here is who worked, not what was heard."""
    offer = job.offer
    each_s = job.audio_s / len(offer.chunks)
    return SpeakerTurns(
        conversation_id=offer.conversation_id or "",
        job_id=offer.job_id or "",
        lease_id=offer.lease_id or "",
        agent_id=agent.agent_id,
        engine=ENGINE,
        duration_s=job.audio_s,
        chunks=tuple(
            ChunkSpan(chunk_id=chunk.chunk_id, start_s=each_s * place, duration_s=each_s)
            for place, chunk in enumerate(offer.chunks)
        ),
        turns=(),
        exclusive_turns=(),
        speakers=(),
    )
