"""An agent that does what a test tells it: it knows the schemas and the broker, and no engine.

It beats on a thread of its own, keeps what the bridge says, pulls audio by `want` and answers when asked to.
"""

import contextlib
import hashlib
import io
import math
import threading
import time
import uuid
import wave
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

import numpy as np

from broker.errors import NotConnected
from broker.session import Farewell, Incoming, MqttSession
from schemas.agent import (
    AgentControl,
    AgentHeartbeat,
    AgentState,
    AgentWant,
    ByteRange,
    ControlType,
    HeldJob,
    HeldJobState,
    OfferedChunk,
)
from schemas.audio import AudioPart
from schemas.codec import decode, encode
from schemas.failure import FailureCode, JobFailure
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from schemas.turns import ChunkSpan, EngineDescription, SpeakerTurn, SpeakerTurns, SpeakerVoice
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S, MessageLog

TOPICS = Topics()
BEAT_S = 0.3
RANGE_BYTES = 100_000


class ScriptedAgent:
    """One instance of an agent; `with` starts and ends it."""

    def __init__(
        self,
        broker: RunningBroker,
        agent_id: str,
        *,
        places: int = 3,
        embedding: tuple[str, str] = ("scripted-voices", "1"),
    ) -> None:
        self.agent_id, self.instance_id, self.places = agent_id, f"i-{uuid.uuid4().hex}", places
        self.engine = EngineDescription(name="scripted", embedding_model=embedding[0], embedding_revision=embedding[1])
        self.offers: MessageLog[AgentControl] = MessageLog()
        self.settled: MessageLog[AgentControl] = MessageLog()
        self.cancelled: MessageLog[AgentControl] = MessageLog()
        self.parts: MessageLog[AudioPart] = MessageLog()
        self.held: dict[str, str] = {}
        self.queued: set[str] = set()
        """The conversations whose jobs it lists as waiting behind others; all others as running."""
        self.accepts = True
        self.state = AgentState.ONLINE
        self._started_at = datetime.now(UTC)
        self._silent, self._ended = threading.Event(), threading.Event()
        self._session = MqttSession(
            broker.settings(f"agent:{agent_id}"), client_id=f"{agent_id}-{self.instance_id}", on_message=self._receive
        )
        self._session.subscribe(TOPICS.control(agent_id))
        self._session.subscribe(TOPICS.filter(TopicKind.PARTS, sender_id=agent_id))
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    def __enter__(self) -> Self:
        self._session.start()
        self._session.wait_connected(WAIT_S)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Take its leave: the bridge of a whole module would offer the next test's jobs to it until it is stale."""
        self.held.clear()
        topic = TOPICS.agent_heartbeat(self.agent_id)
        self._end(Farewell(topic, encode(self._make_beat(AgentState.STOPPED)), retain=True))

    # ---------------------------------------------------------------------------------------- being alive

    def vanish(self, *, told: bool = False) -> None:
        """Be gone without a word; `told`: but for a last beat, which lists what it holds."""
        if told:
            topic = TOPICS.agent_heartbeat(self.agent_id)
            self._session.publish(topic, encode(self._make_beat(self.state)), retain=True).wait(WAIT_S)
        self._end(None)

    def _end(self, farewell: Farewell | None) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join(WAIT_S)
            self._session.stop(farewell)

    def fall_silent(self) -> None:
        self._silent.set()

    def come_back(self) -> None:
        self._silent.clear()

    def beat(self, state: AgentState | None = None) -> None:
        """Beat now; `offline` is what the broker would publish as this instance's will."""
        self._send(TOPICS.agent_heartbeat(self.agent_id), self._make_beat(state or self.state), retain=True)

    def _make_beat(self, state: AgentState) -> AgentHeartbeat:
        gone = state is AgentState.OFFLINE
        held = dict(self.held)  # the network's thread may change it
        return AgentHeartbeat(
            agent_id=self.agent_id,
            instance_id=self.instance_id,
            state=state,
            sent_at=datetime.now(UTC),
            started_at=self._started_at,
            engine=self.engine,
            jobs=() if gone else tuple(self._list_job(job, lease) for job, lease in held.items()),
            free_capacity=0 if gone else max(0, self.places - len(held)),
            speed_x_real_time=10.0,
        )

    def _list_job(self, job_id: str, lease_id: str) -> HeldJob:
        waits = any(offer.job_id == job_id and offer.conversation_id in self.queued for offer in self.offers.items)
        state = HeldJobState.QUEUED if waits else HeldJobState.RUNNING
        return HeldJob(job_id=job_id, lease_id=lease_id, state=state)

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_S):
            if not self._silent.is_set():
                self.beat()

    # ------------------------------------------------------------------------------------------- the work

    def wait_offer(self, conversation_id: str, *, after: int = 0, timeout_s: float = WAIT_S) -> AgentControl:
        """The first offer of a lease on a conversation's jobs, the first `after` leases passed over.

        An offer may come twice: the bridge repeats it where two beats did not list the job yet.
        """
        return self.offers.wait_for(
            lambda offer: (
                offer.conversation_id == conversation_id and offer.lease_id in self.leases(conversation_id)[after:]
            ),
            timeout_s,
        )

    def leases(self, conversation_id: str) -> list[str]:
        """The leases offered on a conversation's jobs, in order, each once."""
        offers = [offer for offer in self.offers.items if offer.conversation_id == conversation_id]
        return list(dict.fromkeys(offer.lease_id or "" for offer in offers))

    def pull(self, offer: AgentControl) -> dict[str, bytes]:
        """Ask for all audio of an offer and return it by chunk, once every sha256 is right."""
        return {chunk.chunk_id: self._pull_chunk(offer, chunk) for chunk in offer.chunks}

    def _pull_chunk(self, offer: AgentControl, chunk: OfferedChunk) -> bytes:
        data = bytearray(chunk.bytes)
        for start in range(0, chunk.bytes, RANGE_BYTES):
            self.want(offer, chunk.chunk_id, start, min(start + RANGE_BYTES, chunk.bytes))
            part = self.parts.wait_for(
                lambda part, start=start: (
                    (part.lease_id, part.chunk_id, part.byte_offset)  # type: ignore[misc]
                    == (offer.lease_id, chunk.chunk_id, start)
                )
            )
            assert hashlib.sha256(part.audio).hexdigest() == part.part_sha256
            data[start : start + len(part.audio)] = part.audio
        assert hashlib.sha256(data).hexdigest() == chunk.sha256
        return bytes(data)

    def want(self, offer: AgentControl, chunk_id: str, start: int, end: int) -> None:
        assert offer.job_id is not None
        assert offer.lease_id is not None
        want = AgentWant(
            job_id=offer.job_id,
            lease_id=offer.lease_id,
            chunk_id=chunk_id,
            ranges=(ByteRange(start=start, end=end),),
        )
        self._send(TOPICS.want(self.agent_id), want)

    def answer(
        self, offer: AgentControl, turns: Sequence[tuple[float, float, str]] = (), *, lease_id: str | None = None
    ) -> None:
        """Publish a result."""
        self.send_raw(offer.conversation_id or "", encode(self.result(offer, turns, lease_id=lease_id)))
        self.held.pop(offer.job_id or "", None)

    def result(
        self, offer: AgentControl, turns: Sequence[tuple[float, float, str]] = (), *, lease_id: str | None = None
    ) -> SpeakerTurns:
        """A result: turns as (start_s, end_s, local label); every label gets a voice of its own."""
        said = tuple(SpeakerTurn(start_s=start, end_s=end, speaker=label) for start, end, label in turns)
        assert offer.conversation_id is not None
        assert offer.job_id is not None
        return SpeakerTurns(
            conversation_id=offer.conversation_id,
            job_id=offer.job_id,
            lease_id=lease_id or offer.lease_id or "",
            agent_id=self.agent_id,
            engine=self.engine,
            duration_s=sum(_wav_seconds(chunk) for chunk in offer.chunks),
            chunks=_spans(offer),
            turns=said,
            exclusive_turns=said,
            speakers=tuple(
                SpeakerVoice(
                    speaker=label,
                    clean_speech_s=sum(turn.end_s - turn.start_s for turn in said if turn.speaker == label),
                    embedding=voice_of(label),
                )
                for label in sorted({turn.speaker for turn in said})
            ),
        )

    def send_raw(self, conversation_id: str, payload: bytes) -> None:
        """Publish any bytes on the results topic."""
        self._session.publish(TOPICS.turns(conversation_id, self.agent_id), payload).wait(WAIT_S)

    def fail(
        self, offer: AgentControl, code: FailureCode = FailureCode.ENGINE_CRASHED, *, retryable: bool = True
    ) -> None:
        assert offer.conversation_id is not None
        failure = JobFailure(
            conversation_id=offer.conversation_id,
            job_id=offer.job_id,
            lease_id=offer.lease_id,
            code=code,
            retryable=retryable,
            message="as the test told it",
        )
        self._send(TOPICS.failure(offer.conversation_id, self.agent_id), failure)
        self.held.pop(offer.job_id or "", None)

    def _receive(self, incoming: Incoming) -> None:
        if TOPICS.parse(incoming.topic).kind is TopicKind.PARTS:
            self.parts.put(decode(AudioPart, incoming.payload))
            return
        control = decode(AgentControl, incoming.payload)
        if control.type is ControlType.OFFER:
            if self.accepts:
                self.held[control.job_id or ""] = control.lease_id or ""
            self.offers.put(control)
        elif control.type is ControlType.SETTLED:
            self.settled.put(control)
        elif control.type is ControlType.CANCEL:
            if self.held.get(control.job_id or "") == control.lease_id:
                del self.held[control.job_id or ""]
            self.cancelled.put(control)

    def _send(self, topic: str, message: Message, *, retain: bool = False) -> None:
        with contextlib.suppress(NotConnected):
            self._session.publish(topic, encode(message), retain=retain)


