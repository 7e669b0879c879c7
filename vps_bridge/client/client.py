"""A client of the running bridge: what a backend does over MQTT, with receipts and timers.

Until a chunk or an event is `accepted` its publisher is responsible for it: the client keeps it and sends it again.
"""

from __future__ import annotations

import hashlib
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from broker.errors import NotConnected
from broker.receipts import Receipt
from broker.session import Incoming
from broker.settings import BrokerSettings
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
from schemas.corrections import Correction
from schemas.errors import SchemaError
from schemas.failure import FailureCode
from schemas.record import Message
from schemas.topics import TopicKind, Topics
from vps_bridge.client import connected
from vps_bridge.client.connected import RETRY_S, ConnectedClient, is_taken
from vps_bridge.client.errors import BridgeSilent, FileChanged
from vps_bridge.client.file_parts import read_parts
from vps_bridge.client.heard_bridges import HeardBridges
from vps_bridge.durations import seconds
from vps_bridge.publisher import Publisher

_LOG = structlog.get_logger(__name__)
SEGMENTS_PER_EVENT = 500
EVENT_BYTES = 1_000_000  # further segments go into the next event
WHOLE_BYTES = 1_000_000  # a file up to this size is sent in one message
PART_BYTES = 262_144
ENVELOPE_BYTES = 4_096  # the most that the message's other fields and the packet's header take
PARTS_AT_ONCE = 16  # sent, but not yet acknowledged by the broker


@dataclass(frozen=True)
class SentChunk:
    """A chunk the bridge accepted."""

    chunk_id: str
    bytes: int
    sha256: str


