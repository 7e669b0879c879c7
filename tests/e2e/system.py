"""The pipeline for a test: real broker, bridge and agent processes, and a backend that uses only the schemas.

A test observes messages, files and the output of commands, and never the inside of a process.
"""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import uuid
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import psutil
import pytest

from broker.session import Incoming, MqttSession
from demo.programs import MODULES, DemoProgram, Programs
from schemas.agent import AgentHeartbeat, AgentState
from schemas.audio import AudioPayload
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated, EventType, TranscriptSegment
from schemas.failure import JobFailure
from schemas.messages import MESSAGE_BY_TOPIC
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from tests.brokers import AGENT_ID, RunningBroker
from tests.inbox import WAIT_S
from tests.ledger_switch import switched_options
from tests.pace import paced_settings
from vps_bridge.ledger import Ledger

embedded_in_acceptance = pytest.mark.parametrize(
    "any_broker", ["mosquitto", pytest.param("embedded", marks=pytest.mark.slow)], indirect=True
)
"""Runs a test on the embedded broker only in `make acceptance`; the whole path and the demo run there every time."""

M = TypeVar("M", bound=Message)
TOPICS = Topics()
FAST = {
    "OMI_HEARTBEAT_S": "1",
    "OMI_RETRY_MIN_S": "1",
    "OMI_OFFER_RETRY_S": "1",
    "OMI_WANT_TIMEOUT_S": "2",
    "OMI_RECONNECT_MIN_S": "0.1",
    "OMI_RECONNECT_MAX_S": "1",
    "OMI_THREADS": "2",
}
PATIENCE = {"OMI_STALE_S": 6.0, "OMI_GRACE_S": 2.0}


def models_dir() -> Path:
    """Return the directory where `omi-agent fetch-model embedded` has put the weights."""
    return weights_dir() / "models"


def weights_dir() -> Path:
    """Return the `OMI_WEIGHTS_DIR` of the agents in this environment."""
    named = os.environ.get("OMI_WEIGHTS_DIR") or os.environ.get("OMI_DATA_DIR")
    return Path(named) if named else platformdirs.user_data_path("omi-diarization")


def sample_folder() -> Path:
    """Return the folder of the sample call inside the installed pyannote.audio."""
    spec = find_spec("pyannote.audio")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "sample"


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {timeout_s:.0f} s")


@dataclass
class Peer:
    """A client that uses only the schemas; keeps every message on its filters, in order."""

    broker: RunningBroker
    role: str
    filters: tuple[str, ...]
    messages: list[Incoming] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = MqttSession(
            self.broker.settings(self.role),
            client_id=f"{self.role}-{uuid.uuid4().hex[:12]}",
            on_message=self.messages.append,
        )
        for topic_filter in self.filters:
            self.session.subscribe(topic_filter)
        self.session.start()
        self.session.wait_connected(WAIT_S)

    def seen(self, kind: type[M], conversation_id: str | None = None, *, live: bool = False) -> list[M]:
        found = []
        for message in list(self.messages):
            if live and message.retain:
                continue
            address = TOPICS.parse(message.topic)
            if MESSAGE_BY_TOPIC[address.kind] is kind and conversation_id in (None, address.conversation_id):
                found.append(decode(kind, message.payload))
        return found

    def publish(self, topic: str, payload: bytes | Message) -> None:
        data = encode(payload) if isinstance(payload, Message) else payload
        self.session.publish(topic, data).wait(WAIT_S)


class MqttBackend(Peer):
    """The backend: sends events and audio until they are accepted, and confirms updates."""

    def __init__(self, broker: RunningBroker) -> None:
        filters = tuple(
            TOPICS.filter(kind) for kind in (TopicKind.ACCEPTED, TopicKind.UPDATED, TopicKind.BRIDGE_HEARTBEAT)
        )
        super().__init__(broker, "backend", filters)

    def event(self, conversation_id: str, kind: EventType, **fields: Any) -> Accepted:
        event = ConversationEvent.model_validate({"event_id": f"e-{uuid.uuid4().hex}", "type": kind, **fields})
        self.publish(TOPICS.events(conversation_id), event)
        return self.receipt(conversation_id, event_id=event.event_id)

    def audio(self, conversation_id: str, audio: bytes, *, wait: bool = True, **fields: Any) -> Accepted | None:
        fields.setdefault("chunk_id", f"c-{uuid.uuid4().hex}")
        fields.setdefault("sha256", hashlib.sha256(audio).hexdigest())
        self.publish(
            TOPICS.audio(conversation_id), AudioPayload(conversation_id=conversation_id, audio=audio, **fields)
        )
        return self.receipt(conversation_id, chunk_id=fields["chunk_id"]) if wait else None

    def receipt(self, conversation_id: str, *, timeout_s: float = WAIT_S, **ids: str) -> Accepted:
        def find() -> Accepted | None:
            receipts = self.seen(Accepted, conversation_id)
            return next((r for r in receipts if all(getattr(r, name) == value for name, value in ids.items())), None)

        found: Accepted = wait_until(find, f"the receipt for {ids}", timeout_s)
        return found

    def updated(
        self, conversation_id: str, *, final: bool = True, version: int = 0, timeout_s: float = WAIT_S
    ) -> ConversationUpdated:
        def find() -> ConversationUpdated | None:
            seen = self.seen(ConversationUpdated, conversation_id)
            updates = [update for update in seen if update.updated_version >= version]
            return next((update for update in reversed(updates) if update.state == "final" or not final), None)

        update: ConversationUpdated = wait_until(find, f"the update of {conversation_id}", timeout_s)
        self.event(conversation_id, EventType.APPLIED, updated_version=update.updated_version)
        return update


