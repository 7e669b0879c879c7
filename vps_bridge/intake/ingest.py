"""Ingest: audio and events of the backend are checked, stored, written to the ledger, and only then accepted."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from schemas.audio import AudioPayload, ChunkDescription
from schemas.audio_container import CONTAINER_NAMES, find_container
from schemas.codec import decode, read_envelope
from schemas.conversation import Accepted, ConversationEvent, EventType, Verdict
from schemas.errors import SchemaError
from schemas.event_fields import check_fields
from schemas.failure import FailureCode, JobFailure
from schemas.topics import Topics
from vps_bridge.conversations.store import ConversationStore, SegmentIncomplete
from vps_bridge.errors import Refusal, event_id_conflict, refusal_of
from vps_bridge.intake.audio_length import has_magic, is_raw, measure_length, raw_duration_s, recognise
from vps_bridge.intake.corrections import Corrections
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.erasure import erase_conversation
from vps_bridge.intake.measured_length import AudioLength
from vps_bridge.intake.partial_chunks import INCOMING, PartialChunks
from vps_bridge.intake.spool import Spool
from vps_bridge.intake.upload import Upload, check_size
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import Deleted, NewChunk, SpeakerHints
from vps_bridge.ledger.refusals import RefusedChunk
from vps_bridge.publisher import Publisher
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
T = TypeVar("T")
_MSGPACK_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)
COUNT_EVERY_S = 1.0  # the queue is counted this often, not for every chunk: its limits need not be met exactly


@dataclass(frozen=True)
class Taken:
    """The outcome for a chunk: its receipt (None: parts are still to come), and whether the chunk is new."""

    receipt: Accepted | None
    is_new: bool = False


@dataclass(frozen=True)
class TakenEvent:
    """The outcome for an event: its receipt (None: `delete` returns it), and the event where there is more to do."""

    receipt: Accepted | None
    event: ConversationEvent | None = None


class _UnacceptedChunk:
    """A chunk that a publisher sends, over MQTT or HTTP."""

    def __init__(self, conversation_id: str, sha256: str, size_bytes: int, description: ChunkDescription) -> None:
        self.conversation_id, self.sha256, self.bytes = conversation_id, sha256, size_bytes
        self.description = description
        self.chunk_id = description.chunk_id or _default_chunk_id(description, sha256)


class Ingest:
    """Takes audio and events of all conversations. Runs on the bridge's own thread only."""

    def __init__(
        self,
        settings: BridgeSettings,
        ledger: Ledger,
        spool: Spool,
        store: ConversationStore,
        publisher: Publisher,
        disk_reserve: DiskReserve,
    ) -> None:
        """Use this ledger, spool and store; incomplete chunks are kept in a directory `incoming` beside the spool."""
        self._disk_reserve = disk_reserve
        self._settings, self._ledger, self._spool, self._store = settings, ledger, spool, store
        self._corrections = Corrections(ledger, store)
        self._publisher, self._topics = publisher, Topics(settings.topic_root)
        self._partial_chunks = PartialChunks(settings.root / INCOMING)
        self._queue, self._counted_s, self._accepted_bytes = ledger.jobs.counts(), time.monotonic(), 0
        self.left_strays = False
        """Whether the spool may hold a file that the ledger does not know."""

    def take_audio(self, conversation_id: str, data: bytes) -> Taken:
        """Take a chunk, a part of one, or a bare audio file that was published over MQTT."""
        try:
            payload = self._read_audio(conversation_id, data)
        except (SchemaError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else Refusal(FailureCode(error.code), str(error))
            chunk_id = read_envelope(AudioPayload, data).chunk_id
            sha256 = hashlib.sha256(data).hexdigest()
            self.note_refused(conversation_id, chunk_id, refusal, sha256=sha256, size_bytes=len(data))
            return Taken(self._send_refusal(conversation_id, refusal, chunk_id=chunk_id, sha256=sha256))
        chunk = _UnacceptedChunk(conversation_id, payload.sha256, _total_bytes(payload), payload)
        return self._take_or_refuse(chunk, lambda: self._store_payload(chunk, payload))

    def take_upload(
        self, conversation_id: str, description: ChunkDescription, upload: Upload, sha256: str | None
    ) -> Taken:
        """Take a chunk that was uploaded over HTTP; if it is accepted, its file is moved into the spool.

        `sha256` is the hash its publisher states, if it states one.
        """
        chunk = _UnacceptedChunk(conversation_id, sha256 or upload.sha256, upload.bytes, description)
        return self._take_or_refuse(chunk, lambda: self._store_upload(chunk, upload))

    def _take_or_refuse(self, chunk: _UnacceptedChunk, store: Callable[[], str | None]) -> Taken:
        """Take a chunk; `store` writes it to the spool and returns its name, or None where parts are still to come."""
        if self._ledger.conversations.is_deleted(chunk.conversation_id):
            return Taken(self._send_receipt(chunk, Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED))
        try:
            is_known = self._is_known(chunk)
            is_new = not is_known and self._store_and_accept(chunk, store)
        except Refusal as refusal:
            sha256, chunk_id = chunk.sha256, chunk.chunk_id
            self.note_refused(chunk.conversation_id, chunk_id, refusal, sha256=sha256, size_bytes=chunk.bytes)
            return Taken(self._send_refusal(chunk.conversation_id, refusal, chunk_id=chunk_id, sha256=sha256))
        return Taken(self._send_receipt(chunk, Verdict.ACCEPTED) if is_known or is_new else None, is_new=is_new)

    def take_event(self, conversation_id: str, data: bytes) -> TakenEvent:
        """Take an event. Where it changed something the event itself is returned too.

        `deleted` is left to `delete`, even when it comes again: that completes a deletion that was interrupted.
        """
        try:
            event = decode(ConversationEvent, data)
            check_fields(event)
        except SchemaError as error:
            refusal = Refusal(FailureCode(error.code), str(error))
            event_id = read_envelope(ConversationEvent, data).event_id
            sha256 = hashlib.sha256(data).hexdigest()
            return TakenEvent(self._send_refusal(conversation_id, refusal, event_id=event_id, sha256=sha256))
        events = self._ledger.events
        if event.type is EventType.DELETED:
            return TakenEvent(None, event)
        answer = events.find_answer(event, conversation_id)
        if answer is not None and answer[1] != FailureCode.EVENT_ID_CONFLICT:
            if answer[1] == FailureCode.REVISION_STALE:
                events.note(event, conversation_id, *answer)
            return TakenEvent(self._send_event_receipt(event, conversation_id, *answer))
        try:
            if answer is not None:
                raise event_id_conflict(event.event_id)
            self._take_words(conversation_id, event)
        except Refusal as refusal:
            sha256 = hashlib.sha256(data).hexdigest()
            return TakenEvent(self._send_refusal(conversation_id, refusal, event_id=event.event_id, sha256=sha256))
        events.note(event, conversation_id, Verdict.ACCEPTED)
        return TakenEvent(self._send_event_receipt(event, conversation_id, Verdict.ACCEPTED), event)

    def _take_words(self, conversation_id: str, event: ConversationEvent) -> None:
        """Store what an event says of segments and labels; nothing where it says nothing of them. Raises `Refusal`."""
        if event.type is EventType.SEGMENTS:
            try:
                self._store.upsert_segments(conversation_id, event.revision, event.segments, event.removed)
            except SegmentIncomplete as error:
                raise Refusal(FailureCode.PAYLOAD_MALFORMED, str(error)) from error
        elif event.type in (EventType.CORRECTED, EventType.UNDONE, EventType.REDONE):
            write = self._corrections.take(conversation_id, event)
            _LOG.info("labels_corrected", conversation=conversation_id, what=event.type, write=write)

    def note_refused(
        self, conversation_id: str, chunk_id: str | None, refusal: Refusal, *, sha256: str, size_bytes: int
    ) -> None:
        """Note that audio was refused, for whoever looks for it later."""
        code, words = refusal.code, refusal.message
        self._ledger.refusals.note(RefusedChunk(conversation_id, chunk_id or "", sha256, size_bytes, code, words))

    def delete(self, event: ConversationEvent, conversation_id: str) -> tuple[Accepted, Deleted]:
        """Delete a conversation: write its tombstone, erase everything, then send the receipt."""
        deleted = self.erase(conversation_id)
        return self._send_event_receipt(event, conversation_id, Verdict.ACCEPTED), deleted

    def erase(self, conversation_id: str) -> Deleted:
        """Delete a conversation, as its backend or an operator asked, now or before this bridge was started."""
        self._partial_chunks.discard(conversation_id)
        self._ledger.refusals.forget(conversation_id)
        deleted = erase_conversation(conversation_id, self._ledger, self._spool, self._store)
        _LOG.info("conversation_deleted", conversation=conversation_id, chunks=len(deleted.spool_names))
        return deleted

    def clean_up(self, now_s: float) -> None:
        """Delete chunks whose parts stopped coming, and files that a failure of the disk left in the spool."""
        self._partial_chunks.drop_stale(now_s)
        if self.left_strays:
            self._spool.sweep(self._ledger.chunks.spool_names())
            self.left_strays = False

    def _read_audio(self, conversation_id: str, data: bytes) -> AudioPayload:
        if not data:
            raise Refusal(FailureCode.AUDIO_EMPTY, "the payload is empty: publish at least one sample")
        if data[0] not in _MSGPACK_MAPS:
            if find_container(data) is None:
                msg = f"neither an audio-payload nor a file that holds {CONTAINER_NAMES}: publish one of these"
                raise Refusal(FailureCode.AUDIO_UNDECODABLE, msg)
            sha256 = hashlib.sha256(data).hexdigest()
            return AudioPayload(conversation_id=conversation_id, chunk_id=_new_chunk_id(), sha256=sha256, audio=data)
        payload = decode(AudioPayload, data)
        if payload.conversation_id != conversation_id:
            raise Refusal(FailureCode.PAYLOAD_MALFORMED, "conversation_id differs from the topic's")
        return payload

    def _store_and_accept(self, chunk: _UnacceptedChunk, store: Callable[[], str | None]) -> bool:
        """Take a chunk or a part; return whether the chunk is accepted now. Raises `Refusal`."""
        if chunk.bytes == 0:
            raise Refusal(FailureCode.AUDIO_EMPTY, "the chunk holds no bytes: publish at least one sample")
        check_size(chunk.bytes, self._settings.max_chunk_bytes)
        name = store()
        if name is None:
            return False
        try:
            new = self._describe_chunk(chunk, name)
        except Refusal:
            self._spool.remove(name)
            raise
        self._accept(new, chunk.description)
        return True

    def _store_payload(self, chunk: _UnacceptedChunk, payload: AudioPayload) -> str | None:
        if payload.is_whole:
            if hashlib.sha256(payload.audio).hexdigest() != payload.sha256:
                raise _wrong_sha256()
            self.check_room(chunk.bytes)
            return self._on_disk(lambda: self._spool.write(payload.audio))
        if not self._partial_chunks.knows(chunk.conversation_id, chunk.chunk_id):
            self.check_room(chunk.bytes)
        now_s = time.monotonic()
        partial = self._on_disk(lambda: self._partial_chunks.add(chunk.conversation_id, chunk.chunk_id, payload, now_s))
        if partial is None:
            return None
        try:
            return self._on_disk(lambda: self._spool.adopt(partial.path))
        finally:
            partial.discard()

    def _store_upload(self, chunk: _UnacceptedChunk, upload: Upload) -> str:
        if upload.sha256 != chunk.sha256:
            raise _wrong_sha256()
        self.check_room(chunk.bytes, written_bytes=upload.bytes)
        return self._on_disk(lambda: self._spool.adopt(upload.path))

    def _is_known(self, chunk: _UnacceptedChunk) -> bool:
        known = self._ledger.chunks.find(chunk.conversation_id, chunk.chunk_id)
        if known is not None and known.sha256 != chunk.sha256:
            msg = f"chunk {chunk.chunk_id} was accepted with other audio: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        return known is not None

    def _accept(self, new: NewChunk, description: ChunkDescription) -> None:
        hints = SpeakerHints(description.num_speakers, description.min_speakers, description.max_speakers)
        try:
            is_accepted = self._ledger.chunks.accept(new, hints, final=description.final)
        except Exception:
            self.left_strays = True  # it is not certain that the ledger has the chunk
            raise
        if not is_accepted:
            self._spool.remove(new.spool_name)
            raise Refusal(FailureCode.CONVERSATION_DELETED, "the conversation was deleted meanwhile")
        self._accepted_bytes += new.bytes
        self._ledger.refusals.note_accepted(new.conversation_id, new.chunk_id)
        _LOG.info(
            "chunk_accepted",
            conversation=new.conversation_id,
            chunk=new.chunk_id,
            bytes=new.bytes,
            seconds=new.duration_s,
            estimated=new.duration_estimated,
        )

    def _describe_chunk(self, chunk: _UnacceptedChunk, name: str) -> NewChunk:
        description, path = chunk.description, self._spool.path(name)
        encoding = description.encoding
        if is_raw(encoding) and self._on_disk(lambda: has_magic(path)):
            encoding = "auto"  # samples that begin as a file does are a file: read as samples its voices would be noise
        if is_raw(encoding):
            rate, channels = description.sample_rate or 1, description.channels or 1
            length = AudioLength(raw_duration_s(encoding, chunk.bytes, rate, channels))
        else:
            found = self._on_disk(lambda: recognise(path))
            if found is None:
                msg = (
                    f"the bytes are not those of {CONTAINER_NAMES}, and no raw encoding is named: publish one of these"
                )
                raise Refusal(FailureCode.AUDIO_UNDECODABLE, msg)
            encoding = found.name
            length = self._on_disk(lambda: measure_length(path, found, description.duration_s))
        return NewChunk(
            conversation_id=chunk.conversation_id,
            chunk_id=chunk.chunk_id,
            sha256=chunk.sha256,
            bytes=chunk.bytes,
            spool_name=name,
            encoding=encoding,
            sequence=description.sequence,
            captured_at_s=description.captured_at.timestamp() if description.captured_at else None,
            captured_error_s=description.captured_error_s,
            sample_rate=description.sample_rate,
            channels=description.channels,
            duration_s=length.duration_s,
            duration_estimated=length.is_estimated,
        )

    def check_room(self, size: int, *, written_bytes: int = 0) -> None:
        """Raise `Refusal` where there is no room for `size` bytes, of which `written_bytes` are written already."""
        now_s = time.monotonic()
        if now_s - self._counted_s > COUNT_EVERY_S:
            self._queue, self._counted_s, self._accepted_bytes = self._ledger.jobs.counts(), now_s, 0
        jobs = self._queue.jobs_ready + self._queue.jobs_leased
        held = self._queue.bytes + self._accepted_bytes + self._partial_chunks.reserved_bytes
        if jobs >= self._settings.max_queue_jobs or held + size > self._settings.max_queue_bytes:
            msg = f"{jobs} jobs and {held} bytes wait: keep the audio and publish it later"
            raise Refusal(FailureCode.INGEST_FULL, msg)
        if self._partial_chunks.reserved_bytes + size - written_bytes >= self._disk_reserve.room_bytes():
            msg = "the bridge's disk is full: keep the audio and publish it later, make room on the VPS"
            raise Refusal(FailureCode.DISK_FULL, msg)

    def _on_disk(self, use: Callable[[], T]) -> T:
        try:
            return use()
        except OSError as error:
            raise refusal_of(error) from error

    def _send_receipt(self, chunk: _UnacceptedChunk, verdict: Verdict, reason: FailureCode | None = None) -> Accepted:
        receipt = Accepted(
            conversation_id=chunk.conversation_id,
            chunk_id=chunk.chunk_id,
            sha256=chunk.sha256,
            bytes=chunk.bytes,
            verdict=verdict,
            reason=reason,
        )
        self._publisher.send(self._topics.accepted(chunk.conversation_id), receipt)
        return receipt

    def _send_event_receipt(
        self, event: ConversationEvent, conversation_id: str, verdict: Verdict, reason: str | None = None
    ) -> Accepted:
        receipt = Accepted(conversation_id=conversation_id, event_id=event.event_id, verdict=verdict, reason=reason)
        self._publisher.send(self._topics.accepted(conversation_id), receipt)
        return receipt

    def _send_refusal(
        self,
        conversation_id: str,
        refusal: Refusal,
        *,
        sha256: str,
        chunk_id: str | None = None,
        event_id: str | None = None,
    ) -> Accepted:
        """Send a refusing receipt to the publisher, and a failure under the bridge's own id for operators."""
        _LOG.warning("refused", conversation=conversation_id, chunk=chunk_id, code=refusal.code, error=refusal.message)
        receipt = Accepted(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            event_id=event_id,
            sha256=sha256,
            verdict=Verdict.REFUSED,
            reason=refusal.code,
            message=refusal.message,
        )
        failure = JobFailure(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            event_id=event_id,
            sha256=sha256,
            code=refusal.code,
            retryable=refusal.is_retryable,
            message=refusal.message,
        )
        self._publisher.send(self._topics.accepted(conversation_id), receipt)
        self._publisher.send(self._topics.failure(conversation_id, self._settings.bridge_id), failure)
        return receipt


def _total_bytes(payload: AudioPayload) -> int:
    return len(payload.audio) if payload.total_bytes is None else payload.total_bytes


def _wrong_sha256() -> Refusal:
    msg = "the audio does not have the sha256 it names: publish the chunk again"
    return Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg)


def _new_chunk_id() -> str:
    return f"b-{secrets.token_hex(12)}"


def _default_chunk_id(description: ChunkDescription, sha256: str) -> str:
    if description.sequence is not None:
        return f"s-{description.sequence}"
    if description.captured_at is not None:
        return f"t-{round(description.captured_at.timestamp() * 1000)}-{sha256[:16]}"
    return _new_chunk_id()
