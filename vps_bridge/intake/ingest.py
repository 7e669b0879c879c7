"""Ingest: what the backend publishes is checked, spooled, written to the ledger, and only then accepted."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from schemas.audio import AudioPayload, ChunkDescription
from schemas.codec import decode, read_envelope
from schemas.conversation import Accepted, ConversationEvent, EventType, Verdict
from schemas.errors import SchemaError
from schemas.failure import FailureCode, JobFailure
from schemas.topics import Topics
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.errors import Refusal
from vps_bridge.intake.audio_header import HEAD_BYTES, claimed_duration_s, is_raw, raw_duration_s, recognise
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.erasure import erase_conversation
from vps_bridge.intake.parts import INCOMING, PartialChunks
from vps_bridge.intake.spool import Spool
from vps_bridge.intake.upload import Upload, check_size
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import Deleted, NewChunk, SpeakerHints
from vps_bridge.publisher import Publisher
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
T = TypeVar("T")
_MSGPACK_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)
COUNT_EVERY_S = 1.0  # the queue is counted this often, not for every chunk: its limits are no razor's edge


@dataclass(frozen=True)
class Taken:
    """What became of audio: the receipt it got (None: parts are still to come), and whether it is a new chunk."""

    receipt: Accepted | None
    is_new: bool = False


@dataclass(frozen=True)
class TakenEvent:
    """What became of an event: its receipt (None: `delete` gives it), and the event where there is more to do."""

    receipt: Accepted | None
    event: ConversationEvent | None = None


class _OfferedAudio:
    """A chunk that is offered, whichever door it came through."""

    def __init__(self, conversation_id: str, sha256: str, size_bytes: int, told: ChunkDescription) -> None:
        self.conversation_id, self.sha256, self.bytes, self.told = conversation_id, sha256, size_bytes, told
        self.chunk_id = told.chunk_id or _default_chunk_id(told, sha256)


class Ingest:
    """Takes audio and events of all conversations. Runs on the bridge's own thread only."""

    def __init__(
        self,
        settings: BridgeSettings,
        ledger: Ledger,
        spool: Spool,
        store: ConversationStore,
        publisher: Publisher,
        ballast: DiskReserve,
    ) -> None:
        """Work on this ledger, spool and store; `incoming` holds chunks whose parts are still coming."""
        self._ballast = ballast
        self._settings, self._ledger, self._spool, self._store = settings, ledger, spool, store
        self._publisher, self._topics = publisher, Topics(settings.topic_root)
        self._arrivals = PartialChunks(settings.root / INCOMING)
        self._queue, self._counted_s, self._accepted_bytes = ledger.jobs.counts(), time.monotonic(), 0
        self.left_strays = False
        """Whether the spool may hold a file that the ledger does not know."""

    def take_audio(self, conversation_id: str, data: bytes) -> Taken:
        """Take a chunk, a part of one, or a bare file, as it came over MQTT."""
        try:
            payload = self._read_audio(conversation_id, data)
        except (SchemaError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else Refusal(FailureCode(error.code), str(error))
            chunk_id = read_envelope(AudioPayload, data).chunk_id
            sha256 = hashlib.sha256(data).hexdigest()
            return Taken(self._refuse(conversation_id, refusal, chunk_id=chunk_id, sha256=sha256))
        offer = _OfferedAudio(conversation_id, payload.sha256, _total_bytes(payload), payload)
        return self._take(offer, lambda: self._store_payload(offer, payload))

    def take_upload(self, conversation_id: str, told: ChunkDescription, upload: Upload, sha256: str | None) -> Taken:
        """Take a chunk that was streamed into a file over HTTP; the file is moved into the spool, or stays.

        `sha256` is what the publisher says it has, where it says so.
        """
        offer = _OfferedAudio(conversation_id, sha256 or upload.sha256, upload.bytes, told)
        return self._take(offer, lambda: self._store_upload(offer, upload))

    def _take(self, offer: _OfferedAudio, store: Callable[[], str | None]) -> Taken:
        """Take a chunk in; `store` spools it and returns its name, or None where parts are still to come."""
        if self._ledger.conversations.is_deleted(offer.conversation_id):
            return Taken(self._receipt(offer, Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED))
        try:
            is_known = self._is_known(offer)
            is_new = not is_known and self._take_chunk(offer, store)
        except Refusal as refusal:
            sha256, chunk_id = offer.sha256, offer.chunk_id
            return Taken(self._refuse(offer.conversation_id, refusal, chunk_id=chunk_id, sha256=sha256))
        return Taken(self._receipt(offer, Verdict.ACCEPTED) if is_known or is_new else None, is_new=is_new)

    def take_event(self, conversation_id: str, data: bytes) -> TakenEvent:
        """Take an event in. Where it changed something the event itself is returned too.

        `deleted` is left to `delete`, each time it comes: a deletion that was cut short is finished.
        """
        try:
            event = decode(ConversationEvent, data)
        except SchemaError as error:
            refusal = Refusal(FailureCode(error.code), str(error))
            event_id = read_envelope(ConversationEvent, data).event_id
            sha256 = hashlib.sha256(data).hexdigest()
            return TakenEvent(self._refuse(conversation_id, refusal, event_id=event_id, sha256=sha256))
        conversations = self._ledger.conversations
        if event.type is EventType.DELETED:
            return TakenEvent(None, event)
        answer = conversations.answer_without(event, conversation_id)
        if answer is not None:
            if answer[1] == FailureCode.REVISION_STALE:
                conversations.note_event(event, conversation_id, *answer)
            return TakenEvent(self._answer(event, conversation_id, *answer))
        if event.type is EventType.SEGMENTS:
            self._store.upsert_segments(conversation_id, event.revision, event.segments, event.removed)
        conversations.note_event(event, conversation_id, Verdict.ACCEPTED)
        return TakenEvent(self._answer(event, conversation_id, Verdict.ACCEPTED), event)

    def delete(self, event: ConversationEvent, conversation_id: str) -> tuple[Accepted, Deleted]:
        """Delete a conversation: the tombstone first, then everything, then the receipt."""
        deleted = self.erase(conversation_id)
        return self._answer(event, conversation_id, Verdict.ACCEPTED), deleted

    def erase(self, conversation_id: str) -> Deleted:
        """Delete a conversation, asked for by its backend, by an operator, or before this bridge was started."""
        self._arrivals.discard(conversation_id)
        deleted = erase_conversation(conversation_id, self._ledger, self._spool, self._store)
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

    def _take_chunk(self, offer: _OfferedAudio, store: Callable[[], str | None]) -> bool:
        """Take a chunk or a part; return whether the chunk is accepted now. Raises `Refusal`."""
        if offer.bytes == 0:
            raise Refusal(FailureCode.AUDIO_EMPTY, "the chunk holds no bytes: publish at least one sample")
        check_size(offer.bytes, self._settings.max_chunk_bytes)
        name = store()
        if name is None:
            return False
        try:
            new = self._describe(offer, name)
        except Refusal:
            self._spool.remove(name)
            raise
        self._accept(new, offer.told)
        return True

    def _store_payload(self, offer: _OfferedAudio, payload: AudioPayload) -> str | None:
        if payload.is_whole:
            if hashlib.sha256(payload.audio).hexdigest() != payload.sha256:
                raise _wrong_sha256()
            self.check_room(offer.bytes)
            return self._on_disk(lambda: self._spool.write(payload.audio))
        if not self._arrivals.knows(offer.conversation_id, offer.chunk_id):
            self.check_room(offer.bytes)
        now_s = time.monotonic()
        partial = self._on_disk(lambda: self._arrivals.add(offer.conversation_id, offer.chunk_id, payload, now_s))
        if partial is None:
            return None
        try:
            return self._on_disk(lambda: self._spool.adopt(partial.path))
        finally:
            partial.discard()

    def _store_upload(self, offer: _OfferedAudio, upload: Upload) -> str:
        if upload.sha256 != offer.sha256:
            raise _wrong_sha256()
        self.check_room(offer.bytes, written_bytes=upload.bytes)
        return self._on_disk(lambda: self._spool.adopt(upload.path))

    def _is_known(self, offer: _OfferedAudio) -> bool:
        known = self._ledger.chunks.find(offer.conversation_id, offer.chunk_id)
        if known is not None and known.sha256 != offer.sha256:
            msg = f"chunk {offer.chunk_id} was accepted with other audio: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        return known is not None

    def _accept(self, new: NewChunk, told: ChunkDescription) -> None:
        hints = SpeakerHints(told.num_speakers, told.min_speakers, told.max_speakers)
        try:
            self._ledger.chunks.accept(new, hints, final=told.final)
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

    def _describe(self, offer: _OfferedAudio, name: str) -> NewChunk:
        told, path = offer.told, self._spool.path(name)
        encoding, duration_s = told.encoding, told.duration_s or None
        if is_raw(encoding):
            duration_s = raw_duration_s(encoding, offer.bytes, told.sample_rate or 1, told.channels or 1)
        else:
            container = self._on_disk(lambda: recognise(self._spool.read(name, 0, HEAD_BYTES)))
            if container is None:
                msg = "not a WAV, FLAC, Ogg, MP3, MP4 or WebM file, and no raw encoding is named"
                raise Refusal(FailureCode.AUDIO_UNDECODABLE, msg)
            encoding, duration_s = container, claimed_duration_s(path) or duration_s
        return NewChunk(
            conversation_id=offer.conversation_id,
            chunk_id=offer.chunk_id,
            sha256=offer.sha256,
            bytes=offer.bytes,
            spool_name=name,
            encoding=encoding,
            sequence=told.sequence,
            captured_at_s=told.captured_at.timestamp() if told.captured_at else None,
            sample_rate=told.sample_rate,
            channels=told.channels,
            duration_s=duration_s,
        )

    def check_room(self, size: int, *, written_bytes: int = 0) -> None:
        """Raise `Refusal` where so many bytes more, some of them on the disk already, would be too much to keep."""
        now_s = time.monotonic()
        if now_s - self._counted_s > COUNT_EVERY_S:
            self._queue, self._counted_s, self._accepted_bytes = self._ledger.jobs.counts(), now_s, 0
        jobs = self._queue.jobs_ready + self._queue.jobs_leased
        held = self._queue.bytes + self._accepted_bytes + self._arrivals.reserved_bytes
        if jobs >= self._settings.max_queue_jobs or held + size > self._settings.max_queue_bytes:
            msg = f"{jobs} jobs and {held} bytes wait: keep the audio and publish it later"
            raise Refusal(FailureCode.INGEST_FULL, msg, retryable=True)
        if self._arrivals.reserved_bytes + size - written_bytes >= self._ballast.room_bytes():
            msg = "the bridge's disk is full: keep the audio and publish it later, make room on the VPS"
            raise Refusal(FailureCode.DISK_FULL, msg, retryable=True)

    def _on_disk(self, use: Callable[[], T]) -> T:
        try:
            return use()
        except OSError as error:
            msg = f"the bridge's disk refuses ({error.strerror}): keep the audio, make room on the VPS"
            raise Refusal(FailureCode.DISK_FULL, msg, retryable=True) from error

    def _receipt(self, offer: _OfferedAudio, verdict: Verdict, reason: FailureCode | None = None) -> Accepted:
        receipt = Accepted(
            conversation_id=offer.conversation_id,
            chunk_id=offer.chunk_id,
            sha256=offer.sha256,
            bytes=offer.bytes,
            verdict=verdict,
            reason=reason,
        )
        self._publisher.send(self._topics.accepted(offer.conversation_id), receipt)
        return receipt

    def _answer(
        self, event: ConversationEvent, conversation_id: str, verdict: Verdict, reason: str | None = None
    ) -> Accepted:
        receipt = Accepted(conversation_id=conversation_id, event_id=event.event_id, verdict=verdict, reason=reason)
        self._publisher.send(self._topics.accepted(conversation_id), receipt)
        return receipt

    def _refuse(
        self,
        conversation_id: str,
        refusal: Refusal,
        *,
        sha256: str,
        chunk_id: str | None = None,
        event_id: str | None = None,
    ) -> Accepted:
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
        return receipt


def _total_bytes(payload: AudioPayload) -> int:
    return len(payload.audio) if payload.total_bytes is None else payload.total_bytes


def _wrong_sha256() -> Refusal:
    msg = "the audio does not have the sha256 it names: publish the chunk again"
    return Refusal(FailureCode.PAYLOAD_SHA256_MISMATCH, msg, retryable=True)


def _new_chunk_id() -> str:
    return f"b-{secrets.token_hex(12)}"


def _default_chunk_id(told: ChunkDescription, sha256: str) -> str:
    if told.sequence is not None:
        return f"s-{told.sequence}"
    if told.captured_at is not None:
        return f"t-{round(told.captured_at.timestamp() * 1000)}-{sha256[:16]}"
    return _new_chunk_id()