def voice_of(label: str) -> bytes:
    """A unit vector of its own for each label."""
    vector = np.random.default_rng(sum(label.encode())).standard_normal(64)
    return (vector / math.sqrt(float(vector @ vector))).astype("<f4").tobytes()


def make_wav(seconds: float, *, rate: int = 8_000, tone: int = 0) -> bytes:
    """A WAV file; `tone` tells one from another."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(tone.to_bytes(2, "little") * round(seconds * rate))
    return buffer.getvalue()


def _wav_seconds(chunk: OfferedChunk) -> float:
    return max(0.0, (chunk.bytes - 44) / 16_000)


def _spans(offer: AgentControl) -> tuple[ChunkSpan, ...]:
    spans, end_s = [], 0.0
    for chunk in offer.chunks:
        start_s = end_s if chunk.start_s is None else chunk.start_s
        spans.append(ChunkSpan(chunk_id=chunk.chunk_id, start_s=start_s, duration_s=_wav_seconds(chunk)))
        end_s = start_s + spans[-1].duration_s
    return tuple(spans)


def stays_empty(inbox: MessageLog[AgentControl], seconds: float) -> bool:
    """Whether nothing arrives for a while."""
    before = len(inbox.items)
    time.sleep(seconds)
    return len(inbox.items) == before
