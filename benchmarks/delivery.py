"""The pipeline for a benchmark: real broker, bridge and agent processes, and a backend that measures times."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import secrets
import shutil
import sys
import threading
import time
import uuid
import wave
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil

from broker.session import Incoming, MqttSession
from demo.programs import DemoProgram, Programs, free_port
from schemas.agent import AgentHeartbeat, AgentState
from schemas.audio import AudioPayload
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated, EventType, TranscriptSegment, Verdict
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from tests.brokers import AGENT_ID, RunningBroker
from vps_bridge.ledger import Ledger

TOPICS = Topics()
RATE_HZ = 16_000
WHOLE_BYTES = 1_000_000  # a larger chunk is sent in parts, as `vps_bridge.client.client` does
PART_BYTES = 262_144
WAIT_S = 120.0
SEGMENTS = 6
# What bridge and agent log for each job, in the order of its steps.
SPANS = (
    ("bridge", "chunk_accepted", "accepted"),
    ("bridge", "job_ready", "a job"),
    ("bridge", "lease_granted", "leased"),
    ("agent", "offer", "offer at the agent"),
    ("agent", "job runs", "all audio at the agent"),
    ("agent", "job done", "decoded, result on disk"),
    ("bridge", "turns", "result stored"),
    ("bridge", "conversation_updated", "labels written"),
)


def make_wav(seconds: float, seed: int = 0) -> bytes:
    """Return noise, s16 mono at 16 kHz, which nothing can compress."""
    samples = np.random.default_rng(seed).integers(-3000, 3000, int(seconds * RATE_HZ), dtype=np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def make_segments(conversation_id: str, seconds: float) -> tuple[TranscriptSegment, ...]:
    """Return the transcript that every design has to label."""
    step_s = seconds / SEGMENTS
    return tuple(
        TranscriptSegment(
            id=f"{conversation_id}-{place}", start_s=place * step_s, end_s=(place + 1) * step_s - 0.2, text="words"
        )
        for place in range(SEGMENTS)
    )


@dataclass
class Times:
    """Monotonic seconds of one payload."""

    sent_s: float = 0.0
    accepted_s: float = 0.0
    updated_s: float = 0.0


@dataclass
class TimingBackend:
    """A backend that notes when each message arrives."""

    broker: RunningBroker
    times: dict[str, Times] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        port, token = free_port(), secrets.token_hex(16)
        self.http_environment = {"OMI_HTTP_PORT": str(port), "OMI_HTTP_TOKEN": token}
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {token}"}, timeout=60.0
        )
        self._changed = threading.Condition()
        self._answered: set[str] = set()
        self.accepted_chunks: set[str] = set()
        self.jobs_done = 0
        self._beats: list[tuple[str, str, datetime]] = []
        self._session = MqttSession(
            self.broker.settings("backend"), client_id=f"bench-{uuid.uuid4().hex[:12]}", on_message=self._note
        )
        # What a backend may not read: how many jobs the agent has done.
        self._watch = MqttSession(
            self.broker.settings("watch"), client_id=f"watch-{uuid.uuid4().hex[:12]}", on_message=self._note
        )
        for kind in (TopicKind.ACCEPTED, TopicKind.UPDATED, TopicKind.BRIDGE_HEARTBEAT):
            self._session.subscribe(TOPICS.filter(kind))
        self._watch.subscribe(TOPICS.filter(TopicKind.AGENT_HEARTBEAT))
        for session in (self._session, self._watch):
            session.start()
            session.wait_connected(20.0)

    def stop(self) -> None:
        """Disconnect."""
        self._session.stop()
        self._watch.stop()

    def _note(self, message: Incoming) -> None:
        now_s = time.monotonic()
        address = TOPICS.parse(message.topic)
        with self._changed:
            if address.kind is TopicKind.ACCEPTED:
                self._note_receipt(decode(Accepted, message.payload), now_s)
            elif address.kind is TopicKind.UPDATED:
                update = decode(ConversationUpdated, message.payload)
                times = self.times.get(update.conversation_id)
                if times is not None and not times.updated_s:
                    times.updated_s = now_s
                self.event(update.conversation_id, EventType.APPLIED, updated_version=update.updated_version)
            elif address.kind is TopicKind.BRIDGE_HEARTBEAT:
                bridge = decode(BridgeHeartbeat, message.payload)
                if bridge.state is BridgeState.ONLINE:
                    self._beats.append(("bridge", bridge.instance_id, bridge.started_at))
            else:
                agent = decode(AgentHeartbeat, message.payload)
                self.jobs_done = agent.jobs_done
                if agent.state is AgentState.ONLINE:
                    self._beats.append(("agent", agent.instance_id, agent.started_at))
            self._changed.notify_all()

    def _note_receipt(self, receipt: Accepted, now_s: float) -> None:
        if receipt.event_id:
            self._answered.add(receipt.event_id)
            return
        if receipt.verdict is not Verdict.ACCEPTED:
            self.refused.append(f"{receipt.reason}: {receipt.message}")
        else:
            self.accepted_chunks.add(receipt.chunk_id or "")
        times = self.times.get(receipt.conversation_id)
        if times is not None and not times.accepted_s:
            times.accepted_s = now_s

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait for a condition on what has arrived."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), f"{what} did not happen: refused {self.refused[:3]}"

    def wait_up(self, program: DemoProgram, kind: str, began: datetime) -> None:
        """Wait for the first heartbeat of a bridge or an agent that was started after `began`."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            program.check()
            with self._changed:
                if any(who == kind and started_at >= began for who, _, started_at in self._beats):
                    return
                self._changed.wait(0.2)
        raise AssertionError(f"the {kind} did not come up")

    def event(self, conversation_id: str, kind: EventType, **fields: Any) -> str:  # noqa: ANN401 - fields of ConversationEvent
        """Publish an event; return its id."""
        event = ConversationEvent(event_id=f"e-{uuid.uuid4().hex}", type=kind, **fields)
        self._publish(TOPICS.events(conversation_id), event)
        return event.event_id

    def begin(self, conversation_id: str, seconds: float) -> None:
        """Send the events of a conversation with one chunk and its transcript; wait for their receipts."""
        ids = {
            self.event(conversation_id, EventType.STARTED, started_at=datetime.now(UTC)),
            self.event(conversation_id, EventType.SEGMENTS, segments=make_segments(conversation_id, seconds)),
            self.event(conversation_id, EventType.COMPLETED, chunks=1),
        }
        self.wait(lambda: ids <= self._answered, "the receipts of a conversation's events")

    def send(self, conversation_id: str, audio: bytes, **facts: Any) -> None:  # noqa: ANN401 - fields of AudioPayload
        """Publish a payload as `vps_bridge.client.client` does, whole or in parts."""
        self.times[conversation_id] = Times(sent_s=time.monotonic())
        base = {"conversation_id": conversation_id, "sha256": hashlib.sha256(audio).hexdigest(), **facts}
        base.setdefault("chunk_id", f"c-{uuid.uuid4().hex}")
        topic = TOPICS.audio(conversation_id)
        if len(audio) <= WHOLE_BYTES:
            self._publish(topic, AudioPayload(**base, audio=audio))
            return
        for start in range(0, len(audio), PART_BYTES):
            part = audio[start : start + PART_BYTES]
            sha256 = hashlib.sha256(part).hexdigest()
            self._publish(
                topic,
                AudioPayload(**base, byte_offset=start, total_bytes=len(audio), part_sha256=sha256, audio=part),
            )

    def post(self, conversation_id: str, audio: bytes, **facts: Any) -> None:  # noqa: ANN401 - fields of AudioQuery
        """Send a payload over HTTP; the update is received over MQTT."""
        times = self.times[conversation_id] = Times(sent_s=time.monotonic())
        facts.setdefault("chunk_id", f"c-{uuid.uuid4().hex}")
        answer = self._http.post(
            f"/v1/conversations/{conversation_id}/audio",
            content=audio,
            params=facts,
            headers={"content-type": "application/octet-stream"},
        )
        answer.raise_for_status()
        times.accepted_s = time.monotonic()

    def _publish(self, topic: str, message: Message) -> None:
        self._session.publish(topic, encode(message))

    def wait_accepted(self, conversation_id: str) -> None:
        """Wait for the receipt of a conversation's audio."""
        self.wait(lambda: self.times[conversation_id].accepted_s > 0, f"the receipt of {conversation_id}")

    def wait_updated(self, conversation_id: str) -> Times:
        """Wait until the conversation was updated."""
        times = self.times[conversation_id]
        self.wait(lambda: times.updated_s > 0, f"the update of {conversation_id}")
        return times


