"""`ping`: a second of speech through broker, bridge and agent and back, with the moment of everything on its way.

It speaks with the backend's rights and listens with the bridge's. Its conversation is temporary and is deleted.
"""

from __future__ import annotations

import hashlib
import queue
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.errors import BrokerError, NotConnected
from broker.receipts import PublishOutcome
from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.agent import AgentControl, AgentHeartbeat, AgentWant, ControlType
from schemas.audio import AudioPart, AudioPayload
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated, EventType, Verdict
from schemas.errors import SchemaError
from schemas.failure import JobFailure
from schemas.topics import TopicKind, Topics
from schemas.turns import SpeakerTurns
from vps_bridge.client.connected import CONNECT_TIMEOUT_S
from vps_bridge.client.errors import ClientError, PublishForbidden
from vps_bridge.client.round_trip import Moment, RoundTrip

SPEECH = Path(__file__).with_name("speech.flac")
FRESH_BEAT_S = 30.0
AGENT_TIMEOUT_S = 15.0  # the bridge's heartbeats come every 10 s, and an agent may just have connected
ACK_TIMEOUT_S = 10.0
DELETE_TIMEOUT_S = 5.0
POLL_S = 0.5
LOOK_AT_AGENT = "On that machine: omi-agent logs, omi-agent doctor --deep"
BRIDGE_LOG = "journalctl -u omi-bridge"


class PingStopped(ClientError):
    """The way ends here; the message says why, `remedy` what to type."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Keep both."""
        super().__init__(problem)
        self.remedy = remedy


