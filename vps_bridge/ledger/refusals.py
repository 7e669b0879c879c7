"""Audio that was refused: kept for a while, without the audio, so that an operator finds out what was not taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Select, bindparam, delete, func, select

from schemas.record import MAX_BYTES
from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.tables import RefusedChunkRow, TombstoneRow

MAX_KEPT = 1_000  # the latest; whoever sends rubbish must not fill the disk
KEEP_S = 7 * 24 * 3_600.0  # as long as the audio of failed jobs
WRITE_EVERY_S = 0.5  # what is refused in between is written together
MAX_MESSAGE_CHARS = 500


@dataclass(frozen=True)
class RefusedChunk:
    """A chunk that was refused, however often it was sent."""

    conversation_id: str
    chunk_id: str
    """Empty where the sender gave none that could be read."""
    sha256: str
    """Of the audio or, where that could not be told apart, of the message; empty where it was not read."""
    bytes: int
    reason: str
    """A FailureCode."""
    message: str
    times: int = 1
    first_at: float = 0.0
    last_at: float = 0.0


_Key = tuple[str, str, str, str]
_COLUMNS = tuple(getattr(RefusedChunkRow, item.name) for item in fields(RefusedChunk))
_LATEST = select(*_COLUMNS).order_by(RefusedChunkRow.last_at.desc(), RefusedChunkRow.number.desc())
_OF_CONVERSATION = _LATEST.where(RefusedChunkRow.conversation_id == bindparam("of_conversation"))
_NEW = insert(RefusedChunkRow)
_NOTE = _NEW.on_conflict_do_update(
    index_elements=[
        RefusedChunkRow.conversation_id,
        RefusedChunkRow.chunk_id,
        RefusedChunkRow.sha256,
        RefusedChunkRow.reason,
    ],
    set_={
        "times": RefusedChunkRow.times + _NEW.excluded.times,
        "last_at": _NEW.excluded.last_at,
        "message": _NEW.excluded.message,
        "bytes": _NEW.excluded.bytes,
    },
)
_KEPT = select(RefusedChunkRow.number).order_by(RefusedChunkRow.last_at.desc(), RefusedChunkRow.number.desc())
_DROP_EARLIER = delete(RefusedChunkRow).where(RefusedChunkRow.number.not_in(_KEPT.limit(MAX_KEPT)))
_DROP_ACCEPTED = delete(RefusedChunkRow).where(
    RefusedChunkRow.conversation_id == bindparam("of_conversation"), RefusedChunkRow.chunk_id == bindparam("of_chunk")
)
_IS_DELETED = select(TombstoneRow.conversation_id).where(
    TombstoneRow.conversation_id.in_(bindparam("conversation_ids", expanding=True))
)


class RefusalBook:
    """Refused chunks of all conversations. The bridge notes them in memory and writes many at once."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database
        self._unwritten: dict[_Key, RefusedChunk] = {}
        self._due_s = 0.0
        self._ids = {(item.conversation_id, item.chunk_id) for item in self.latest()}

    def note(self, refused: RefusedChunk) -> None:
        """Note a refusal; `write` keeps it. Of more than `MAX_KEPT` between two writes the latest are kept."""
        now = time.time()
        key = (refused.conversation_id, refused.chunk_id, refused.sha256, refused.reason)
        before = self._unwritten.pop(key, None)
        if len(self._unwritten) >= MAX_KEPT:
            del self._unwritten[next(iter(self._unwritten))]
        times, first_at = (before.times + 1, before.first_at) if before else (1, now)
        known = {
            **asdict(refused),
            "bytes": min(refused.bytes, MAX_BYTES),
            "message": refused.message[:MAX_MESSAGE_CHARS],
        }
        self._unwritten[key] = RefusedChunk(**{**known, "times": times, "first_at": first_at, "last_at": now})

    def note_accepted(self, conversation_id: str, chunk_id: str) -> None:
        """Forget that a chunk was refused, now that it was accepted (the disk had room again, or it was mended)."""
        self._drop_unwritten(lambda key: key[:2] == (conversation_id, chunk_id))
        if (conversation_id, chunk_id) in self._ids:
            self._ids.discard((conversation_id, chunk_id))
            with self._database.writing() as connection:
                connection.execute(_DROP_ACCEPTED, {"of_conversation": conversation_id, "of_chunk": chunk_id})

    def forget(self, conversation_id: str) -> None:
        """Drop what is noted of a deleted conversation and not written yet; the ledger deletes the rest with it."""
        self._drop_unwritten(lambda key: key[0] == conversation_id)

    def write(self, now_s: float) -> None:
        """Keep what was noted, if the last time is `WRITE_EVERY_S` ago (`now_s`: monotonic seconds)."""
        if not self._unwritten or now_s < self._due_s:
            return
        self._due_s = now_s + WRITE_EVERY_S
        noted, self._unwritten = list(self._unwritten.values()), {}
        with self._database.writing() as connection:
            names = list({item.conversation_id for item in noted})
            gone = set(connection.scalars(_IS_DELETED, {"conversation_ids": names}))
            kept = [asdict(item) for item in noted if item.conversation_id not in gone]
            if kept:
                connection.execute(_NOTE, kept)
                connection.execute(_DROP_EARLIER)
        self._ids = {(item.conversation_id, item.chunk_id) for item in self.latest()}

    def latest(self, limit: int | None = None) -> list[RefusedChunk]:
        """Return the refused chunks, the latest first."""
        return self._read(_LATEST.limit(limit), {})

    def of_conversation(self, conversation_id: str) -> list[RefusedChunk]:
        """Return a conversation's refused chunks, the latest first."""
        return self._read(_OF_CONVERSATION, {"of_conversation": conversation_id})

    def count(self) -> int:
        """Return how many refused chunks are known."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(RefusedChunkRow)) or 0

    def forget_all(self) -> int:
        """Drop all that is known, and return how many: an operator has dealt with it.

        The log of erasures says nothing of it. That log is for what must never come back; a list that was read is
        harmless when a backup brings it back, ends by itself after `KEEP_S`, and goes with its conversation.
        """
        with self._database.writing() as connection:
            return connection.execute(delete(RefusedChunkRow)).rowcount

    def drop_old(self, now: float) -> None:
        """Drop what was refused more than `KEEP_S` before `now` (Unix time), or after it: the clock was set back."""
        last_at = RefusedChunkRow.last_at
        with self._database.writing() as connection:
            connection.execute(delete(RefusedChunkRow).where((last_at < now - KEEP_S) | (last_at > now + KEEP_S)))

    def _drop_unwritten(self, is_meant: Callable[[_Key], bool]) -> None:
        for key in [key for key in self._unwritten if is_meant(key)]:
            del self._unwritten[key]

    def _read(self, query: Select[Any], values: Mapping[str, str]) -> list[RefusedChunk]:
        with self._database.reading() as connection:
            return [RefusedChunk(**row._asdict()) for row in connection.execute(query, values)]
