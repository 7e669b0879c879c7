"""Accepted chunks: from the moment one has a row here, the bridge is answerable for it."""

from __future__ import annotations

import time
from dataclasses import fields

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from vps_bridge.ledger.records import ChunkRecord, JobState, NewChunk
from vps_bridge.ledger.tables import ChunkRow, ConversationRow, JobChunkRow, JobRow

_FIELDS = [item.name for item in fields(ChunkRecord)]


def to_chunk(row: ChunkRow) -> ChunkRecord:
    """Return the record of a row."""
    return ChunkRecord(**{name: getattr(row, name) for name in _FIELDS})


class ChunkBook:
    """Chunks of all conversations."""

    def __init__(self, session: sessionmaker[Session]) -> None:
        """Work on the ledger's database."""
        self._session = session

    def find(self, conversation_id: str, chunk_id: str) -> ChunkRecord | None:
        """Return a chunk by its id, also one whose audio is gone already."""
        with self._session() as session:
            row = session.scalar(
                select(ChunkRow).where(ChunkRow.conversation_id == conversation_id, ChunkRow.chunk_id == chunk_id)
            )
            return to_chunk(row) if row else None

    def add(self, new: NewChunk) -> None:
        """Accept a chunk. Its conversation must have a row."""
        with self._session.begin() as session:
            values = {item.name: getattr(new, item.name) for item in fields(NewChunk)}
            session.add(ChunkRow(**values, accepted_at=time.time(), covered=False))

    def of_conversation(self, conversation_id: str) -> list[ChunkRecord]:
        """Return a conversation's chunks in order of arrival."""
        with self._session() as session:
            query = select(ChunkRow).where(ChunkRow.conversation_id == conversation_id).order_by(ChunkRow.arrival)
            return [to_chunk(row) for row in session.scalars(query)]

    def uncovered_conversations(self) -> list[str]:
        """Return the conversations that have chunks no job covers yet."""
        with self._session() as session:
            return list(session.scalars(select(ChunkRow.conversation_id).where(~ChunkRow.covered).distinct()))

    def spooled(self) -> tuple[int, int]:
        """Return (chunks, bytes) that lie in the spool."""
        with self._session() as session:
            query = select(func.count(), func.coalesce(func.sum(ChunkRow.bytes), 0))
            count, size = session.execute(query.where(ChunkRow.spool_name.is_not(None))).one()
            return count, size

    def spool_names(self) -> set[str]:
        """Return the names of all chunks in the spool."""
        with self._session() as session:
            query = select(ChunkRow.spool_name).where(ChunkRow.spool_name.is_not(None))
            return {name for name in session.scalars(query) if name is not None}

    def expired(self, *, final_before: float, accepted_before: float) -> list[ChunkRecord]:
        """Return chunks whose audio is due to be unlinked: settled long enough, or too old come what may."""
        open_states = [JobState.READY, JobState.LEASED, JobState.TURNS_STORED, JobState.FAILED]
        busy = (
            select(JobChunkRow.arrival)
            .join(JobRow, JobRow.job_id == JobChunkRow.job_id)
            .where(JobRow.state.in_(open_states))
        )
        settled = (
            (ConversationRow.final_at.is_not(None))
            & (ConversationRow.final_at <= final_before)
            & ChunkRow.covered
            & ChunkRow.arrival.not_in(busy)
        )
        query = (
            select(ChunkRow)
            .join(ConversationRow, ConversationRow.conversation_id == ChunkRow.conversation_id)
            .where(ChunkRow.spool_name.is_not(None), settled | (ChunkRow.accepted_at <= accepted_before))
        )
        with self._session() as session:
            return [to_chunk(row) for row in session.scalars(query)]

    def mark_unlinked(self, arrivals: list[int]) -> None:
        """Note that the audio of these chunks is gone."""
        with self._session.begin() as session:
            session.execute(update(ChunkRow).where(ChunkRow.arrival.in_(arrivals)).values(spool_name=None))
