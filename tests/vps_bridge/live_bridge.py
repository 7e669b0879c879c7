"""The bridge as a process on a real broker, and a backend that knows only the schemas."""

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from broker.session import Incoming, MqttSession
from schemas.agent import AgentHeartbeat
from schemas.audio import AudioPayload
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import (
    Accepted,
    ConversationEvent,
    ConversationUpdated,
    EventType,
    TranscriptSegment,
)
from schemas.failure import JobFailure
from schemas.messages import MESSAGE_BY_TOPIC
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.ledger_switch import switched_options
from tests.pace import paced_settings
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.intake.people_view import PeopleReader
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.settings import BridgeSettings

M = TypeVar("M", bound=Message)
T = TypeVar("T")
TOPICS = Topics()
FAST = {
    "OMI_HEARTBEAT_S": "0.5",
    "OMI_RETRY_MIN_S": "0.5",
    "OMI_RETRY_MAX_S": "2",
    "OMI_RECONNECT_MIN_S": "0.05",
    "OMI_RECONNECT_MAX_S": "0.5",
    "OMI_LOG_JSON": "true",
}
PATIENCE = {"OMI_STALE_S": 6.0, "OMI_GRACE_S": 1.0, "OMI_PAUSE_S": 0.3, "OMI_QUIET_S": 3.0}
STARTED_AT = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
CALL_S = 30.0
# Two people take turns of 4 s; speech-to-text gave both its default label.
CALL_TURNS = tuple((start, start + 4.0, "ab"[round(start / 5) % 2]) for start in (0.5, 5.5, 10.5, 15.5, 20.5, 25.5))


def wait_until(condition: Callable[[], T | None], what: str, timeout_s: float = WAIT_S) -> T:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = condition()
        if found:
            return found
        time.sleep(0.03)
    raise AssertionError(f"{what} did not happen within {timeout_s:.0f} s")