class BridgeClient(ConnectedClient):
    """Does with the bridge what the backend would. For one conversation, and used by one thread.

    Use it as a context manager. Methods raise `BridgeSilent` when no answer comes in `timeout_s`, `BridgeRefused`
    when it refuses, and `BrokerError` when the broker cannot be reached.
    """

    def __init__(self, settings: BrokerSettings, conversation_id: str) -> None:
        """Prepare a connection for one conversation."""
        self.conversation_id = conversation_id
        self._topics = topics = Topics(settings.topic_root)
        self._messages: queue.Queue[tuple[float, Incoming]] = queue.Queue()
        super().__init__(
            settings,
            {
                topics.accepted(conversation_id): 1,
                topics.updated(conversation_id): 1,
                topics.filter(TopicKind.BRIDGE_HEARTBEAT): 0,
            },
            lambda message: self._messages.put((time.monotonic(), message)),
        )
        self._publisher = Publisher(self._session)
        self._updates: list[ConversationUpdated] = []
        self._bridges = HeardBridges()
        self._ask_again_s = time.monotonic() + connected.ASK_AGAIN_S

    def wait_bridge(self, timeout_s: float = 35.0) -> BridgeHeartbeat:
        """Return the heartbeat of a bridge that is alive and takes audio."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            beat = self._bridges.find_accepting()
            if beat is not None:
                return beat
            self._read_one(deadline_s)
        last = self._bridges.last
        if last is not None and last.state is BridgeState.ONLINE and not last.accepting:
            why = last.last_error or f"its queue is full, {last.queue.jobs_ready} jobs wait"
            msg = f"the bridge takes no audio now ({why}): keep the audio, try later"
            raise BridgeSilent(msg)
        state = "no heartbeat" if last is None else f"its last heartbeat says {last.state}"
        msg = (
            f"no live bridge on this broker ({state}) below {self._topics.root}: start `omi-bridge run` on the VPS, or "
            "set OMI_TOPIC_ROOT to the bridge's"
        )
        raise BridgeSilent(msg)

    def wait_agent(self, timeout_s: float = 15.0) -> BridgeHeartbeat:
        """Return the bridge's heartbeat once it counts a live agent, else the last one that came in `timeout_s`.

        The first heartbeat may be older than an agent that has just connected; the next one counts it.
        """
        deadline_s = time.monotonic() + timeout_s
        beat = self.wait_bridge(timeout_s)
        while beat.agents_live == 0 and time.monotonic() < deadline_s:
            self._read_one(deadline_s)
            beat = self._bridges.last or beat
        return beat

    def start(self, started_at: datetime | None = None, *, timeout_s: float = 60.0, **facts: Any) -> None:  # noqa: ANN401 - fields of ConversationEvent
        """Say that the conversation started; `started_at` is where its transcript's times begin."""
        self.send_event(self._event(EventType.STARTED, started_at=started_at, **facts), timeout_s=timeout_s)

    def send_segments(
        self, segments: Sequence[TranscriptSegment], *, revision: int = 0, timeout_s: float = 60.0
    ) -> None:
        """Send a transcript, in as many events as it takes. Segments of a higher revision are not overwritten."""
        for batch in batch_segments(segments):
            self.send_event(self._event(EventType.SEGMENTS, segments=batch, revision=revision), timeout_s=timeout_s)

    def remove_segments(self, ids: Sequence[str], *, revision: int = 0, timeout_s: float = 60.0) -> None:
        """Say that segments are no longer part of the transcript."""
        for start in range(0, len(ids), SEGMENTS_PER_EVENT):
            batch = tuple(ids[start : start + SEGMENTS_PER_EVENT])
            self.send_event(self._event(EventType.SEGMENTS, removed=batch, revision=revision), timeout_s=timeout_s)

    def complete(self, *, chunks: int | None = None, timeout_s: float = 60.0) -> None:
        """Say that no more audio comes; `chunks` is how many there were."""
        self.send_event(self._event(EventType.COMPLETED, chunks=chunks), timeout_s=timeout_s)

    def correct(self, *corrections: Correction, by: str | None = None, timeout_s: float = 60.0) -> str:
        """Say who speaks; where the bridge refuses one of them it takes none. Returns the event's id, for `undo`."""
        return self._say(EventType.CORRECTED, timeout_s, corrections=corrections, by=by)

    def undo(self, event_id: str | None = None, *, write: int | None = None, by: str | None = None) -> str:
        """Take back what `correct` said, or a write of the history (`ConversationUpdated.write`)."""
        return self._say(EventType.UNDONE, 60.0, target_event_id=event_id, target_write=write, by=by)

    def redo(self, event_id: str | None = None, *, write: int | None = None, by: str | None = None) -> str:
        """Bring back what was undone; named as for `undo`."""
        return self._say(EventType.REDONE, 60.0, target_event_id=event_id, target_write=write, by=by)

    def delete(self, *, timeout_s: float = 60.0) -> None:
        """Delete the conversation everywhere."""
        self.send_event(self._event(EventType.DELETED), timeout_s=timeout_s)

    def send_event(self, event: ConversationEvent, *, timeout_s: float) -> None:
        """Send an event, repeatedly, until its receipt comes."""
        self._send_until_accepted(
            lambda: iter([(self._topics.events(self.conversation_id), event)]),
            lambda receipt: receipt.event_id == event.event_id,
            timeout_s,
        )

    def send_file(
        self,
        path: Path,
        *,
        timeout_s: float = 300.0,
        report: Callable[[int, int], None] = lambda _sent, _total: None,
        **facts: Any,  # noqa: ANN401 - fields of AudioPayload
    ) -> SentChunk:
        """Send an audio file as one chunk, whole or in parts; `report(sent, total)` is called with bytes sent so far.

        `facts` are further fields of `AudioPayload`, such as captured_at or max_speakers.
        """
        size = path.stat().st_size
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            for part in read_parts(file, path, size, PART_BYTES):
                sha256.update(part)
        facts.setdefault("chunk_id", f"f-{secrets.token_hex(12)}")
        base = {"conversation_id": self.conversation_id, "sha256": sha256.hexdigest(), **facts}
        self._send_until_accepted(
            lambda: self._payloads(path, size, base, report),
            lambda receipt: receipt.chunk_id == base["chunk_id"],
            timeout_s,
        )
        return SentChunk(base["chunk_id"], size, sha256.hexdigest())

    def wait_updated(
        self, *, final: bool, timeout_s: float, report: Callable[[BridgeHeartbeat], None] = lambda _beat: None
    ) -> ConversationUpdated:
        """Wait for an update (the final one, if asked) and confirm it with `applied`.

        Raises `BridgeRefused` where the conversation was deleted meanwhile: then none will come.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            while self._updates:
                update = self._updates.pop(0)
                self._confirm(update)
                if update.state == "final" or not final:
                    return update
            self._ask_again()
            receipt = self._read_one(deadline_s)
            if receipt is not None and receipt.reason == FailureCode.CONVERSATION_DELETED:
                is_taken(receipt, "see `omi-bridge watch`")
            if (beat := self._bridges.last) is not None:
                report(beat)
        msg = (
            f"conversation {self.conversation_id} was not updated within {seconds(timeout_s)}: "
            "look at `omi-bridge jobs` and `omi-bridge agents`"
        )
        raise BridgeSilent(msg)

    def _ask_again(self) -> None:
        """Ask for the latest update once in a while: of a deleted conversation the receipt says that it is."""
        if time.monotonic() < self._ask_again_s:
            return
        self._ask_again_s = time.monotonic() + connected.ASK_AGAIN_S
        self._publisher.send(self._topics.events(self.conversation_id), self._event(EventType.RESYNC))

    def _confirm(self, update: ConversationUpdated) -> None:
        event = self._event(EventType.APPLIED, updated_version=update.updated_version)
        self._publisher.send(self._topics.events(self.conversation_id), event)

    def _payloads(
        self, path: Path, size: int, base: dict[str, Any], report: Callable[[int, int], None]
    ) -> Iterator[tuple[str, Message]]:
        topic = self._topics.audio(self.conversation_id)
        room_bytes = max(1, self._session.max_packet_bytes - ENVELOPE_BYTES)
        if size <= min(WHOLE_BYTES, room_bytes):
            audio = path.read_bytes()[:size]
            if hashlib.sha256(audio).hexdigest() != base["sha256"]:
                raise FileChanged(path)
            yield topic, AudioPayload(**base, audio=audio)
            report(size, size)
            return
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            offset = 0
            for part in read_parts(file, path, size, min(PART_BYTES, room_bytes)):
                sha256.update(part)
                yield (
                    topic,
                    AudioPayload(
                        **base,
                        byte_offset=offset,
                        total_bytes=size,
                        part_sha256=hashlib.sha256(part).hexdigest(),
                        audio=part,
                    ),
                )
                offset += len(part)
                report(offset, size)
        if sha256.hexdigest() != base["sha256"]:
            raise FileChanged(path)

    def _send_until_accepted(
        self,
        messages: Callable[[], Iterator[tuple[str, Message]]],
        is_mine: Callable[[Accepted], bool],
        timeout_s: float,
    ) -> None:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self.wait_bridge(deadline_s - time.monotonic())
            began_s = time.monotonic()
            receipt = self._send_all(messages(), is_mine)
            now_s = time.monotonic()
            receipt = receipt or self._wait_receipt(is_mine, min(deadline_s, now_s + max(RETRY_S, now_s - began_s)))
            if receipt is None:
                continue
            if is_taken(receipt, "see `omi-bridge watch`"):
                self._updates.clear()  # they tell of what was there before
                return
            self._wait_receipt(lambda _receipt: False, min(deadline_s, time.monotonic() + RETRY_S))  # only to wait
        msg = f"no receipt within {seconds(timeout_s)}: is `omi-bridge run` alive, and may this user publish?"
        raise BridgeSilent(msg)

    def _send_all(
        self, messages: Iterator[tuple[str, Message]], is_mine: Callable[[Accepted], bool]
    ) -> Accepted | None:
        """Send until all are sent, the connection breaks, or a receipt says that the rest is not wanted: return that.

        The next attempt sends all of them again. Raises `PublishForbidden` where the broker says so: MQTT 5 only.
        """
        pending: deque[Receipt] = deque()
        try:
            for topic, message in messages:
                pending.append(self._session.publish(topic, encode(message)))
                if len(pending) >= PARTS_AT_ONCE:
                    self._wait_sent(pending.popleft())
                    while not self._messages.empty():
                        heard = self._read_one(time.monotonic())
                        if heard is not None and is_mine(heard):
                            return heard
            for receipt in pending:
                self._wait_sent(receipt)
        except NotConnected as error:
            _LOG.warning("connection_lost", conversation=self.conversation_id, reason=str(error))
        return None

    def _wait_receipt(self, is_mine: Callable[[Accepted], bool], deadline_s: float) -> Accepted | None:
        while time.monotonic() < deadline_s:
            receipt = self._read_one(deadline_s)
            if receipt is not None and is_mine(receipt):
                return receipt
        return None

    def _read_one(self, deadline_s: float) -> Accepted | None:
        """Read one message; return it if it is a receipt, keep it if it is an update or a heartbeat."""
        try:
            heard_s, message = self._messages.get(timeout=max(0.0, min(0.5, deadline_s - time.monotonic())))
        except queue.Empty:
            return None
        try:
            kind = self._topics.parse(message.topic).kind
            if kind is TopicKind.ACCEPTED:
                return decode(Accepted, message.payload)
            if kind is TopicKind.UPDATED:
                self._updates.append(decode(ConversationUpdated, message.payload))
            elif kind is TopicKind.BRIDGE_HEARTBEAT:
                self._bridges.note(decode(BridgeHeartbeat, message.payload), heard_s, retained=message.retain)
        except SchemaError as error:
            _LOG.warning("unreadable", topic=message.topic, error=str(error))
        return None

    def _say(self, kind: EventType, timeout_s: float, **fields: Any) -> str:  # noqa: ANN401 - fields of ConversationEvent
        event = self._event(kind, **fields)
        self.send_event(event, timeout_s=timeout_s)
        return event.event_id

    def _event(self, kind: EventType, **fields: Any) -> ConversationEvent:  # noqa: ANN401 - fields of ConversationEvent
        return ConversationEvent(event_id=f"e-{secrets.token_hex(12)}", type=kind, **fields)


def batch_segments(segments: Sequence[TranscriptSegment]) -> Iterator[tuple[TranscriptSegment, ...]]:
    """Split a transcript into events: at most `SEGMENTS_PER_EVENT` segments and about `EVENT_BYTES` in each."""
    batch: list[TranscriptSegment] = []
    batch_bytes = 0
    for segment in segments:
        size = len(segment.model_dump_json(by_alias=True, exclude_none=True).encode())
        if batch and (len(batch) >= SEGMENTS_PER_EVENT or batch_bytes + size > EVENT_BYTES):
            yield tuple(batch)
            batch, batch_bytes = [], 0
        batch.append(segment)
        batch_bytes += size + 1
    if batch:
        yield tuple(batch)
