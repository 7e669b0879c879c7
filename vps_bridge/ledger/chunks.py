"""Accepted chunks: once a chunk has a row here, its diarization is promised."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum

from sqlalchemy import Connection, bindparam, func, select, update

from vps_bridge.ledger.both_dialects import SERVER_DIALECT, insert
from vps_bridge.ledger.columns import CHUNK_COLUMNS
from vps_bridge.ledger.conversation_changes import open_for_audio
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.job_states import UNFINISHED, JobState
from vps_bridge.ledger.packing import reading_unpacked, writing_unpacked
from vps_bridge.ledger.records import ChunkRecord, NewChunk, SpeakerHints
from vps_bridge.ledger.tables import ChunkRow, ConversationRow, JobChunkRow, JobRow, TombstoneRow

MAX_EXPIRED = 500
NEVER = 1e300  # as a Unix time
_OF_CONVERSATION = (
    select(*CHUNK_COLUMNS).where(ChunkRow.conversation_id == bindparam("conversation_id")).order_by(ChunkRow.arrival)
)
_OF_SEVERAL = (
    select(*CHUNK_COLUMNS)
    .where(ChunkRow.conversation_id.in_(bindparam("names", expanding=True)))
    .order_by(ChunkRow.arrival)
)
_BY_ID = select(*CHUNK_COLUMNS).where(
    ChunkRow.conversation_id == bindparam("conversation_id"), ChunkRow.chunk_id == bindparam("chunk_id")
)
_IS_DELETED = select(
    select(TombstoneRow.conversation_id).where(TombstoneRow.conversation_id == bindparam("conversation_id")).exists()
)
_NEW = insert(ChunkRow).on_conflict_do_nothing()
_NEW_FIELDS = tuple(item.name for item in fields(NewChunk))


class Acceptance(StrEnum):
    """What became of a chunk that was to be accepted. The last two only where another bridge was faster."""

    ACCEPTED = "accepted"
    LATE = "late"
    """Accepted, after the end of its conversation."""
    KNOWN = "known"
    DELETED = "deleted"


class ChunkBook:
    """Chunks of all conversations."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def find(self, conversation_id: str, chunk_id: str) -> ChunkRecord | None:
        """Return a chunk by its id, also one whose audio is gone already."""
        with reading_unpacked(self._database, conversation_id) as connection:
            row = connection.execute(_BY_ID, {"conversation_id": conversation_id, "chunk_id": chunk_id}).first()
            return ChunkRecord(*row) if row else None

    def accept(self, new: NewChunk, hints: SpeakerHints, *, final: bool) -> Acceptance:
        """Accept a chunk with all that it changes, in one transaction: a final conversation is open again.

        `final`: no more audio follows, so the conversation is completed. Changes nothing where another bridge has
        accepted a chunk of this id, or deleted the conversation, meanwhile.
        """
        values = {name: getattr(new, name) for name in _NEW_FIELDS}
        with writing_unpacked(self._database, new.conversation_id) as connection:
            if connection.dialect.name == SERVER_DIALECT and connection.scalar(
                _IS_DELETED, {"conversation_id": new.conversation_id}
            ):
                return Acceptance.DELETED
            if not connection.execute(_NEW, {**values, "accepted_at": time.time(), "covered": False}).rowcount:
                return Acceptance.KNOWN
            is_late = open_for_audio(connection, new.conversation_id, hints, completed=final)
            return Acceptance.LATE if is_late else Acceptance.ACCEPTED

    def of_conversation(self, conversation_id: str) -> list[ChunkRecord]:
        """Return a conversation's chunks in order of arrival."""
        with reading_unpacked(self._database, conversation_id) as connection:
            return chunks_of(connection, conversation_id)

    def of_unpacked(self, names: Sequence[str]) -> dict[str, list[ChunkRecord]]:
        """Return the chunks of each of these conversations, none of which is packed, in order of arrival."""
        found: dict[str, list[ChunkRecord]] = {name: [] for name in names}
        with self._database.reading() as connection:
            for row in connection.execute(_OF_SEVERAL, {"names": list(names)}):
                chunk = ChunkRecord(*row)
                found[chunk.conversation_id].append(chunk)
        return found

    def uncovered_conversations(self) -> list[str]:
        """Return the conversations that have chunks no job covers yet."""
        with self._database.reading() as connection:
            query = select(ChunkRow.conversation_id).where(~ChunkRow.covered).distinct()
            return list(connection.scalars(query))

    def spool_names(self) -> set[str]:
        """Return the names of all chunks in the spool."""
        with self._database.reading() as connection:
            query = select(ChunkRow.spool_name).where(ChunkRow.spool_name.is_not(None))
            return {name for name in connection.scalars(query) if name is not None}

    def needed_spool_names(self) -> set[str]:
        """Return the names of the chunks in the spool that work in flight needs.

        These are the chunks of conversations that are not final, and of jobs that are not done or can be tried again.
        """
        at_work = [*UNFINISHED, JobState.TURNS_STORED, JobState.FAILED]
        busy = (
            select(JobChunkRow.arrival)
            .join(JobRow, JobRow.job_id == JobChunkRow.job_id)
            .where(JobRow.state.in_(at_work))
        )
        is_needed = ConversationRow.final_at.is_(None) | ~ChunkRow.covered | ChunkRow.arrival.in_(busy)
        query = (
            select(ChunkRow.spool_name)
            .join(ConversationRow, ConversationRow.conversation_id == ChunkRow.conversation_id)
            .where(ChunkRow.spool_name.is_not(None), is_needed)
        )
        with self._database.reading() as connection:
            return {name for name in connection.scalars(query) if name is not None}

    def keep_spooled(self, names: set[str]) -> None:
        """Note of all other chunks that their audio is gone."""
        query = select(ChunkRow.arrival, ChunkRow.spool_name).where(ChunkRow.spool_name.is_not(None))
        with self._database.writing() as connection:
            gone = [{"of_arrival": row.arrival} for row in connection.execute(query) if row.spool_name not in names]
            if gone:
                this = update(ChunkRow).where(ChunkRow.arrival == bindparam("of_arrival"))
                connection.execute(this.values(spool_name=None), gone)

    def in_directory(self, limit: int) -> list[ChunkRecord]:
        """Return chunks whose audio is in the spool's directory and not in a bucket; names of those have a hyphen."""
        query = select(*CHUNK_COLUMNS).where(ChunkRow.spool_name.is_not(None), ChunkRow.spool_name.not_like("%-%"))
        with self._database.reading() as connection:
            return [ChunkRecord(*row) for row in connection.execute(query.order_by(ChunkRow.arrival).limit(limit))]

    def move_spooled(self, arrival: int, old: str, new: str) -> bool:
        """Note that a chunk's audio is under another name now; return whether the ledger still had it under the old."""
        this = update(ChunkRow).where(ChunkRow.arrival == arrival, ChunkRow.spool_name == old)
        with self._database.writing() as connection:
            return bool(connection.execute(this.values(spool_name=new)).rowcount)

    def expired(self, *, final_before: float, failed_before: float, accepted_before: float) -> list[ChunkRecord]:
        """Return chunks whose audio is due to be unlinked, at most `MAX_EXPIRED`: ask again once these are noted.

        Args:
            final_before: audio of conversations that were final before this Unix time, unless a job still needs it.
            failed_before: audio of jobs that failed before this time; until then it is kept for a retry.
            accepted_before: all audio that was accepted before this time.
        """
        needs_audio = [*UNFINISHED, JobState.TURNS_STORED]
        may_be_retried = (JobRow.state == JobState.FAILED) & (JobRow.ended_at > failed_before)
        # Both are looked up chunk by chunk, those that were accepted first: a join might read all conversations.
        busy = (
            select(JobChunkRow.arrival)
            .join(JobRow, JobRow.job_id == JobChunkRow.job_id)
            .where(JobChunkRow.arrival == ChunkRow.arrival, JobRow.state.in_(needs_audio) | may_be_retried)
            .limit(1)
        )
        ended = select(ConversationRow.final_at).where(ConversationRow.conversation_id == ChunkRow.conversation_id)
        is_final = func.coalesce(ended.scalar_subquery(), NEVER) <= final_before  # else the jobs are not looked up
        settled = is_final & ChunkRow.covered & busy.scalar_subquery().is_(None)
        # Nothing that came later can have been final by then.
        in_time = ChunkRow.accepted_at <= max(final_before, accepted_before)
        query = (
            select(*CHUNK_COLUMNS)
            .where(ChunkRow.spool_name.is_not(None), in_time, settled | (ChunkRow.accepted_at <= accepted_before))
            .order_by(ChunkRow.accepted_at)
            .limit(MAX_EXPIRED)
        )
        with self._database.reading() as connection:
            return [ChunkRecord(*row) for row in connection.execute(query)]

    def shift_times(self, since: float, step_s: float) -> None:
        """Add so much to the times from `since` on: the clock was set forward, and audio is no older for it.

        What came after that has the right time already: `clamp_future_times` is to follow.
        """
        with self._database.writing() as connection:
            for row, column in (
                (JobRow, JobRow.ended_at),  # jobs before their conversations: see `jobs`
                (ChunkRow, ChunkRow.accepted_at),
                (ConversationRow, ConversationRow.final_at),
                (ConversationRow, ConversationRow.last_activity_at),
            ):
                connection.execute(update(row).where(column >= since).values({column: column + step_s}))

    def clamp_future_times(self, now: float) -> None:
        """Set times in the future to now: the clock was set back, and audio must not be kept longer for it."""
        with self._database.writing() as connection:
            settled = func.coalesce(ConversationRow.final_at, ConversationRow.last_activity_at)  # which has an index
            finals = update(ConversationRow).where(settled > now, ConversationRow.final_at > now)
            kept = update(ChunkRow).where(ChunkRow.spool_name.is_not(None), ChunkRow.accepted_at > now)
            failed = update(JobRow).where(JobRow.state == JobState.FAILED, JobRow.ended_at > now)
            active = update(ConversationRow).where(ConversationRow.last_activity_at > now)
            connection.execute(failed.values(ended_at=now))  # jobs before their conversations: see `jobs`
            connection.execute(kept.values(accepted_at=now))
            connection.execute(finals.values(final_at=now))
            connection.execute(active.values(last_activity_at=now))

    def mark_unlinked(self, arrivals: list[int]) -> None:
        """Note that the audio of these chunks is gone."""
        with self._database.writing() as connection:
            connection.execute(update(ChunkRow).where(ChunkRow.arrival.in_(arrivals)).values(spool_name=None))


def chunks_of(connection: Connection, conversation_id: str) -> list[ChunkRecord]:
    """Return what `ChunkBook.of_conversation` does, of an unpacked conversation."""
    rows = connection.execute(_OF_CONVERSATION, {"conversation_id": conversation_id})
    return [ChunkRecord(*row) for row in rows]