@dataclass
class System:
    """Broker, bridge and agent, each a process; the files of agent and bridge are in `data_dir`."""

    broker: RunningBroker
    data_dir: Path
    programs: Programs
    watcher: Peer
    patience: dict[str, str] = field(default_factory=lambda: paced_settings(PATIENCE))

    @property
    def spool(self) -> Path:
        return self.data_dir / "bridge" / "spool"

    def environment(self, role: str) -> dict[str, str]:
        own = {"OMI_DATA_DIR": str(self.data_dir), "OMI_AGENT_ID": AGENT_ID, "OMI_WEIGHTS_DIR": str(weights_dir())}
        own["OMI_ENGINE"] = "embedded"  # also where a pipeline of pyannote was fetched
        return self.broker.environment(role) | FAST | self.patience | own | switched_options(self.data_dir)

    def start_bridge(self, **environment: str) -> DemoProgram:
        began = datetime.now(UTC)
        program = self.programs.start("omi-bridge", "run", environment=self.environment("bridge") | environment)

        def is_up() -> bool:
            program.check()
            beats = self.watcher.seen(BridgeHeartbeat)
            return any(beat.state is BridgeState.ONLINE and beat.started_at >= began for beat in beats)

        wait_until(is_up, "the bridge's first heartbeat")
        return program

    def start_agent(self, **environment: str) -> DemoProgram:
        began = datetime.now(UTC)
        program = self.programs.start("omi-agent", "run", environment=self.environment("agent") | environment)

        def is_up() -> bool:
            program.check()
            beats = self.watcher.seen(AgentHeartbeat)
            return any(beat.state is AgentState.ONLINE and beat.started_at >= began for beat in beats)

        wait_until(is_up, "the agent's first `online`")
        return program

    def command(self, command: str, *arguments: str, role: str = "backend", check: bool = True) -> str:
        """Run one of our commands as a person would and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", f"from {MODULES[command]} import main; main()", *arguments],
            env=self.environment(role),
            capture_output=True,
            check=False,
            text=True,
            timeout=WAIT_S,
        )
        assert not check or done.returncode == 0, f"{command} {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def show(self, conversation_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.command("omi-bridge", "show", conversation_id, "--json"))
        return shown

    def allow_agent(self, agent_id: str = AGENT_ID) -> None:
        """What `omi-bridge agents allow` does, without its second of start-up."""
        ledger = Ledger(self.data_dir / "bridge", exclusive=False)
        ledger.agents.set_allowed(agent_id, allowed=True)
        ledger.close()

    def failures(self, conversation_id: str) -> list[JobFailure]:
        return self.watcher.seen(JobFailure, conversation_id)


@contextlib.contextmanager
def run_system(broker: RunningBroker, directory: Path) -> Iterator[System]:
    """Yield a system whose bridge and agent are not started yet; everything is ended with the test."""
    kinds = (TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT, TopicKind.FAILURE, TopicKind.TURNS)
    filters = tuple(TOPICS.filter(kind) for kind in (*kinds, TopicKind.UPDATED, TopicKind.ACCEPTED, TopicKind.CONTROL))
    watcher = Peer(broker, "bridge", filters)
    with Programs(directory / "logs") as programs:
        try:
            yield System(broker, directory / "data", programs, watcher)
        finally:
            watcher.session.stop()


def worker_pids(agent_pid: int) -> list[int]:
    """Return the agent's child processes that have an engine (multiprocessing's resource tracker has none)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            child.pid
            for child in psutil.Process(agent_pid).children()
            if "resource_tracker" not in " ".join(child.cmdline())
        ]
    return []


def read_wav(path: Path) -> tuple[bytes, int]:
    """Return the samples (s16le mono) and the sample rate of a WAV file."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.readframes(file.getnframes()), file.getframerate()


def make_wav(samples: bytes, rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()


def sample_segments(conversation_id: str) -> tuple[tuple[TranscriptSegment, ...], dict[str, str]]:
    """Return the 13 lines of the sample call, all labelled SPEAKER_00, and the true speaker of each."""
    from demo.call import find_call

    call = find_call(conversation_id)
    return call.segments, call.true_speakers


def count_right(labels: dict[str, str | None], conversation_id: str) -> tuple[int, int]:
    """Return (lines with the right speaker, wrong lines of 0.8 s or longer) of the sample call."""
    from demo.call import find_call, score_lines

    score = score_lines(find_call(conversation_id), labels)
    return score.right, score.wrong_long
