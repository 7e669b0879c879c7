"""The client: what a backend says to the bridge and hears from it, with receipts and timers.

That the broker took a message is no delivery. Until the bridge has answered `accepted`, audio and events are the
caller's: the client keeps them and sends them again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Self

from paho.mqtt.client import MQTTMessage

from omi_diarization_client import wire
from omi_diarization_client.connection import BrokerConnection, Login, SentMessage
from omi_diarization_client.errors import NoAnswer, NotAllowed
from omi_diarization_client.heartbeat import BridgePulse
from omi_diarization_client.labels import ConversationLabels
from omi_diarization_client.receipts import AwaitedReceipt, AwaitedReceipts, is_taken, left_s
from omi_diarization_client.recording import Audio, AudioSource
from omi_diarization_client.updates import MAX_KEPT, HeardUpdates

_LOG = logging.getLogger("omi_diarization_client")
CONNECT_S = 10.0
RETRY_S = 5.0
WHOLE_BYTES = 1_000_000  # audio up to this size is sent in one message
PART_BYTES = 262_144
ENVELOPE_BYTES = 4_096  # the most that the message's other fields and the packet's header take
PARTS_AT_ONCE = 16  # sent, but not yet acknowledged by the broker
SEGMENTS_PER_EVENT = 500
EVENT_BYTES = 1_000_000  # further segments go into the next event

Payloads = Callable[[], Iterator[tuple[str, bytes]]]


class Client:
    """Does with the bridge what a backend has to, for any number of conversations. Safe for every thread.

    Use it as a context manager. Methods raise errors of `OmiClientError`, whose message says what to do: `NoAnswer`
    where the bridge is silent for `timeout_s`, `RefusedByBridge` where it says no, `NotAllowed` and `BrokerUnavailable`
    of the broker; `ValueError` where an argument cannot be right.
    """

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        *,
        root: str = "omi/v1",
        mqtt_version: str = "auto",
        mqtt_qos: int = 1,
    ) -> None:
        """Prepare a connection to `mqtt://host:port` or, with a CA file where it is a private one, `mqtts://…`.

        `url` names all servers of a cluster, between commas.

        `mqtt_version` is 5, 3.1.1 or auto, which tries 5 first; `root` is the topic root of the bridge. `mqtt_qos`
        is 0 with a NATS cluster, which writes to its disks whatever is sent with 1.
        """
        for level in root.split("/"):
            wire.check_id("a level of the topic root", level)
        self._root, self._user = root, user
        login = Login(url, user, password, os.fspath(ca) if ca is not None else None, mqtt_version, mqtt_qos)
        self._connection = BrokerConnection(login, self._receive)
        self._pulse, self._receipts, self._updates = BridgePulse(), AwaitedReceipts(), HeardUpdates()
        self._lock = threading.Lock()
        self._conversations: OrderedDict[str, list[str]] = OrderedDict()  # those heard, with their topic filters

    def __enter__(self) -> Self:
        """Connect."""
        try:
            self._connection.start(CONNECT_S)
        except BaseException:
            self._connection.stop()
            raise
        self._connection.subscribe(f"{self._root}/bridge/+/heartbeat", 0, CONNECT_S)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._connection.stop()

    # ------------------------------------------------------------------------------------- conversations

    def publish(
        self,
        conversation_id: str,
        audio: Audio,
        *,
        captured_at: datetime | None = None,
        transcript: Sequence[wire.Message] | None = None,
        started_at: datetime | None = None,
        owner: str | None = None,
        timeout_s: float = 300.0,
        **facts: object,
    ) -> str:
        """Send a whole recorded conversation: its transcript, if there is one, its audio, and that it is complete.

        Returns the chunk's id once all of it is accepted; from then on it is the bridge's to lose.

        Args:
            conversation_id: whose labels `wait` returns.
            audio: a file's path, or the bytes of one (WAV, FLAC, Ogg, MP3, M4A, …).
            captured_at: absolute time of its first sample.
            transcript: segments as dicts with `text`, `start` and `end` in seconds, and more of the contract's fields
                where they are known: `id`, `speaker`, `person_id`, `words`.
            started_at: absolute time of the transcript's zero; None: that of the first sample.
            owner: whose conversation it is: voices of this owner's people are recognised in it.
            timeout_s: for all of it.
            facts: further fields of the audio, such as `max_speakers`.
        """
        deadline_s = time.monotonic() + timeout_s
        if transcript is not None or owner is not None or started_at is not None:
            self.start(conversation_id, started_at or captured_at, owner=owner, timeout_s=left_s(deadline_s))
        if transcript:
            self.send_segments(conversation_id, transcript, timeout_s=left_s(deadline_s))
        chunk_id = self.send_audio(
            conversation_id, audio, captured_at=captured_at, timeout_s=left_s(deadline_s), **facts
        )
        self.complete(conversation_id, chunks=1, timeout_s=left_s(deadline_s))
        return chunk_id

    def send_audio(self, conversation_id: str, audio: Audio, *, timeout_s: float = 300.0, **facts: object) -> str:
        """Send one chunk, whole or in parts, until it is accepted; returns its id.

        `facts` describe it: `captured_at`, `sequence` (it is the n-th chunk), `chunk_id`, `max_speakers`, …
        """
        topic = wire.conversation_topic(self._root, conversation_id, "audio")
        recording = AudioSource(audio)
        chunk_id = wire.check_id("chunk id", facts.pop("chunk_id", None) or wire.new_id("c"))
        base = wire.make_audio(conversation_id=conversation_id, chunk_id=chunk_id, sha256=recording.sha256, **facts)

        def payloads() -> Iterator[tuple[str, bytes]]:
            for fields in self._parts(recording):
                yield topic, wire.encode_audio(base | fields)

        self._hear(conversation_id)
        self._send(chunk_id, payloads, timeout_s)
        return chunk_id

    def start(
        self, conversation_id: str, started_at: datetime | None = None, *, timeout_s: float = 60.0, **facts: object
    ) -> None:
        """Say that a conversation started; `facts` are `owner`, `language`, `max_speakers` and so on."""
        self._say(conversation_id, "started", timeout_s, started_at=started_at, **facts)

    def send_segments(
        self, conversation_id: str, transcript: Sequence[wire.Message], *, revision: int = 0, timeout_s: float = 60.0
    ) -> None:
        """Send a transcript or a part of it, in as many events as it takes; what has a higher revision stays."""
        for batch in _batches(wire.make_segments(conversation_id, list(transcript))):
            self._say(conversation_id, "segments", timeout_s, segments=batch, revision=revision)

    def complete(self, conversation_id: str, *, chunks: int | None = None, timeout_s: float = 60.0) -> None:
        """Say that no more audio comes; `chunks` is how many there were."""
        self._say(conversation_id, "completed", timeout_s, chunks=chunks)

    def correct(
        self, conversation_id: str, *corrections: wire.Message, by: str | None = None, timeout_s: float = 60.0
    ) -> str:
        """Say who speaks, such as `{"kind": "same_voice", "speaker_ids": [0, 1]}`. Returns the event's id."""
        return self._say(conversation_id, "corrected", timeout_s, corrections=list(corrections), by=by)

    def undo(self, conversation_id: str, event_id: str, *, by: str | None = None, timeout_s: float = 60.0) -> str:
        """Take back what `correct` said."""
        return self._say(conversation_id, "undone", timeout_s, target_event_id=event_id, by=by)

    def redo(self, conversation_id: str, event_id: str, *, by: str | None = None, timeout_s: float = 60.0) -> str:
        """Bring back what `undo` took."""
        return self._say(conversation_id, "redone", timeout_s, target_event_id=event_id, by=by)

    def delete(self, conversation_id: str, *, timeout_s: float = 60.0) -> None:
        """Delete a conversation everywhere, for good."""
        self._say(conversation_id, "deleted", timeout_s)

    # --------------------------------------------------------------------------------------------- labels

    def wait(self, conversation_id: str, *, final: bool = True, timeout_s: float = 3600.0) -> ConversationLabels:
        """Return a conversation's next labels (the final ones, if asked), and tell the bridge that they came."""
        self._hear(conversation_id)
        labels = self._updates.take(conversation_id, final=final, timeout_s=timeout_s)
        if labels is None:
            remedy = "is an agent live and allowed? On the VPS see `omi-bridge agents` and `omi-bridge jobs`"
            raise NoAnswer(f"no labels of {conversation_id} within {timeout_s:g} s: {remedy}")
        self.confirm(labels)
        return labels

    def confirm(self, labels: ConversationLabels) -> None:
        """Tell the bridge that labels were dealt with: until then it offers them again, ever more rarely."""
        self._updates.confirm(labels)
        self._publish_applied(labels)

    def updates(
        self, *, timeout_s: float | None = None, confirms: bool = True
    ) -> Generator[ConversationLabels, None, None]:
        """Yield labels of all conversations as they come, until none came for `timeout_s` (None: for ever).

        The bridge is told that they came when the next ones are asked for: what the loop's body did not finish, because
        it raised or died, is offered again. Where `confirms` is False, `confirm` says which were dealt with.
        """
        self._updates.listen()
        self._connection.subscribe(wire.conversation_topic(self._root, "+", "updated"), 1, CONNECT_S)
        while (labels := self._updates.take_any(timeout_s)) is not None:
            yield labels
            if confirms:
                self.confirm(labels)

    # --------------------------------------------------------------------------------------------- people

    def enrol(
        self,
        person_id: str,
        *recordings: Audio,
        owner: str | None = None,
        name: str | None = None,
        consent_date: date | None = None,
        timeout_s: float = 600.0,
    ) -> wire.Message:
        """Learn a voice from recordings of one person alone; they are thrown away afterwards.

        Returns the outcome: `outcome` is `learned`, or why not: `two_voices`, `little_speech`, `asks`, `no_voice`.
        """
        deadline_s = time.monotonic() + timeout_s
        conversation_id = wire.new_id("enrolment")
        wire.check_id("person id", person_id)
        self.start(conversation_id, datetime.now(UTC), owner=owner, enrols=person_id, timeout_s=left_s(deadline_s))
        for recording in recordings:
            self.send_audio(conversation_id, recording, timeout_s=left_s(deadline_s))
        self.complete(conversation_id, chunks=len(recordings), timeout_s=left_s(deadline_s))
        told = self.wait(conversation_id, timeout_s=left_s(deadline_s)).enrolment or {}
        if told.get("outcome") == "learned":
            if name is not None:
                self.tell(person_id, "named", owner=owner, name=name, timeout_s=left_s(deadline_s))
            if consent_date is not None:
                self.tell(person_id, "consented", owner=owner, consent_date=consent_date, timeout_s=left_s(deadline_s))
        return told

    def forget(self, person_id: str, *, owner: str | None = None, timeout_s: float = 60.0) -> None:
        """Erase a person everywhere, for good."""
        self.tell(person_id, "forgotten", owner=owner, timeout_s=timeout_s)

    def tell(self, person_id: str, kind: str, *, timeout_s: float = 60.0, **fields: object) -> str:
        """Say that a person is `named`, `consented`, `owner`, `confirmed` or `forgotten`. Returns the event's id."""
        topic = wire.person_topic(self._root, person_id, "events")
        event = wire.make_person_event(kind, **fields)
        self._connection.subscribe(wire.person_topic(self._root, person_id, "accepted"), 1, CONNECT_S)
        payload = wire.encode_json(event)
        try:
            self._send(event["event_id"], lambda: iter([(topic, payload)]), timeout_s)
        finally:
            self._connection.unsubscribe(wire.person_topic(self._root, person_id, "accepted"))
        return str(event["event_id"])

    # -------------------------------------------------------------------------------- sending and hearing

    def _say(self, conversation_id: str, kind: str, timeout_s: float, **fields: object) -> str:
        topic = wire.conversation_topic(self._root, conversation_id, "events")
        event = wire.make_event(kind, **fields)
        payload = wire.encode_json(event)
        self._hear(conversation_id)
        self._send(event["event_id"], lambda: iter([(topic, payload)]), timeout_s)
        return str(event["event_id"])

    def _send(self, name: str, payloads: Payloads, timeout_s: float) -> None:
        """Send, repeatedly, until the receipt comes."""
        deadline_s = time.monotonic() + timeout_s
        awaited = AwaitedReceipt()
        self._receipts.expect(name, awaited)
        try:
            while time.monotonic() < deadline_s:
                self._pulse.wait(left_s(deadline_s))
                took_s = self._send_once(payloads(), awaited)
                receipt = awaited.take(min(left_s(deadline_s), max(RETRY_S, took_s)))
                if receipt is not None:
                    if is_taken(receipt):
                        return
                    time.sleep(min(RETRY_S, left_s(deadline_s)))
        finally:
            self._receipts.forget(awaited)
        raise NoAnswer(f"no receipt within {timeout_s:g} s: is `omi-bridge run` alive, and may this user publish?")

    def _send_once(self, payloads: Iterator[tuple[str, bytes]], awaited: AwaitedReceipt) -> float:
        """Send all, or until the connection breaks or the bridge has answered; returns how long it took, in seconds."""
        began_s = time.monotonic()
        pending: deque[SentMessage] = deque()
        for topic, payload in payloads:
            self._receipts.expect(hashlib.sha256(payload).hexdigest(), awaited)
            pending.append(self._connection.publish(topic, payload))
            if len(pending) >= PARTS_AT_ONCE and (not self._is_sent(pending.popleft()) or awaited.heard.is_set()):
                return time.monotonic() - began_s
        for sent in pending:
            self._is_sent(sent)
        return time.monotonic() - began_s

    def _is_sent(self, sent: SentMessage) -> bool:
        outcome = sent.wait(RETRY_S)
        if outcome == "refused":
            who = f"user {self._user!r}" if self._user else "a client without a user name"
            raise NotAllowed(f"the broker does not let {who} publish to {sent.topic}: use the backend's user")
        return outcome == "taken"

    def _parts(self, recording: AudioSource) -> Iterator[wire.Message]:
        room_bytes = max(1, self._connection.max_packet_bytes - ENVELOPE_BYTES)
        if recording.size <= min(WHOLE_BYTES, room_bytes):
            yield from ({"audio": audio} for _, audio in recording.parts(WHOLE_BYTES))
            return
        for offset, part in recording.parts(min(PART_BYTES, room_bytes)):
            sha256 = hashlib.sha256(part).hexdigest()
            yield {"byte_offset": offset, "total_bytes": recording.size, "part_sha256": sha256, "audio": part}

    def _hear(self, conversation_id: str) -> None:
        """Listen to a conversation's receipts and updates; to at most `MAX_KEPT` conversations at once."""
        filters = [wire.conversation_topic(self._root, conversation_id, leaf) for leaf in ("accepted", "updated")]
        with self._lock:
            is_new = conversation_id not in self._conversations
            self._conversations[conversation_id] = filters
            self._conversations.move_to_end(conversation_id)
            unheard = self._conversations.popitem(last=False)[1] if len(self._conversations) > MAX_KEPT else []
        for topic_filter in filters if is_new else ():
            self._connection.subscribe(topic_filter, 1, CONNECT_S)
        for topic_filter in unheard:
            self._connection.unsubscribe(topic_filter)

    def _publish_applied(self, labels: ConversationLabels) -> None:
        """Tell the bridge once: where it gets lost the bridge offers the update again, and is told again."""
        topic = wire.conversation_topic(self._root, labels.conversation_id, "events")
        self._connection.publish(topic, wire.encode_json(wire.make_event("applied", updated_version=labels.version)))

    def _receive(self, message: MQTTMessage) -> None:
        leaf = message.topic.rsplit("/", maxsplit=1)[-1]
        try:
            content = wire.decode_json(message.payload)
            if leaf == "heartbeat":
                self._pulse.note(content, retained=message.retain)
            elif leaf == "accepted":
                if self._receipts.settle(content):
                    self._updates.drop(str(content.get("conversation_id")))
            elif leaf == "updated":
                labels = ConversationLabels.read(content)
                if not self._updates.note(labels):
                    self._publish_applied(labels)
        except (ValueError, KeyError) as error:
            _LOG.warning("a message on %s cannot be read: %s", message.topic, type(error).__name__)


def _batches(segments: list[wire.Message]) -> Iterator[list[wire.Message]]:
    """Split a transcript into events: at most `SEGMENTS_PER_EVENT` segments and about `EVENT_BYTES` in each."""
    batch: list[wire.Message] = []
    batch_bytes = 0
    for segment in segments:
        size = len(wire.encode_json(segment))
        if batch and (len(batch) >= SEGMENTS_PER_EVENT or batch_bytes + size > EVENT_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(segment)
        batch_bytes += size
    if batch:
        yield batch