@dataclass
class RunningPipeline:
    """Bridge and agent processes on a broker, with the defaults a user has."""

    broker: RunningBroker
    directory: Path
    programs: Programs
    backend: TimingBackend

    def start_bridge(self, **environment: str) -> DemoProgram:
        """Start the bridge and wait for its heartbeat."""
        return self._start(
            "bridge", [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "run"], environment
        )

    def start_agent(self, **environment: str) -> DemoProgram:
        """Start the agent with the null engine and wait until it is online."""
        return self._start("agent", [sys.executable, "-m", "benchmarks.null_engine"], environment)

    def environment(self, role: str) -> dict[str, str]:
        """Return the settings of one of our programs."""
        own = {"OMI_DATA_DIR": str(self.directory), "OMI_AGENT_ID": AGENT_ID, "OMI_LOG_JSON": "true"}
        return {**self.broker.environment(role), **self.backend.http_environment, **own}

    def _start(self, role: str, command: list[str], environment: Mapping[str, str]) -> DemoProgram:
        began = datetime.now(UTC)
        program = self.programs.start_command(role, command, environment={**self.environment(role), **environment})
        self.backend.wait_up(program, role, began)
        return program

    def allow_agent(self) -> None:
        """Put the agent on the allow-list, as `omi-bridge agents allow` does."""
        ledger = Ledger(self.directory / "bridge", exclusive=False)
        ledger.agents.set_allowed(AGENT_ID, allowed=True)
        ledger.close()

    def spans_ms(self, conversation_ids: set[str]) -> dict[str, float]:
        """Return the median milliseconds between the steps that bridge and agent logged, for these conversations."""
        moments: dict[str, dict[str, float]] = {name: {} for name in conversation_ids}
        for role in ("bridge", "agent"):
            wanted = {event: label for who, event, label in SPANS if who == role}
            for line in (self.directory / "logs" / f"{role}.log").read_text(errors="replace").splitlines():
                entry = json.loads(line) if line.startswith("{") else {}
                name, label = entry.get("conversation"), wanted.get(entry.get("event", ""))
                if name in moments and label is not None:
                    moments[name].setdefault(label, datetime.fromisoformat(entry["timestamp"]).timestamp() * 1000)
        labels = [label for _, _, label in SPANS]
        spans = {}
        for before, after in itertools.pairwise(labels):
            steps = [found[after] - found[before] for found in moments.values() if before in found and after in found]
            spans[f"{before} → {after}"] = median(steps) if steps else float("nan")
        return spans


def find_mosquitto() -> str | None:
    """Return the path of the installed Mosquitto, if any; Debian installs it where only root has it on the PATH."""
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


@contextmanager
def run_pipeline(broker: RunningBroker, directory: Path) -> Iterator[RunningPipeline]:
    """Yield a pipeline with nothing started yet; everything is stopped at the end."""
    backend = TimingBackend(broker)
    with Programs(directory / "logs") as programs:
        try:
            yield RunningPipeline(broker, directory, programs, backend)
        finally:
            backend.stop()


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the processor seconds used so far, by name; an agent's worker processes are counted separately."""
    used: dict[str, float] = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        used[name] = sum(process.cpu_times()[:2])
        children = process.children()
        if children:
            used[f"{name}'s worker"] = sum(sum(child.cpu_times()[:2]) for child in children)
    return used


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def percentiles_ms(seconds: list[float]) -> tuple[float, float, float]:
    """Return p50, p95 and p99 in milliseconds."""
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return float(p50), float(p95), float(p99)