class Backend:
    """Sends events and audio, and keeps every message it may see, in order."""

    def __init__(self, broker: RunningBroker) -> None:
        self.messages: list[Incoming] = []
        self.session = MqttSession(
            broker.settings("backend"), client_id=f"backend-{uuid.uuid4().hex[:12]}", on_message=self.messages.append
        )
        self.watch = MqttSession(
            broker.settings("watch"), client_id=f"watch-{uuid.uuid4().hex[:12]}", on_message=self.messages.append
        )
        for kind in (TopicKind.ACCEPTED, TopicKind.UPDATED, TopicKind.PERSON_ACCEPTED, TopicKind.BRIDGE_HEARTBEAT):
            self.session.subscribe(TOPICS.filter(kind))
        self.watch.subscribe(TOPICS.filter(TopicKind.FAILURE))
        self.watch.subscribe(TOPICS.filter(TopicKind.AGENT_HEARTBEAT))
        for session in (self.session, self.watch):
            session.start()
            session.wait_connected(WAIT_S)

    def stop(self) -> None:
        self.session.stop()
        self.watch.stop()

    def seen(self, kind: type[M], conversation_id: str | None = None) -> list[M]:
        found = []
        for message in list(self.messages):
            address = TOPICS.parse(message.topic)
            if MESSAGE_BY_TOPIC[address.kind] is kind and conversation_id in (None, address.conversation_id):
                found.append(decode(kind, message.payload))
        return found

    def publish(self, topic: str, payload: bytes | Message) -> None:
        self.session.publish(topic, encode(payload) if isinstance(payload, Message) else payload).wait(WAIT_S)

    def receipts(self, conversation_id: str, **ids: str) -> list[Accepted]:
        return [
            receipt
            for receipt in self.seen(Accepted, conversation_id)
            if all(getattr(receipt, name) == value for name, value in ids.items())
        ]

    def wait_receipt(self, conversation_id: str, *, count: int = 1, **ids: str) -> Accepted:
        """The latest receipt, once there are `count`."""
        found = wait_until(lambda: _enough(self.receipts(conversation_id, **ids), count), f"receipt {count} for {ids}")
        return found[-1]

    def event(self, conversation_id: str, kind: EventType, *, event_id: str | None = None, **fields: Any) -> Accepted:
        event = ConversationEvent(event_id=event_id or f"e-{uuid.uuid4().hex}", type=kind, **fields)
        before = len(self.receipts(conversation_id, event_id=event.event_id))
        self.publish(TOPICS.events(conversation_id), event)
        return self.wait_receipt(conversation_id, count=before + 1, event_id=event.event_id)

    def audio(self, conversation_id: str, audio: bytes, *, chunk_id: str | None = None, **fields: Any) -> Accepted:
        payload = audio_payload(conversation_id, audio, chunk_id=chunk_id or f"c-{uuid.uuid4().hex}", **fields)
        name = payload.chunk_id or ""
        before = len(self.receipts(conversation_id, chunk_id=name))
        self.publish(TOPICS.audio(conversation_id), payload)
        return self.wait_receipt(conversation_id, count=before + 1, chunk_id=name)

    def beats_of(self, agent_id: str) -> list[AgentHeartbeat]:
        """Live heartbeats of an agent that an onlooker saw, in order."""
        topic = TOPICS.agent_heartbeat(agent_id)
        seen = [message for message in list(self.messages) if message.topic == topic and not message.retain]
        return [decode(AgentHeartbeat, message.payload) for message in seen]

    def failures(self, conversation_id: str) -> list[JobFailure]:
        return self.seen(JobFailure, conversation_id)

    def send_call(self, conversation_id: str, *, tone: int = 0) -> None:
        """A whole call of two people: started, segments, one chunk, completed."""
        self.event(conversation_id, EventType.STARTED, started_at=STARTED_AT)
        self.event(conversation_id, EventType.SEGMENTS, segments=call_segments(conversation_id))
        self.audio(conversation_id, make_wav(CALL_S, tone=tone), captured_at=STARTED_AT)
        self.event(conversation_id, EventType.COMPLETED, chunks=1)

    def wait_updated(self, conversation_id: str, *, final: bool = True, version: int = 0) -> ConversationUpdated:
        return wait_until(
            lambda: next(
                (
                    update
                    for update in reversed(self.seen(ConversationUpdated, conversation_id))
                    if (update.state == "final" or not final) and update.updated_version >= version
                ),
                None,
            ),
            f"the update of {conversation_id}",
        )


def _enough(found: list[T], count: int) -> list[T] | None:
    return found if len(found) >= count else None


def audio_payload(conversation_id: str, audio: bytes, **fields: Any) -> AudioPayload:
    fields.setdefault("sha256", hashlib.sha256(audio).hexdigest())
    return AudioPayload(conversation_id=conversation_id, audio=audio, **fields)


def part_payload(conversation_id: str, audio: bytes, start: int, end: int, **fields: Any) -> AudioPayload:
    """Bytes `start` to `end` of a chunk, as one part of it."""
    part = audio[start:end]
    return AudioPayload(
        conversation_id=conversation_id,
        audio=part,
        byte_offset=start,
        total_bytes=len(audio),
        sha256=hashlib.sha256(audio).hexdigest(),
        **{"part_sha256": hashlib.sha256(part).hexdigest(), **fields},
    )


def call_segments(conversation_id: str) -> tuple[TranscriptSegment, ...]:
    return tuple(
        TranscriptSegment(id=f"{conversation_id}-{place}", start_s=start, end_s=end, text="word", speaker="SPEAKER_00")
        for place, (start, end, _) in enumerate(CALL_TURNS)
    )