class Ping:
    """One ping, on two connections; used once, by one thread."""

    def __init__(
        self, speaks: BrokerSettings, listens: BrokerSettings, *, agent_id: str | None, timeout_s: float
    ) -> None:
        """Prepare it: `speaks` has the backend's user, `listens` the bridge's."""
        self.trip = RoundTrip()
        self._speaks, self._agent_id = speaks, agent_id
        self._topics, self._name = Topics(speaks.topic_root), f"ping-{secrets.token_hex(12)}"
        self._deadline_s = time.monotonic() + timeout_s
        self._seen: queue.SimpleQueue[tuple[float, Incoming]] = queue.SimpleQueue()
        self._bridge: BridgeHeartbeat | None = None
        self._agents: dict[str, AgentHeartbeat] = {}
        self._job_id, self._deletion = "", ""
        self._is_deleted = False
        self._speaker = MqttSession(speaks, client_id=self._client_id(), on_message=lambda _: None)
        self._listener = MqttSession(
            listens, client_id=self._client_id(), on_message=lambda seen: self._seen.put((time.monotonic(), seen))
        )

    def run(self) -> RoundTrip:
        """Send, wait, delete. What goes wrong is told in the answer."""
        self._subscribe()
        self._listener.start()
        self._speaker.start()
        try:
            self._listener.wait_connected(CONNECT_TIMEOUT_S)
            self._speaker.wait_connected(CONNECT_TIMEOUT_S)
            self._wait_agent()
            self._send()
            self._wait_for(lambda: Moment.BACK in self.trip.moments, self._deadline_s)
            if Moment.BACK not in self.trip.moments:
                raise self._explain_stop()
        except PingStopped as stop:
            self.trip.problem, self.trip.remedy = str(stop), stop.remedy
        except (BrokerError, ClientError) as error:
            self.trip.problem, self.trip.remedy = str(error), "omi-bridge doctor"
        finally:
            self._delete()
            self._speaker.stop()
            self._listener.stop()
        return self.trip

    @staticmethod
    def _client_id() -> str:
        return f"ping-{secrets.token_hex(8)}"

    def _subscribe(self) -> None:
        topics, name = self._topics, self._name
        for topic in (topics.accepted(name), topics.updated(name)):
            self._listener.subscribe(topic)
        for kind in (TopicKind.PARTS, TopicKind.TURNS, TopicKind.FAILURE):
            self._listener.subscribe(topics.filter(kind, conversation_id=name))
        sender = self._agent_id or "+"
        for kind in (TopicKind.WANT, TopicKind.CONTROL):
            self._listener.subscribe(topics.filter(kind))
        self._listener.subscribe(topics.filter(TopicKind.AGENT_HEARTBEAT, sender_id=sender), qos=0)
        self._listener.subscribe(topics.filter(TopicKind.BRIDGE_HEARTBEAT), qos=0)

    # ------------------------------------------------------------------------------------ before anything is sent

    def _wait_agent(self) -> None:
        """Wait until a live bridge counts the agent, or any; an agent that has just started is in its next beat."""
        until_s = min(self._deadline_s, time.monotonic() + AGENT_TIMEOUT_S)
        self._wait_for(lambda: bool(self._live_agents()), until_s)
        if self._bridge is None:
            raise PingStopped(
                f"no live bridge is heard on this broker below {self._topics.root}",
                "Start it: systemctl start omi-bridge, or omi-bridge run (or set OMI_TOPIC_ROOT to its own); then: "
                "omi-bridge doctor",
            )
        if self._live_agents():
            return
        waiting = [name for name in self._bridge.agents_waiting if self._agent_id in (None, name)]
        if waiting:
            raise PingStopped(
                f"agent {waiting[0]} is live, and nobody has allowed it", f"omi-bridge agents allow {waiting[0]}"
            )
        who = f"agent {self._agent_id}" if self._agent_id else "no agent"
        found = self._agents.get(self._agent_id or "")
        state = f" (its last heartbeat says {found.state.value})" if found else ""
        is_live = "is not live" if self._agent_id else "is live"
        raise PingStopped(f"{who} {is_live}{state}", "On that machine: omi-agent doctor, omi-agent run")

    def _live_agents(self) -> list[str]:
        beat = self._bridge
        if beat is None:
            return []
        return [name for name in beat.agents_live_ids if self._agent_id in (None, name)]

    # --------------------------------------------------------------------------------------------- there and back

    def _send(self) -> None:
        audio = SPEECH.read_bytes()
        payload = AudioPayload(
            conversation_id=self._name,
            chunk_id=f"{self._name}-1",
            sha256=hashlib.sha256(audio).hexdigest(),
            audio=audio,
        )
        started = self._event(EventType.STARTED, temporary=True, only_agent=self._agent_id)
        self._publish(self._topics.events(self._name), started)
        # It may come before the audio that it names: so nothing has to be sent between the audio and its labels.
        self._publish(self._topics.events(self._name), self._event(EventType.COMPLETED, chunks=1))
        self.trip.moments[Moment.SENT] = time.monotonic()
        self._publish(self._topics.audio(self._name), encode(payload))
        self.trip.moments[Moment.AT_BROKER] = time.monotonic()

    def _publish(self, topic: str, payload: bytes) -> None:
        outcome = self._speaker.publish(topic, payload).wait(ACK_TIMEOUT_S)
        if outcome is PublishOutcome.REFUSED:
            raise PublishForbidden(topic, self._speaks.broker_username)
        if outcome in (PublishOutcome.LOST, PublishOutcome.TIMEOUT):
            raise PingStopped(f"the broker did not take the message ({outcome.value})", "omi-bridge doctor")

    def _event(self, kind: EventType, **fields: Any) -> bytes:  # noqa: ANN401 - fields of ConversationEvent
        return encode(ConversationEvent(event_id=f"e-{secrets.token_hex(12)}", type=kind, **fields))

    def _wait_for(self, is_done: Callable[[], bool], until_s: float) -> None:
        while not is_done():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            with suppress(queue.Empty):
                seen_s, incoming = self._seen.get(timeout=min(left_s, POLL_S))
                with suppress(SchemaError):  # a message that this version cannot read is skipped
                    self._note(seen_s, incoming)

    def _note(self, seen_s: float, incoming: Incoming) -> None:
        address, payload = self._topics.parse(incoming.topic), incoming.payload
        match address.kind:
            case TopicKind.BRIDGE_HEARTBEAT:
                self._note_bridge(decode(BridgeHeartbeat, payload), retained=incoming.retain)
            case TopicKind.AGENT_HEARTBEAT:
                self._agents[address.sender_id or ""] = decode(AgentHeartbeat, payload)
            case TopicKind.ACCEPTED:
                self._note_receipt(decode(Accepted, payload), seen_s)
            case TopicKind.CONTROL:
                self._note_control(address.sender_id or "", decode(AgentControl, payload), seen_s)
            case TopicKind.WANT if decode(AgentWant, payload).job_id == self._job_id:
                self._reach(Moment.ASKED, seen_s)
            case TopicKind.PARTS:
                part = decode(AudioPart, payload)
                if part.byte_offset + len(part.audio) >= part.total_bytes:
                    self._reach(Moment.AUDIO_OUT, seen_s)
            case TopicKind.TURNS:
                turns = decode(SpeakerTurns, payload)
                self.trip.worker_ms = turns.timings_ms.get("total", 0.0)
                self.trip.engine = " ".join(filter(None, (turns.engine.name, turns.engine.mode, turns.engine.device)))
                self._reach(Moment.RESULT, seen_s)
            case TopicKind.UPDATED if decode(ConversationUpdated, payload).state == "final":
                self._note_labels(decode(ConversationUpdated, payload), seen_s)
            case TopicKind.FAILURE:
                self._note_failure(decode(JobFailure, payload))

    def _reach(self, moment: Moment, seen_s: float) -> None:
        self.trip.moments.setdefault(moment, seen_s)

    def _note_bridge(self, beat: BridgeHeartbeat, *, retained: bool) -> None:
        is_old = retained and abs((datetime.now(UTC) - beat.sent_at).total_seconds()) > FRESH_BEAT_S
        if beat.state is BridgeState.ONLINE and not is_old:
            self._bridge = beat

    def _note_receipt(self, receipt: Accepted, seen_s: float) -> None:
        if receipt.event_id is not None and receipt.event_id == self._deletion:
            self._is_deleted = True
        elif receipt.verdict is Verdict.REFUSED:
            words = f"the bridge refused it: {receipt.reason}: {receipt.message or ''}"
            raise PingStopped(words.strip(), "omi-bridge doctor")
        elif receipt.chunk_id is not None:
            self._reach(Moment.ACCEPTED, seen_s)

    def _note_control(self, agent_id: str, control: AgentControl, seen_s: float) -> None:
        if control.type is ControlType.OFFER and control.conversation_id == self._name:
            if self._agent_id not in (None, agent_id):
                words = f"the bridge gave the test to {agent_id}: it is older than `ping AGENT`"
                raise PingStopped(words, "Upgrade the bridge, or ping without naming an agent.")
            self.trip.agent_id, self._job_id = agent_id, control.job_id or ""
            self._reach(Moment.LEASED, seen_s)
        elif control.type is ControlType.SETTLED and control.job_id == self._job_id:
            self._reach(Moment.STORED, seen_s)

    def _note_labels(self, update: ConversationUpdated, seen_s: float) -> None:
        if update.failed_jobs:
            failure = update.failures[0] if update.failures else None
            words = f"{failure.code}: {failure.message}" if failure else "see its log"
            raise PingStopped(f"the agent's work failed: {words}", LOOK_AT_AGENT)
        self._reach(Moment.BACK, seen_s)

    def _note_failure(self, failure: JobFailure) -> None:
        words = f"{self.trip.agent_id or 'the agent'} could not do it: {failure.code}: {failure.message}"
        raise PingStopped(words, LOOK_AT_AGENT)

    def _explain_stop(self) -> PingStopped:
        """Say why nothing came any more, as far as heartbeats tell."""
        agent = self.trip.agent_id or self._agent_id
        at = self.trip.stopped_at
        if Moment.ACCEPTED not in self.trip.moments:
            return PingStopped("the bridge is live, and sends no receipt", f"omi-bridge doctor; {BRIDGE_LOG}")
        if Moment.LEASED not in self.trip.moments:
            beats = [beat for name, beat in self._agents.items() if agent in (None, name)]
            busy = sum(len(beat.jobs) for beat in beats)
            words = f"no agent was free for it: {busy} jobs are held" if busy else "no agent got it"
            return PingStopped(words, "omi-bridge jobs; omi-bridge agents; wait longer with --timeout")
        if Moment.RESULT not in self.trip.moments:
            return PingStopped(f"{agent} has it and sends no result", LOOK_AT_AGENT)
        return PingStopped(f"the result is at the broker, and then nothing came ({at})", BRIDGE_LOG)

    # ------------------------------------------------------------------------------------------------- afterwards

    def _delete(self) -> None:
        """Delete the conversation; the bridge does it itself after an hour where this does not reach it."""
        if Moment.SENT not in self.trip.moments:
            return
        self._deletion = f"e-{secrets.token_hex(12)}"
        event = encode(ConversationEvent(event_id=self._deletion, type=EventType.DELETED))
        with suppress(NotConnected):
            self._speaker.publish(self._topics.events(self._name), event)
        until_s = time.monotonic() + DELETE_TIMEOUT_S
        while not self._is_deleted and time.monotonic() < until_s:
            with suppress(PingStopped):  # of the ping, which has ended
                self._wait_for(lambda: self._is_deleted, until_s)
