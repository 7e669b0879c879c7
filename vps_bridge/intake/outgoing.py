"""Chunks on their way into a bucket: accepted only once they are there, in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from schemas.audio import ChunkDescription
from schemas.failure import FailureCode
from vps_bridge.bucket.counts import BucketCounts
from vps_bridge.errors import Refusal, StoreUnavailable, refusal_of
from vps_bridge.intake.bucket_spool import BucketSpool
from vps_bridge.intake.taken import Taken
from vps_bridge.intake.upload import ArrivedFile
from vps_bridge.mailbox import BridgeBusy

T = TypeVar("T")
MAX_OUTGOING = 64  # chunks at once; each has a file on the disk


@dataclass(frozen=True)
class _Chunk:
    conversation_id: str
    description: ChunkDescription
    """With its chunk_id."""
    file: ArrivedFile
    name: str


class Outgoing:
    """Puts chunks into the bucket and has them taken, or refused, by the bridge's own thread."""

    def __init__(
        self,
        spool: BucketSpool,
        *,
        ask: Callable[[Callable[[], Taken]], Future[Taken]],
        take: Callable[[str, ChunkDescription, ArrivedFile], Taken],
        refuse: Callable[[str, ChunkDescription, ArrivedFile, Refusal], Taken],
    ) -> None:
        """Start with none.

        Args:
            spool: where they go.
            ask: has something done by the bridge's own thread.
            take: takes a chunk that the bucket has; called on that thread.
            refuse: tells its publisher that a chunk is not taken; called on that thread.
        """
        self._spool, self._ask, self._take, self._refuse = spool, ask, take, refuse
        self._going: dict[tuple[str, str], str] = {}  # the sha256 of each

    def count(self) -> BucketCounts:
        """Return what `/metrics` tells. This may be called from any thread."""
        objects = self._spool.audio.objects
        return BucketCounts(objects.calls, objects.failures, len(self._going), objects.problem is None)

    def has(self, conversation_id: str, chunk_id: str, sha256: str) -> bool:
        """Whether this very chunk is on its way."""
        return self._going.get((conversation_id, chunk_id)) == sha256

    @property
    def is_busy(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._going)

    def holds(self, conversation_id: str) -> bool:
        """Whether audio of a conversation is on its way."""
        return any(of == conversation_id for of, _ in self._going)

    def put(
        self, conversation_id: str, chunk_id: str, description: ChunkDescription, file: ArrivedFile
    ) -> Future[Taken]:
        """Start to put a chunk; return the future of its outcome. For the bridge's own thread. Raises `Refusal`."""
        if len(self._going) >= MAX_OUTGOING:
            msg = f"{len(self._going)} chunks are on their way into the bucket: keep the audio and publish it later"
            raise Refusal(FailureCode.INGEST_FULL, msg)
        name = self._spool.audio.new_name(conversation_id)
        chunk = _Chunk(conversation_id, description.model_copy(update={"chunk_id": chunk_id}), file, name)
        outcome: Future[Taken] = Future()
        outcome.set_running_or_notify_cancel()  # who waits for it and goes away does not end it
        place = self._spool.audio.place_of(conversation_id)
        try:
            carrying = self._spool.transfers.submit(place, partial(self._carry, chunk, outcome))
        except CancelledError:
            raise Refusal(FailureCode.SPOOL_UNAVAILABLE, "the bridge is stopping: publish it again") from None
        carrying.add_done_callback(partial(_end_cancelled, outcome))
        self._going[conversation_id, chunk_id] = file.sha256
        return outcome

    def _carry(self, chunk: _Chunk, outcome: Future[Taken]) -> None:
        """Put a chunk, and wait until it is taken: the next one of its conversation comes after it."""
        refusal = None
        try:
            names = self._spool.names_of(chunk.conversation_id, chunk.description.chunk_id or "", chunk.name)
            self._spool.audio.put(chunk.file.path, names)
            chunk.file.kept_as = chunk.name
        except StoreUnavailable as error:
            refusal = Refusal(FailureCode.SPOOL_UNAVAILABLE, f"{error}")
        except OSError as error:
            refusal = refusal_of(error)
        try:
            outcome.set_result(self._ask(partial(self._end, chunk, refusal)).result())
        except Exception as error:  # noqa: BLE001 - whoever waits for the outcome has it
            outcome.set_exception(error)

    def _end(self, chunk: _Chunk, refusal: Refusal | None) -> Taken:
        self._going.pop((chunk.conversation_id, chunk.description.chunk_id or ""), None)
        if refusal is not None:
            self._spool.discard(chunk.name)  # it may be there all the same: only the answer was lost
            return self._refuse(chunk.conversation_id, chunk.description, chunk.file, refusal)
        return self._take(chunk.conversation_id, chunk.description, chunk.file)


def _end_cancelled(outcome: Future[Taken], carrying: Future[None]) -> None:
    if carrying.cancelled():
        outcome.set_exception(BridgeBusy("the bridge is stopping"))
