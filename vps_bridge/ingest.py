"""Ingest: what the backend publishes is checked, spooled, written to the ledger, and only then accepted."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from schemas.audio import AudioPayload
from schemas.codec import decode, read_envelope
from schemas.conversation import Accepted, ConversationEvent, EventType, Verdict
from schemas.errors import SchemaError
from schemas.failure import FailureCode, JobFailure
from schemas.topics import Topics
from vps_bridge.arrivals import Arrivals
from vps_bridge.container import HEAD_BYTES, claimed_duration_s, is_raw, raw_duration_s, recognise
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import Deleted, NewChunk, SpeakerHints
from vps_bridge.publisher import Publisher
from vps_bridge.refusal import Refusal
from vps_bridge.settings import BridgeSettings
from vps_bridge.spool import Spool

_LOG = structlog.get_logger(__name__)
T = TypeVar("T")
_MSGPACK_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)
COUNT_EVERY_S = 1.0  # the queue is counted this often, not for every chunk: its limits are no razor's edge


class Ingest:
    """Takes audio and events of all conversations. Runs on the bridge's own thread only."""

    def __init__(
        self, settings: BridgeSettings, ledger: Ledger, spool: Spool, store: ConversationStore, publisher: Publisher
    ) -> None:
        """Work on this ledger, spool and store; `incoming` holds chunks whose parts are still coming."""
        self._settings, self._ledger, self._spool, self._store = settings, ledger, spool, store
        self._publisher, self._topics = publisher, Topics(settings.topic_root)
        self._arrivals = Arrivals(settings.root / "incoming")
        self._queue, self._counted_s, self._accepted_bytes = ledger.jobs.counts(), time.monotonic(), 0
        self.left_strays = False
        """Whether the spool may hold a file that the ledger does not know."""

    def take_audio(self, conversation_id: str, data: bytes) -> bool:
        """Take a chunk, a part of one, or a bare file. Return whether a chunk was newly accepted."""
        try:
            payload = self._read_audio(conversation_id, data)
        except (SchemaError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else Refusal(FailureCode(error.code), str(error))
            chunk_id = read_envelope(AudioPayload, data).chunk_id
            self._refuse(conversation_id, refusal, chunk_id=chunk_id, sha256=hashlib.sha256(data).hexdigest())
            return False
        chunk_id = payload.chunk_id or _default_chunk_id(payload)
        if self._ledger.conversations.is_deleted(conversation_id):
            self._receipt(conversation_id, chunk_id, payload, Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED)
            return False
        try:
            is_known = self._is_known(conversation_id, chunk_id, payload.sha256)
            is_new = not is_known and self._take_chunk(conversation_id, chunk_id, payload)
        except Refusal as refusal:
            self._refuse(conversation_id, refusal, chunk_id=chunk_id, sha256=payload.sha256)
            return False
        if is_known or is_new:
            self._receipt(conversation_id, chunk_id, payload, Verdict.ACCEPTED)
        return is_new

    def take_event(self, conversation_id: str, data: bytes) -> ConversationEvent | None:
        """Take an event. Return it where it changed something, None where it was refused, late or known.

        `deleted` is left to `delete`, each time it comes: a deletion that was cut short is finished.
        """
        try:
            event = decode(ConversationEvent, data)
        except SchemaError as error:
            refusal = Refusal(FailureCode(error.code), str(error))
            event_id = read_envelope(ConversationEvent, data).event_id
            self._refuse(conversation_id, refusal, event_id=event_id, sha256=hashlib.sha256(data).hexdigest())
            return None
        conversations = self._ledger.conversations
        if event.type is EventType.DELETED:
            return event
        if conversations.is_deleted(conversation_id):
            self._answer(event, conversation_id, Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED)
            return None
        seen = conversations.seen_event(conversation_id, event.event_id)
        if seen is not None:
            self._answer(event, conversation_id, *seen)
            return None
        if conversations.is_stale(event, conversation_id):
            conversations.note_event(event, conversation_id, Verdict.DISCARDED, FailureCode.REVISION_STALE)
            self._answer(event, conversation_id, Verdict.DISCARDED, FailureCode.REVISION_STALE)
            return None
        if event.type is EventType.SEGMENTS:
            self._store.upsert_segments(conversation_id, event.revision, event.segments, event.removed)
        conversations.note_event(event, conversation_id, Verdict.ACCEPTED)
        self._answer(event, conversation_id, Verdict.ACCEPTED)
        return event

    def delete(self, event: ConversationEvent, conversation_id: str) -> Deleted:
        """Delete a conversation: the tombstone first, then everything, then the receipt."""
        deleted = self._ledger.conversations.delete(conversation_id)
        for name in deleted.spool_names:
            self._spool.remove(name)
        self._arrivals.discard(conversation_id)
        self._store.delete(conversation_id)
        self._ledger.forget_deleted_pages()
        self._answer(event, conversation_id, Verdict.ACCEPTED)
        _LOG.info("conversation_deleted", conversation=conversation_id, chunks=len(deleted.spool_names))
        return deleted

    def clean_up(self, now_s: float) -> None:
        """Forget parts that stopped coming, and unlink what a failure of the disk left in the spool."""
        self._arrivals.drop_stale(now_s)
        if self.left_strays:
            self._spool.sweep(self._ledger.chunks.spool_names())
            self.left_strays = False

    def _read_audio(self, conversation_id: str, data: bytes) -> AudioPayload:
        if not data:
            raise Refusal(FailureCode.AUDIO_EMPTY, "the payload is empty: publish at least one sample")
        if data[0] not in _MSGPACK_MAPS:
            if recognise(data[:HEAD_BYTES]) is None:
                msg = "neither an audio-payload nor a WAV, FLAC, Ogg, MP3, MP4 or WebM file"
                raise Refusal(FailureCode.AUDIO_UNDECODABLE, msg)
            sha256 = hashlib.sha256(data).hexdigest()
            return AudioPayload(conversation_id=conversation_id, chunk_id=_new_chunk_id(), sha256=sha256, audio=data)
        payload = decode(AudioPayload, data)
        if payload.conversation_id != conversation_id:
            raise Refusal(FailureCode.PAYLOAD_MALFORMED, "conversation_id differs from the topic's")
        return payload

    def _take_chunk(self, conversation_id: str, chunk_id: str, payload: AudioPayload) -> bool:
        """Take a chunk or a part; return whether the chunk is accepted now. Raises `Refusal`."""
        size = _total_bytes(payload)
        self._check_size(size)
        if payload.is_whole:
            if hashlib.sha256(payload.audio).hexdigest() != payload.sha256:
                msg = "the audio does not have the sha256 it names: publish the chunk again"
                raise Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg, retryable=True)
            self._check_room(size)
            name = self._on_disk(lambda: self._spool.write(payload.audio))
        else:
            if not self._arrivals.knows(conversation_id, chunk_id):
                self._check_room(size)
            now_s = time.monotonic()
            partial = self._on_disk(lambda: self._arrivals.add(conversation_id, chunk_id, payload, now_s))
            if partial is None:
                return False
            try:
                name = self._on_disk(lambda: self._spool.adopt(partial.path))
            finally:
                partial.discard()
        try:
            new = self._describe(conversation_id, chunk_id, payload, name)
        except Refusal:
            self._spool.remove(name)
            raise
        self._accept(new, payload)
        return True

    def _is_known(self, conversation_id: str, chunk_id: str, sha256: str) -> bool:
        known = self._ledger.chunks.find(conversation_id, chunk_id)
        if known is not None and known.sha256 != sha256:
            msg = f"chunk {chunk_id} was accepted with other audio: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        return known is not None

    def _accept(self, new: NewChunk, payload: AudioPayload) -> None:
        hints = SpeakerHints(payload.num_speakers, payload.min_speakers, payload.max_speakers)
        try:
            self._ledger.chunks.accept(new, hints, final=payload.final)
        except Exception:
            self.left_strays = True  # only the ledger can say whether it knows the file
            raise
        self._accepted_bytes += new.bytes
        _LOG.info(
            "chunk_accepted",
            conversation=new.conversation_id,
            chunk=new.chunk_id,
            bytes=new.bytes,
            seconds=new.duration_s,
        )

    def _describe(self, conversation_id: str, chunk_id: str, payload: AudioPayload, name: str) -> NewChunk:
        path, size = self._spool.path(name), _total_bytes(payload)
        encoding, duration_s = payload.encoding, payload.duration_s or None
        if is_raw(encoding):
            duration_s = raw_duration_s(encoding, size, payload.sample_rate or 1, payload.channels or 1)
        else:
            container = self._on_disk(lambda: recognise(self._spool.read(name, 0, HEAD_BYTES)))
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
        now_s = time.monotonic()
        if now_s - self._counted_s > COUNT_EVERY_S:
            self._queue, self._counted_s, self._accepted_bytes = self._ledger.jobs.counts(), now_s, 0
        jobs = self._queue.jobs_ready + self._queue.jobs_leased
        held = self._queue.bytes + self._accepted_bytes + self._arrivals.reserved_bytes
        if jobs >= self._settings.max_queue_jobs or held + size > self._settings.max_queue_bytes:
            msg = f"{jobs} jobs and {held} bytes wait: keep the audio and publish it later"
            raise Refusal(FailureCode.INGEST_FULL, msg, retryable=True)

    def _on_disk(self, use: Callable[[], T]) -> T:
        try:
            return use()
        except OSError as error:
            msg = f"the bridge's disk refuses ({error.strerror}): keep the audio, make room on the VPS"
            raise Refusal(FailureCode.DISK_FULL, msg, retryable=True) from error

    def _receipt(
        self,
        conversation_id: str,
        chunk_id: str,
        payload: AudioPayload,
        verdict: Verdict,
        reason: FailureCode | None = None,
    ) -> None:
        receipt = Accepted(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            sha256=payload.sha256,
            bytes=_total_bytes(payload),
            verdict=verdict,
            reason=reason,
        )
        self._publisher.send(self._topics.accepted(conversation_id), receipt)

    def _answer(
        self, event: ConversationEvent, conversation_id: str, verdict: Verdict, reason: str | None = None
    ) -> None:
        receipt = Accepted(conversation_id=conversation_id, event_id=event.event_id, verdict=verdict, reason=reason)
        self._publisher.send(self._topics.accepted(conversation_id), receipt)

    def _refuse(
        self,
        conversation_id: str,
        refusal: Refusal,
        *,
        sha256: str,
        chunk_id: str | None = None,
        event_id: str | None = None,
    ) -> None:
        """Answer the publisher, and tell operators under the bridge's own id."""
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
        self._publisher.send(self._topics.accepted(conversation_id), receipt)
        self._publisher.send(self._topics.failure(conversation_id, self._settings.bridge_id), failure)


def _total_bytes(payload: AudioPayload) -> int:
    return len(payload.audio) if payload.total_bytes is None else payload.total_bytes


def _new_chunk_id() -> str:
    return f"b-{secrets.token_hex(12)}"


def _default_chunk_id(payload: AudioPayload) -> str:
    if payload.sequence is not None:
        return f"s-{payload.sequence}"
    if payload.captured_at is not None:
        return f"t-{round(payload.captured_at.timestamp() * 1000)}-{payload.sha256[:16]}"
    return _new_chunk_id()