@dataclass
class LiveBridge:
    """The bridge's process and its data directory. After `kill`, `start` brings it back."""

    broker: RunningBroker
    data_dir: Path
    options: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    patience: dict[str, str] = field(default_factory=lambda: paced_settings(PATIENCE))
    role: str = "bridge"
    """Its user at the broker."""

    @property
    def spool(self) -> Path:
        return self.data_dir / "bridge" / "spool"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "bridge.out"

    def environment(self) -> dict[str, str]:
        own = {"OMI_DATA_DIR": str(self.data_dir)} | switched_options(self.data_dir)
        return self.broker.environment(self.role) | FAST | self.patience | own | self.options

    def start(self, backend: Backend, **options: str) -> None:
        """Start it and wait for its first heartbeat."""
        self.options |= options
        began = datetime.now(UTC)
        self.spawn()

        def is_up() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log_file.read_text()
            own_id = self.options.get("OMI_BRIDGE_ID", "bridge")
            beats = [beat for beat in backend.seen(BridgeHeartbeat) if beat.bridge_id == own_id]
            return any(beat.state is BridgeState.ONLINE and beat.started_at >= began for beat in beats)

        wait_until(is_up, "the bridge's first heartbeat")

    def spawn(self) -> None:
        """Start it, and wait for nothing."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "run"],
                env=self.environment(),
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(WAIT_S)
        return self.process.returncode

    def command(
        self, *arguments: str, check: bool = True, own: Mapping[str, str] | None = None, without: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run `omi-bridge` as a person would; `own` are further variables, `without` names some that are not set."""
        environment = {name: value for name, value in self.environment().items() if name not in without}
        done = subprocess.run(
            [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", *arguments],
            env={**environment, **(own or {})},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json").stdout)

    def jobs(self, conversation_id: str) -> list[dict[str, Any]]:
        """A conversation's jobs as `omi-bridge jobs --json` shows them, without its second of start-up."""
        with self._ledger() as ledger:
            return [asdict(job) for job in ledger.jobs.all(conversation_id=conversation_id)]

    def people(self, owner: str) -> list[dict[str, Any]]:
        """An owner's people as `omi-bridge people list --json` shows them, without its second of start-up."""
        with self._ledger() as ledger:
            return [person.model_dump() for person in PeopleReader(ledger).list_people(owner).people]

    def is_deleted(self, conversation_id: str) -> bool:
        """Whether nothing is left of a conversation but its tombstone."""
        with self._ledger() as ledger:
            gone = ledger.conversations.is_deleted(conversation_id)
            return gone and conversation_id not in ledger.conversations.unfinished_deletions()

    def packed_among(self, names: set[str]) -> set[str]:
        """Which of these conversations are packed."""
        with self._ledger() as ledger:
            return ledger.packs.packed_among(names)

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Lines of its log, in order."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        wanted = {"event": event, **fields}.items()
        return [line for line in lines if all(line.get(name) == value for name, value in wanted)]

    def revocations(self, conversation_id: str) -> list[str]:
        """Why each lease on a conversation's jobs was revoked, in order."""
        return [line["reason"] for line in self.logged("lease_revoked", conversation=conversation_id)]

    def allow(self, *agent_ids: str, allowed: bool = True) -> None:
        """What `omi-bridge agents allow` does, without its second of start-up."""
        with self._ledger() as ledger:
            for agent_id in agent_ids:
                ledger.agents.set_allowed(agent_id, allowed=allowed)

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        where: dict[str, Any] = {
            name: self.options.get(f"OMI_{name.upper()}") for name in ("database_url", "database_secret")
        }
        ledger = open_ledger(BridgeSettings(data_dir=self.data_dir, **where), exclusive=False)
        try:
            yield ledger
        finally:
            ledger.close()


@contextlib.contextmanager
def run_bridge(
    broker: RunningBroker, data_dir: Path, backend: Backend, *, role: str = "bridge", **options: str
) -> Iterator[LiveBridge]:
    """A bridge that is up; ended with SIGTERM, which it must obey, unless the test ended it."""
    bridge = LiveBridge(broker, data_dir, role=role)
    bridge.start(backend, **options)
    try:
        yield bridge
    finally:
        assert bridge.process is not None
        killed = bridge.process.poll() is not None
        code = bridge.stop()
        assert killed or code == 0, bridge.log_file.read_text()
