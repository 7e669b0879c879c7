"""Ingest: audio and events of the backend are checked, stored, written to the ledger, and only then accepted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import structlog

from schemas.audio import AudioPayload, ChunkDescription
from schemas.audio_container import CONTAINER_NAMES, find_container
from schemas.codec import decode, read_envelope
from schemas.conversation import Accepted, ConversationEvent, EventType, Verdict
from schemas.errors import SchemaError
from schemas.event_fields import check_fields
from schemas.failure import FailureCode
from schemas.topics import Topics
from vps_bridge.bucket.counts import BucketCounts
from vps_bridge.conversations.store import ConversationStore, SegmentIncomplete
from vps_bridge.errors import Refusal, event_id_conflict, refusal_of
from vps_bridge.intake.bucket_spool import BucketSpool
from vps_bridge.intake.corrections import Corrections
from vps_bridge.intake.describe_chunk import describe_chunk
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.erasure import erase_conversation
from vps_bridge.intake.outgoing import Outgoing
from vps_bridge.intake.partial_chunks import INCOMING, PartialChunks
from vps_bridge.intake.people import check_enrolment
from vps_bridge.intake.queue_room import QueueRoom
from vps_bridge.intake.receipts import Receipts
from vps_bridge.intake.spool import Spool
from vps_bridge.intake.taken import Taken, TakenEvent
from vps_bridge.intake.unaccepted_chunk import (
    UnacceptedChunk,
    check_bytes,
    new_chunk_id,
    total_bytes,
    wrong_sha256,
)
from vps_bridge.intake.upload import ArrivedFile
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.chunks import Acceptance
from vps_bridge.ledger.records import Deleted, NewChunk, SpeakerHints
from vps_bridge.ledger.refusals import RefusedChunk
from vps_bridge.publisher import Publisher
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
T = TypeVar("T")
_MSGPACK_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)
MAX_TOLD = 16  # events that ask for one deletion


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
        self._receipts = Receipts(Topics(settings.topic_root), publisher, settings.bridge_id)
        self._partial_chunks = PartialChunks(settings.root / INCOMING)
        self._queue_room = QueueRoom(ledger, settings.queue_limit)
        self._to_be_told = dict[str, set[str]]()  # events that asked for deletions which are not finished
        self.outgoing: Outgoing | None = None
        """What brings chunks into a bucket, where the spool is one."""
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
            return Taken(self._receipts.send_refusal(conversation_id, refusal, chunk_id=chunk_id, sha256=sha256))
        chunk = UnacceptedChunk(conversation_id, payload.sha256, total_bytes(payload), payload)
        return self._take_or_refuse(chunk, lambda: self._store_payload(chunk, payload))

    def take_upload(
        self, conversation_id: str, description: ChunkDescription, upload: ArrivedFile, sha256: str | None
    ) -> Taken:
        """Take a chunk that was uploaded over HTTP; if it is accepted, its file is moved into the spool.

        `sha256` is the hash its publisher states, if it states one.
        """
        chunk = UnacceptedChunk(conversation_id, sha256 or upload.sha256, upload.bytes, description)
        taken = self._take_or_refuse(chunk, lambda: self._store_upload(chunk, upload))
        # While the outcome is still to come the bucket may have it already: it is not yet known to be unwanted.
        if taken.later is None and upload.kept_as is not None and not taken.is_new:
            self._spool.discard(upload.kept_as)
        return taken

    def refuse(
        self, conversation_id: str, description: ChunkDescription, upload: ArrivedFile, refusal: Refusal
    ) -> Taken:
        """Tell a publisher that a chunk, which was on its way into a bucket, is not taken."""
        return self._refuse(UnacceptedChunk(conversation_id, upload.sha256, upload.bytes, description), refusal)

    def _take_or_refuse(self, chunk: UnacceptedChunk, store: Callable[[], str | Future[Taken] | None]) -> Taken:
        """Take a chunk. `store` returns its name in the spool, what is to come of it, or None: parts are to come."""
        if self._ledger.conversations.is_deleted(chunk.conversation_id):
            return Taken(self._send_receipt(chunk, Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED))
        try:
            if self._is_known(chunk):
                return Taken(self._send_receipt(chunk, Verdict.ACCEPTED))
            check_bytes(chunk.bytes, self._settings.max_chunk_bytes)
            stored = store()
            if not isinstance(stored, str):
                return Taken(None, later=stored)
            is_late = self._accept_stored(chunk, stored)
        except Refusal as refusal:
            return self._refuse(chunk, refusal)
        return Taken(self._send_receipt(chunk, Verdict.ACCEPTED, is_late=is_late), is_new=True, is_late=is_late)

    def _refuse(self, chunk: UnacceptedChunk, refusal: Refusal) -> Taken:
        sha256, chunk_id = chunk.sha256, chunk.chunk_id
        self.note_refused(chunk.conversation_id, chunk_id, refusal, sha256=sha256, size_bytes=chunk.bytes)
        return Taken(self._receipts.send_refusal(chunk.conversation_id, refusal, chunk_id=chunk_id, sha256=sha256))

    def take_event(self, conversation_id: str, data: bytes) -> TakenEvent:
        """Take an event. Where it changed something the event itself is returned too.

        `deleted` is left to `delete`, even when it comes again: that completes a deletion that was interrupted.
        """
        try:
            event = check_fields(decode(ConversationEvent, data))
        except SchemaError as error:
            refusal = Refusal(FailureCode(error.code), str(error))
            event_id = read_envelope(ConversationEvent, data).event_id
            sha256 = hashlib.sha256(data).hexdigest()
            return TakenEvent(self._receipts.send_refusal(conversation_id, refusal, event_id=event_id, sha256=sha256))
        events = self._ledger.events
        if event.type is EventType.DELETED:
            return TakenEvent(None, event)
        answer = events.find_answer(event, conversation_id)
        if answer is not None and answer[1] != FailureCode.EVENT_ID_CONFLICT:
            if answer[1] == FailureCode.REVISION_STALE:
                events.note(event, conversation_id, *answer)
            return TakenEvent(self._receipts.send_event(conversation_id, event.event_id, *answer))
        try:
            if answer is not None:
                raise event_id_conflict(event.event_id)
            self._take_words(conversation_id, event)
        except Refusal as refusal:
            sha256 = hashlib.sha256(data).hexdigest()
            return TakenEvent(
                self._receipts.send_refusal(conversation_id, refusal, event_id=event.event_id, sha256=sha256)
            )
        events.note(event, conversation_id, Verdict.ACCEPTED)
        return TakenEvent(self._receipts.send_event(conversation_id, event.event_id, Verdict.ACCEPTED), event)

    def _take_words(self, conversation_id: str, event: ConversationEvent) -> None:
        """Store what an event says of segments and labels; nothing where it says nothing of them. Raises `Refusal`."""
        if event.enrols is not None:
            check_enrolment(conversation_id, self._ledger, self._store)
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

    def delete(self, event: ConversationEvent, conversation_id: str) -> tuple[Accepted | None, Deleted]:
        """Delete a conversation: write its tombstone, erase everything, then send the receipt.

        None where a bucket is still being asked: `erase`, called again, sends the receipt.
        """
        deleted = self.erase(conversation_id)
        if deleted.finished:
            return self._receipts.send_event(conversation_id, event.event_id, Verdict.ACCEPTED), deleted
        waiting = self._to_be_told.setdefault(conversation_id, set())
        if len(waiting) < MAX_TOLD:
            waiting.add(event.event_id)
        return None, deleted

    def erase(self, conversation_id: str) -> Deleted:
        """Delete a conversation, as its backend or an operator asked, now or before this bridge was started."""
        self._partial_chunks.discard(conversation_id)
        self._ledger.refusals.forget(conversation_id)
        deleted = erase_conversation(conversation_id, self._ledger, self._spool, self._store)
        for event_id in self._to_be_told.pop(conversation_id, ()) if deleted.finished else ():
            self._receipts.send_event(conversation_id, event_id, Verdict.ACCEPTED)
        if deleted.finished:
            _LOG.info("conversation_deleted", conversation=conversation_id, chunks=len(deleted.spool_names))
        return deleted

    def confirm_deletion(self, event: ConversationEvent, conversation_id: str) -> Accepted:
        """Send the receipt for the deletion of a conversation of which nothing is left."""
        return self._receipts.send_event(conversation_id, event.event_id, Verdict.ACCEPTED)

    def forget(self, conversation_id: str) -> None:
        """Drop what this bridge has of a conversation that another one deleted."""
        self._partial_chunks.discard(conversation_id)
        self._ledger.refusals.forget(conversation_id)
        self._spool.forget(conversation_id)

    def bring_into(
        self,
        spool: Spool,
        *,
        ask: Callable[[Callable[[], Taken]], Future[Taken]],
        take: Callable[[str, ChunkDescription, ArrivedFile], Taken],
    ) -> None:
        """Have chunks put into a bucket before they are accepted, where the spool is one; see `Outgoing`."""
        if isinstance(spool, BucketSpool):
            self.outgoing = Outgoing(spool, ask=ask, take=take, refuse=self.refuse)

    def count_bucket(self) -> BucketCounts | None:
        """Return what was counted of the bucket; None where audio is in a directory."""
        return None if self.outgoing is None else self.outgoing.count()

    @property
    def is_bringing(self) -> bool:
        """Whether audio is on its way into a bucket."""
        return self.outgoing is not None and self.outgoing.is_busy

    def awaits_audio(self, conversation_id: str) -> bool:
        """Whether audio of a conversation has come that is not accepted yet."""
        return self.outgoing is not None and self.outgoing.holds(conversation_id)

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
            return AudioPayload(conversation_id=conversation_id, chunk_id=new_chunk_id(), sha256=sha256, audio=data)
        payload = decode(AudioPayload, data)
        if payload.conversation_id != conversation_id:
            raise Refusal(FailureCode.PAYLOAD_MALFORMED, "conversation_id differs from the topic's")
        return payload

    def _accept_stored(self, chunk: UnacceptedChunk, name: str) -> bool:
        """Accept a chunk of the spool; return whether it is late. Raises `Refusal`, and the spool has it no more."""
        path = self._spool.path(name)
        try:
            new = self._on_disk(lambda: describe_chunk(chunk, name, path))
        except Refusal:
            path.unlink(missing_ok=True)
            raise
        became = self._accept(new, chunk.description)
        if became is Acceptance.KNOWN:
            self._is_known(chunk)  # another bridge was faster: with the same audio, or this raises
        return became is Acceptance.LATE

    def _store_payload(self, chunk: UnacceptedChunk, payload: AudioPayload) -> str | Future[Taken] | None:
        if payload.is_whole:
            if hashlib.sha256(payload.audio).hexdigest() != payload.sha256:
                raise wrong_sha256()
            self._check_room_of(chunk)
            if self.outgoing is not None:
                return self._send_out(chunk, self._on_disk(lambda: self._partial_chunks.write_whole(payload.audio)))
            return self._on_disk(lambda: self._spool.write(payload.audio))
        if not self._partial_chunks.knows(chunk.conversation_id, chunk.chunk_id):
            self._check_room_of(chunk)
        now_s = time.monotonic()
        partial = self._on_disk(lambda: self._partial_chunks.add(chunk.conversation_id, chunk.chunk_id, payload, now_s))
        if partial is None:
            return None
        if self.outgoing is not None:
            return self._send_out(chunk, partial.path)
        try:
            return self._on_disk(lambda: self._spool.adopt(partial.path))
        finally:
            partial.discard()

    def _send_out(self, chunk: UnacceptedChunk, path: Path) -> Future[Taken] | None:
        """Start to put a chunk into the bucket; the file is deleted once that has ended."""
        file = ArrivedFile(path, chunk.sha256, chunk.bytes)
        if self.outgoing is None or self.outgoing.has(chunk.conversation_id, chunk.chunk_id, chunk.sha256):
            file.discard()  # it was sent again because the bucket takes long: its receipt comes
            return None
        try:
            going = self.outgoing.put(chunk.conversation_id, chunk.chunk_id, chunk.description, file)
        except Refusal:
            file.discard()
            raise
        going.add_done_callback(lambda _: file.discard())
        return going

    def _store_upload(self, chunk: UnacceptedChunk, upload: ArrivedFile) -> str | Future[Taken]:
        if upload.sha256 != chunk.sha256:
            raise wrong_sha256()
        self._check_room_of(chunk, written_bytes=upload.bytes)
        if self.outgoing is not None and upload.kept_as is None:
            return self.outgoing.put(chunk.conversation_id, chunk.chunk_id, chunk.description, upload)
        return self._on_disk(lambda: self._spool.adopt(upload.path, upload.kept_as))

    def _is_known(self, chunk: UnacceptedChunk) -> bool:
        known = self._ledger.chunks.find(chunk.conversation_id, chunk.chunk_id)
        if known is not None and known.sha256 != chunk.sha256:
            msg = f"chunk {chunk.chunk_id} was accepted with other audio: give new audio a new chunk_id"
            raise Refusal(FailureCode.CHUNK_ID_CONFLICT, msg)
        return known is not None

    def _accept(self, new: NewChunk, description: ChunkDescription) -> Acceptance:
        """Accept a chunk, unless another bridge did so meanwhile. Raises `Refusal`."""
        hints = SpeakerHints(description.num_speakers, description.min_speakers, description.max_speakers)
        try:
            became = self._ledger.chunks.accept(new, hints, final=description.final)
        except Exception:
            self.left_strays = True  # it is not certain that the ledger has the chunk
            raise
        if became in (Acceptance.KNOWN, Acceptance.DELETED):
            self._spool.discard(new.spool_name)
            if became is Acceptance.KNOWN:
                return became
            raise Refusal(FailureCode.CONVERSATION_DELETED, "the conversation was deleted meanwhile")
        self._queue_room.note_accepted(new.bytes)
        self._ledger.refusals.note_accepted(new.conversation_id, new.chunk_id)
        _LOG.info(
            "chunk_accepted",
            conversation=new.conversation_id,
            chunk=new.chunk_id,
            bytes=new.bytes,
            seconds=new.duration_s,
            estimated=new.duration_estimated,
        )
        return became

    def check_room(self, size: int, *, written_bytes: int = 0, conversation_id: str | None = None) -> None:
        """Raise `Refusal` where there is no room for `size` bytes, of which `written_bytes` are written already.

        Without `conversation_id` they are of one that may use all of the queue.
        """
        reserved_bytes = self._partial_chunks.reserved_bytes
        self._queue_room.check(size, reserved_bytes=reserved_bytes, conversation_id=conversation_id)
        if reserved_bytes + size - written_bytes >= self._disk_reserve.room_bytes():
            msg = "the bridge's disk is full: keep the audio and publish it later, make room on the VPS"
            raise Refusal(FailureCode.DISK_FULL, msg)

    def _check_room_of(self, chunk: UnacceptedChunk, *, written_bytes: int = 0) -> None:
        self.check_room(chunk.bytes, written_bytes=written_bytes, conversation_id=chunk.conversation_id)

    def _on_disk(self, use: Callable[[], T]) -> T:
        try:
            return use()
        except OSError as error:
            raise refusal_of(error) from error

    def _send_receipt(
        self,
        chunk: UnacceptedChunk,
        verdict: Verdict,
        reason: FailureCode | None = None,
        *,
        is_late: bool = False,
    ) -> Accepted:
        return self._receipts.send_chunk(
            chunk.conversation_id,
            chunk.chunk_id,
            sha256=chunk.sha256,
            size_bytes=chunk.bytes,
            verdict=verdict,
            reason=reason,
            is_late=is_late,
        )
