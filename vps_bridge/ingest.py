"""Ingest: what the backend publishes is checked, spooled, written to the ledger, and only then accepted."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from schemas.audio import AudioPayload
from schemas.codec import decode, read_envelope
from schemas.conversation import Accepted, ConversationEvent, EventType, Verdict
from schemas.errors import SchemaError
from schemas.failure import FailureCode, JobFailure
from schemas.record import Message
from schemas.topics import Topics
from vps_bridge.container import HEAD_BYTES, claimed_duration_s, is_raw, raw_duration_s, recognise
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import ConversationState, Deleted, NewChunk
from vps_bridge.publisher import Publisher
from vps_bridge.settings import BridgeSettings
from vps_bridge.spool import PartialChunk, Spool

_LOG = structlog.get_logger(__name__)
T = TypeVar("T")
_MSGPACK_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)
PARTIAL_LIFE_S = 600.0
MAX_PARTIALS = 64


class Refusal(Exception):
    """Audio or an event that is not accepted; carries the code and words that say what to do."""

    def __init__(self, code: FailureCode, message: str, *, retryable: bool = False) -> None:
        """Name the reason."""
        super().__init__(message)
        self.code, self.message, self.retryable = code, message, retryable


@dataclass
class _Partial:
    chunk: PartialChunk
    payload: AudioPayload
    touched_s: float


class Ingest:
    """Takes audio and events of all conversations. Runs on the bridge's own thread only."""

    def __init__(
        self, settings: BridgeSettings, ledger: Ledger, spool: Spool, store: ConversationStore, publisher: Publisher
    ) -> None:
        """Work on this ledger, spool and store; `incoming` holds chunks whose parts are still coming."""
        self._settings, self._ledger, self._spool, self._store = settings, ledger, spool, store
        self._publisher, self._topics = publisher, Topics(settings.topic_root)
        self._incoming = settings.root / "incoming"
        self._partials: dict[tuple[str, str], _Partial] = {}
        for stray in self._incoming.glob("*") if self._incoming.exists() else ():
            stray.unlink()

    def take_audio(self, conversation_id: str, data: bytes) -> bool:
        """Take a chunk, a part of one, or a bare file. Return whether a chunk was newly accepted."""
        sha256 = hashlib.sha256(data).hexdigest()
        payload: AudioPayload | None = None
        try:
            payload = self._read_audio(conversation_id, data, sha256)
            chunk_id = payload.chunk_id or _default_chunk_id(payload)
            if self._ledger.conversations.is_deleted(conversation_id):
                self._receipt(conversation_id, Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED, chunk_id, payload)
                return False
            if self._is_known(conversation_id, chunk_id, payload.sha256):
                self._receipt(conversation_id, Verdict.ACCEPTED, None, chunk_id, payload)
                return False
            if not payload.is_whole:
                return self._take_part(conversation_id, chunk_id, payload)
            self._accept(conversation_id, chunk_id, payload, lambda: self._spool.write(payload.audio))
        except SchemaError as error:
            envelope = read_envelope(AudioPayload, data)
            self._refuse(conversation_id, Refusal(FailureCode(error.code), str(error)), envelope.chunk_id, sha256)
            return False
        except Refusal as refusal:
            named = payload.chunk_id if payload else None
            self._refuse(conversation_id, refusal, named, payload.sha256 if payload else sha256)
            return False
        return True

    def take_event(self, conversation_id: str, data: bytes) -> ConversationEvent | None:
        """Take an event. Return it where it changed something, None where it was refused, late or known."""
        try:
            event = decode(ConversationEvent, data)
        except SchemaError as error:
            envelope = read_envelope(ConversationEvent, data)
            refusal = Refusal(FailureCode(error.code), str(error))
            self._refuse(conversation_id, refusal, None, hashlib.sha256(data).hexdigest(), event_id=envelope.event_id)
            return None
        if self._ledger.conversations.is_deleted(conversation_id):
            gone = event.type is EventType.DELETED
            self._event_receipt(
                event,
                conversation_id,
                Verdict.ACCEPTED if gone else Verdict.DISCARDED,
                None if gone else FailureCode.CONVERSATION_DELETED,
            )
            return None
        seen = self._ledger.conversations.seen_event(conversation_id, event.event_id)
        if seen is not None:
            self._event_receipt(event, conversation_id, *seen)
            return None
        self._ledger.conversations.ensure(conversation_id)
        if event.type is EventType.SEGMENTS:
            self._store.upsert_segments(conversation_id, event.revision, event.segments, event.removed)
        if event.type is not EventType.DELETED:
            self._ledger.conversations.note_event(event, conversation_id)
            self._event_receipt(event, conversation_id, Verdict.ACCEPTED, None)
        return event

    def delete(self, event: ConversationEvent, conversation_id: str) -> Deleted:
        """Delete a conversation: the tombstone first, then everything, then the receipt."""
        deleted = self._ledger.conversations.delete(conversation_id)
        for name in deleted.spool_names:
            self._spool.remove(name)
        for key in [key for key in self._partials if key[0] == conversation_id]:
            self._partials.pop(key).chunk.discard()
        self._store.delete(conversation_id)
        self._ledger.forget_deleted_pages()
        self._event_receipt(event, conversation_id, Verdict.ACCEPTED, None)
        _LOG.info("conversation_deleted", conversation=conversation_id, chunks=len(deleted.spool_names))
        return deleted

    def drop_stale_parts(self, now_s: float) -> None:
        """Forget chunks whose parts stopped coming; their publisher still has them and sends them again."""
        for key, partial in list(self._partials.items()):
            if now_s - partial.touched_s > PARTIAL_LIFE_S:
                _LOG.warning("parts_dropped", conversation=key[0], chunk=key[1])
                self._partials.pop(key).chunk.discard()

    def _read_audio(self, conversation_id: str, data: bytes, sha256: str) -> AudioPayload:
        if not data:
            raise Refusal(FailureCode.AUDIO_EMPTY, "the payload is empty: publish at least one sample")
        if data[0] not in _MSGPACK_MAPS:
            if recognise(data[:HEAD_BYTES]) is None:
                msg = "neither an audio-payload nor a WAV, FLAC, Ogg, MP3, MP4 or WebM file"
                raise Refusal(FailureCode.AUDIO_UNDECODABLE, msg)
            name = f"b-{secrets.token_hex(12)}"
            return AudioPayload(conversation_id=conversation_id, chunk_id=name, sha256=sha256, audio=data)
        payload = decode(AudioPayload, data)
        if payload.conversation_id != conversation_id:
            raise Refusal(FailureCode.PAYLOAD_MALFORMED, "conversation_id differs from the topic's")
        return payload

    def _is_known(self, conversation_id: str, chunk_id: str, sha256: str) -> bool:
        known = self._ledger.chunks.find(conversation_id, chunk_id)
        if known is not None and known.sha256 != sha256:
            msg = f"chunk {chunk_id} was accepted with other audio: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        return known is not None

    def _take_part(self, conversation_id: str, chunk_id: str, payload: AudioPayload) -> bool:
        if hashlib.sha256(payload.audio).hexdigest() != payload.part_sha256:
            _LOG.warning("part_corrupt", conversation=conversation_id, chunk=chunk_id, offset=payload.byte_offset)
            return False  # no receipt: the publisher's timer sends it again
        total = payload.total_bytes or 0
        self._check_size(total)
        key = (conversation_id, chunk_id)
        partial = self._partials.get(key)
        if partial is not None and partial.payload.sha256 != payload.sha256:
            msg = f"parts of chunk {chunk_id} name different sha256: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        if partial is None:
            if len(self._partials) >= MAX_PARTIALS:
                raise Refusal(FailureCode.INGEST_FULL, "too many chunks arrive in parts: try later", retryable=True)
            path = self._incoming / secrets.token_hex(16)
            partial = _Partial(self._on_disk(lambda: PartialChunk(path, total)), payload, 0.0)
            self._partials[key] = partial
        partial.touched_s = time.monotonic()
        if not self._on_disk(lambda: partial.chunk.add(payload.byte_offset, payload.audio)):
            return False
        del self._partials[key]
        try:
            if partial.chunk.sha256() != payload.sha256:
                msg = "the parts do not add up to the sha256 they name: publish the chunk again"
                raise Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg, retryable=True)
            self._accept(conversation_id, chunk_id, payload, lambda: self._spool.adopt(partial.chunk.path))
        finally:
            partial.chunk.discard()
        return True

    def _accept(self, conversation_id: str, chunk_id: str, payload: AudioPayload, spool: Callable[[], str]) -> None:
        if payload.is_whole and hashlib.sha256(payload.audio).hexdigest() != payload.sha256:
            msg = "the audio does not have the sha256 it names: publish the chunk again"
            raise Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg, retryable=True)
        size = payload.total_bytes if payload.total_bytes is not None else len(payload.audio)
        self._check_size(size)
        self._check_room(size)
        name = self._on_disk(spool)
        try:
            new = self._describe(conversation_id, chunk_id, payload, name, size)
        except Refusal:
            self._spool.remove(name)
            raise
        conversations = self._ledger.conversations
        conversations.ensure(conversation_id)
        self._ledger.chunks.add(new)
        conversations.reopen(conversation_id)
        if payload.num_speakers or payload.min_speakers or payload.max_speakers:
            conversations.note_hints(
                conversation_id,
                num=payload.num_speakers,
                minimum=payload.min_speakers,
                maximum=payload.max_speakers,
            )
        if payload.final:
            completed = ConversationEvent(event_id=f"final-{secrets.token_hex(8)}", type=EventType.COMPLETED)
            conversations.note_event(completed, conversation_id)
        conversations.set_state(conversation_id, ConversationState.WAITING, "audio is gathered to jobs")
        self._receipt(conversation_id, Verdict.ACCEPTED, None, chunk_id, payload)
        _LOG.info("chunk_accepted", conversation=conversation_id, chunk=chunk_id, bytes=size, seconds=new.duration_s)

    def _describe(self, conversation_id: str, chunk_id: str, payload: AudioPayload, name: str, size: int) -> NewChunk:
        path = self._spool.path(name)
        encoding, duration_s = payload.encoding, payload.duration_s
        if is_raw(encoding):
            duration_s = raw_duration_s(encoding, size, payload.sample_rate or 1, payload.channels or 1)
        else:
            with path.open("rb") as file:
                container = recognise(file.read(HEAD_BYTES))
            if container is None:
                msg = "not a WAV, FLAC, Ogg, MP3, MP4 or WebM file, and no raw encoding is named"
                raise Refusal(FailureCode.AUDIO_UNDECODABLE, msg)
            encoding, duration_s = container, claimed_duration_s(path) or duration_s
        return NewChunk(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            sha256=payload.sha256,
            bytes=size,
            spool_name=name,
            encoding=encoding,
            sequence=payload.sequence,
            captured_at_s=payload.captured_at.timestamp() if payload.captured_at else None,
            sample_rate=payload.sample_rate,
            channels=payload.channels,
            duration_s=duration_s,
        )

    def _check_size(self, size: int) -> None:
        if size == 0:
            raise Refusal(FailureCode.AUDIO_EMPTY, "the chunk holds no bytes: publish at least one sample")
        if size > self._settings.max_chunk_bytes:
            msg = f"{size} bytes pass the limit of {self._settings.max_chunk_bytes}: publish shorter chunks"
            raise Refusal(FailureCode.INGEST_TOO_LARGE, msg)

    def _check_room(self, size: int) -> None:
        counts = self._ledger.jobs.counts()
        jobs = counts.jobs_ready + counts.jobs_leased
        if jobs >= self._settings.max_queue_jobs or counts.bytes + size > self._settings.max_queue_bytes:
            msg = f"{jobs} jobs and {counts.bytes} bytes wait: keep the audio and publish it later"
            raise Refusal(FailureCode.INGEST_FULL, msg, retryable=True)

    def _on_disk(self, write: Callable[[], T]) -> T:
        try:
            return write()
        except OSError as error:
            msg = f"the bridge's disk refuses ({error.strerror}): keep the audio, make room on the VPS"
            raise Refusal(FailureCode.DISK_FULL, msg, retryable=True) from error

    def _receipt(
        self, conversation_id: str, verdict: Verdict, reason: str | None, chunk_id: str, payload: AudioPayload
    ) -> None:
        size = payload.total_bytes if payload.total_bytes is not None else len(payload.audio)
        receipt = Accepted(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            sha256=payload.sha256,
            bytes=size,
            verdict=verdict,
            reason=reason,
        )
        self._publisher.send(self._topics.accepted(conversation_id), receipt)

    def _event_receipt(
        self, event: ConversationEvent, conversation_id: str, verdict: Verdict, reason: str | None
    ) -> None:
        receipt = Accepted(conversation_id=conversation_id, event_id=event.event_id, verdict=verdict, reason=reason)
        self._publisher.send(self._topics.accepted(conversation_id), receipt)

    def _refuse(
        self,
        conversation_id: str,
        refusal: Refusal,
        chunk_id: str | None,
        sha256: str,
        *,
        event_id: str | None = None,
    ) -> None:
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
            retryable=refusal.retryable,
            message=refusal.message,
        )
        topics: list[tuple[str, Message]] = [
            (self._topics.accepted(conversation_id), receipt),
            (self._topics.failure(conversation_id, self._settings.bridge_id), failure),
        ]
        for topic, message in topics:
            self._publisher.send(topic, message)


def _default_chunk_id(payload: AudioPayload) -> str:
    if payload.sequence is not None:
        return f"s-{payload.sequence}"
    if payload.captured_at is not None:
        return f"t-{round(payload.captured_at.timestamp() * 1000)}-{payload.sha256[:16]}"
    return f"b-{secrets.token_hex(12)}"
