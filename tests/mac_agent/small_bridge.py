"""The bridge's side of the contract and no more: offers jobs, sends the parts it is asked for, settles."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from broker.errors import NotConnected
from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.agent import AgentControl, AgentHeartbeat, AgentState, AgentWant, ControlType, OfferedChunk
from schemas.audio import AudioPart
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import Verdict
from schemas.failure import JobFailure
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from schemas.turns import SpeakerTurns
from tests.brokers import AGENT_ID
from tests.inbox import WAIT_S, MessageLog

TOPICS = Topics()
LEDGER_ID = "ledger-1"


@dataclass(frozen=True)
class HeardBeat:
    """A heartbeat as it came."""

    message: AgentHeartbeat
    retained: bool

    def state_of(self, job_id: str) -> str | None:
        return next((job.state.value for job in self.message.jobs if job.job_id == job_id), None)


@dataclass
class SmallBridge:
    settings: BrokerSettings
    ledger_id: str = LEDGER_ID
    tamper: Callable[[AudioPart], Sequence[AudioPart]] = field(default=lambda part: [part])
    """What becomes of a part on its way."""
    settles: bool = False
    """Settle every result at once."""

    wants: MessageLog[AgentWant] = field(default_factory=MessageLog)
    turns: MessageLog[SpeakerTurns] = field(default_factory=MessageLog)
    failures: MessageLog[JobFailure] = field(default_factory=MessageLog)
    beats: MessageLog[HeardBeat] = field(default_factory=MessageLog)
    audio: dict[str, bytes] = field(default_factory=dict)
    conversations: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.instance_id = f"b-{secrets.token_hex(4)}"
        self.session = MqttSession(self.settings, client_id=f"bridge-{self.instance_id}", on_message=self._receive)
        for kind in (TopicKind.WANT, TopicKind.TURNS, TopicKind.FAILURE):
            self.session.subscribe(TOPICS.filter(kind))
        self.session.subscribe(TOPICS.filter(TopicKind.AGENT_HEARTBEAT), qos=0)
        self.session.start()
        self.session.wait_connected(WAIT_S)
        self.beat()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.stop()

    def beat(
        self, *, instance_id: str | None = None, state: BridgeState = BridgeState.ONLINE, waiting: Sequence[str] = ()
    ) -> None:
        now = datetime.now(UTC)
        beat = BridgeHeartbeat(
            bridge_id="bridge",
            instance_id=instance_id or self.instance_id,
            ledger_id=self.ledger_id,
            state=state,
            sent_at=now,
            started_at=now,
            agents_waiting=tuple(waiting),
        )
        self.session.publish(TOPICS.bridge_heartbeat("bridge"), encode(beat), retain=True)

    def offer(
        self, job_id: str, *chunks: bytes, lease_id: str = "lease-1", sha256: str | None = None, **fields
    ) -> AgentControl:
        offered = []
        for index, data in enumerate(chunks):
            chunk_id = f"{job_id}-chunk-{index}"
            self.audio[chunk_id] = data
            digest = sha256 or hashlib.sha256(data).hexdigest()
            offered.append(OfferedChunk(chunk_id=chunk_id, bytes=len(data), sha256=digest, encoding="auto"))
        self.conversations[job_id] = fields.pop("conversation_id", f"conversation-{job_id}")
        control = AgentControl(
            type=ControlType.OFFER,
            ledger_id=fields.pop("ledger_id", self.ledger_id),
            job_id=job_id,
            lease_id=lease_id,
            conversation_id=self.conversations[job_id],
            attempt=fields.pop("attempt", 1),
            chunks=tuple(fields.pop("offered", offered)),
            **fields,
        )
        self.say(control)
        return control

    def settle(self, job_id: str, lease_id: str = "lease-1", **fields) -> None:
        self.say(
            AgentControl(
                type=ControlType.SETTLED,
                ledger_id=fields.pop("ledger_id", self.ledger_id),
                job_id=job_id,
                lease_id=lease_id,
                verdict=Verdict.STORED,
                **fields,
            )
        )

    def cancel(self, job_id: str, lease_id: str = "lease-1") -> None:
        self.say(AgentControl(type=ControlType.CANCEL, ledger_id=self.ledger_id, job_id=job_id, lease_id=lease_id))

    def say(self, control: AgentControl) -> None:
        self.session.publish(TOPICS.control(AGENT_ID), encode(control))

    def wait_online(self, after: int = 0) -> AgentHeartbeat:
        """The first live beat of an agent that is ready, after so many beats."""
        return self.wait_beat(lambda beat: beat.message.state is AgentState.ONLINE and not beat.retained, after)

    def wait_beat(self, wanted: Callable[[HeardBeat], bool], after: int = 0) -> AgentHeartbeat:
        seen = {id(beat) for beat in self.beats.items[:after]}
        return self.beats.wait_for(lambda beat: id(beat) not in seen and wanted(beat)).message

    def wait_turns(self, job_id: str, timeout_s: float = WAIT_S) -> SpeakerTurns:
        return self.turns.wait_for(lambda turns: turns.job_id == job_id, timeout_s)

    def wait_failure(self, job_id: str, timeout_s: float = WAIT_S) -> JobFailure:
        return self.failures.wait_for(lambda failure: failure.job_id == job_id, timeout_s)

    def _receive(self, incoming: Incoming) -> None:
        kind = TOPICS.parse(incoming.topic).kind
        if kind is TopicKind.WANT:
            want = decode(AgentWant, incoming.payload)
            self.wants.put(want)
            self._send_parts(want)
        elif kind is TopicKind.TURNS:
            turns = decode(SpeakerTurns, incoming.payload)
            self.turns.put(turns)
            if self.settles:
                self.settle(turns.job_id, turns.lease_id)
        elif kind is TopicKind.FAILURE:
            self.failures.put(decode(JobFailure, incoming.payload))
        else:
            self.beats.put(HeardBeat(decode(AgentHeartbeat, incoming.payload), incoming.retain))

    def _send_parts(self, want: AgentWant) -> None:
        data = self.audio[want.chunk_id]
        for wanted in want.ranges:
            piece = data[wanted.start : wanted.end]
            part = AudioPart(
                job_id=want.job_id,
                lease_id=want.lease_id,
                chunk_id=want.chunk_id,
                byte_offset=wanted.start,
                total_bytes=len(data),
                part_sha256=hashlib.sha256(piece).hexdigest(),
                audio=piece,
            )
            for each in self.tamper(part):
                self._send(TOPICS.parts(self.conversations[want.job_id], AGENT_ID), each)

    def _send(self, topic: str, message: Message) -> None:
        try:
            self.session.publish(topic, encode(message))
        except NotConnected:
            return  # the agent asks again
