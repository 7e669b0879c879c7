"""Conversations in the ledger: what the backend told of them, and what it was told."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, sessionmaker

from schemas.conversation import ConversationEvent, EventType, Verdict
from vps_bridge.ledger.jobs import to_lease
from vps_bridge.ledger.records import ConversationRecord, ConversationState, Deleted, JobState
from vps_bridge.ledger.tables import ChunkRow, ConversationRow, EventRow, JobRow, LeaseRow, TombstoneRow


@dataclass(frozen=True)
class AssignedUpdate:
    """An assignment about to be noted: the update to offer and the voices it stands on."""

    voices: Any
    write_key: str
    payload: bytes
    final: bool
    done_jobs: tuple[str, ...]


def _to_record(row: ConversationRow) -> ConversationRecord:
    model, revision = row.embedding_model, row.embedding_revision
    return ConversationRecord(
        conversation_id=row.conversation_id,
        state=ConversationState(row.state),
        reason=row.reason,
        since_at=row.since_at,
        started_at_s=row.started_at_s,
        min_speakers=row.min_speakers,
        max_speakers=row.max_speakers,
        num_speakers=row.num_speakers,
        completed=row.completed,
        completed_chunks=row.completed_chunks,
        embedding=None if model is None or revision is None else (model, revision),
        voices=row.voices,
        dirty=row.dirty,
        write_key=row.write_key,
        updated_version=row.updated_version,
        applied_version=row.applied_version,
        updated_payload=row.updated_payload,
        final_at=row.final_at,
    )


class ConversationBook:
    """Conversations, their events, and the tombstones of deleted ones."""

    def __init__(self, session: sessionmaker[Session]) -> None:
        """Work on the ledger's database."""
        self._session = session

    def get(self, conversation_id: str) -> ConversationRecord | None:
        """Return a conversation, or None where it was never heard of or is deleted."""
        with self._session() as session:
            row = session.get(ConversationRow, conversation_id)
            return _to_record(row) if row else None

    def all(self) -> list[ConversationRecord]:
        """Return every conversation, the one that changed last first."""
        with self._session() as session:
            rows = session.scalars(select(ConversationRow).order_by(ConversationRow.since_at.desc()))
            return [_to_record(row) for row in rows]

    def is_deleted(self, conversation_id: str) -> bool:
        """Whether a tombstone stands for this conversation."""
        with self._session() as session:
            return session.get(TombstoneRow, conversation_id) is not None

    def ensure(self, conversation_id: str) -> None:
        """Open a conversation that audio or an event came for."""
        with self._session.begin() as session:
            _ensure(session, conversation_id)

    def note_hints(self, conversation_id: str, *, num: int | None, minimum: int | None, maximum: int | None) -> None:
        """Keep hints on the number of speakers; a later hint replaces an earlier one."""
        with self._session.begin() as session:
            row = _ensure(session, conversation_id)
            row.num_speakers = num or row.num_speakers
            row.min_speakers = minimum or row.min_speakers
            row.max_speakers = maximum or row.max_speakers

    def seen_event(self, conversation_id: str, event_id: str) -> tuple[Verdict, str | None] | None:
        """Return what an event was answered the first time, or None where it is new."""
        with self._session() as session:
            row = session.get(EventRow, (conversation_id, event_id))
            return (Verdict(row.verdict), row.reason) if row else None

    def note_event(self, event: ConversationEvent, conversation_id: str) -> None:
        """Take in `started`, `segments`, `completed` and `applied`; the store has the segments by now."""
        with self._session.begin() as session:
            row = _ensure(session, conversation_id)
            if event.type is EventType.STARTED and event.revision >= row.started_revision:
                row.started_revision = event.revision
                row.started_at_s = event.started_at.timestamp() if event.started_at else row.started_at_s
                row.language = event.language or row.language
            elif event.type is EventType.COMPLETED:
                row.completed, row.completed_chunks = True, event.chunks
                row.last_audio_at_s = event.last_audio_at.timestamp() if event.last_audio_at else None
            elif event.type is EventType.APPLIED and event.updated_version is not None:
                row.applied_version = max(row.applied_version, min(event.updated_version, row.updated_version))
            elif event.type is EventType.RESYNC:
                row.applied_version = min(row.applied_version, row.updated_version - 1)
            if event.type in (EventType.STARTED, EventType.SEGMENTS, EventType.COMPLETED):
                row.dirty = True
            row.num_speakers = event.num_speakers or row.num_speakers
            row.min_speakers = event.min_speakers or row.min_speakers
            row.max_speakers = event.max_speakers or row.max_speakers
            session.merge(
                EventRow(
                    conversation_id=conversation_id, event_id=event.event_id, verdict=Verdict.ACCEPTED, reason=None
                )
            )

    def set_state(self, conversation_id: str, state: ConversationState, reason: str | None) -> None:
        """Say where a conversation stands, for people; the time is kept while it stays the same."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is not None and (row.state, row.reason) != (state, reason):
                row.state, row.reason, row.since_at = state, reason, time.time()

    def mark_dirty(self, conversation_id: str) -> None:
        """Ask for a new assignment."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is not None:
                row.dirty = True

    def clear_dirty(self, conversation_id: str) -> None:
        """Note that there is nothing to assign yet; the conversation goes on waiting."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is not None:
                row.dirty = False

    def dirty(self) -> list[str]:
        """Return the conversations whose labels may be out of date."""
        with self._session() as session:
            return list(session.scalars(select(ConversationRow.conversation_id).where(ConversationRow.dirty)))

    def open_ended(self) -> list[str]:
        """Return completed conversations that are not final yet."""
        query = select(ConversationRow.conversation_id).where(
            ConversationRow.completed, ConversationRow.final_at.is_(None)
        )
        with self._session() as session:
            return list(session.scalars(query))

    def unapplied(self) -> list[ConversationRecord]:
        """Return the conversations whose latest update the backend has not confirmed."""
        query = select(ConversationRow).where(
            ConversationRow.updated_payload.is_not(None),
            ConversationRow.applied_version < ConversationRow.updated_version,
        )
        with self._session() as session:
            return [_to_record(row) for row in session.scalars(query)]

    def note_nothing_new(self, conversation_id: str, *, final: bool, done_jobs: tuple[str, ...]) -> None:
        """Note that an assignment changed nothing that the backend does not know already."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is not None:
                _settle(session, row, final=final, done_jobs=done_jobs)

    def note_update(self, conversation_id: str, update: AssignedUpdate) -> None:
        """Note an assignment with the update that tells of it; from here on the update is offered."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is None:
                return
            row.voices, row.write_key = update.voices, update.write_key
            row.updated_version += 1
            row.updated_payload = update.payload
            _settle(session, row, final=update.final, done_jobs=update.done_jobs)

    def reopen(self, conversation_id: str) -> None:
        """Take a final conversation back up: more audio or other segments came."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is not None and row.final_at is not None:
                row.final_at, row.dirty = None, True

    def delete(self, conversation_id: str) -> Deleted:
        """Put up the tombstone and remove every row, in one transaction; return what is left to undo outside."""
        with self._session.begin() as session:
            session.merge(TombstoneRow(conversation_id=conversation_id, deleted_at=time.time()))
            current = (
                select(LeaseRow, JobRow)
                .join(JobRow, JobRow.lease_id == LeaseRow.lease_id)
                .where(JobRow.conversation_id == conversation_id, JobRow.state == JobState.LEASED)
            )
            leases = tuple(to_lease(lease, job) for lease, job in session.execute(current))
            mine = ChunkRow.conversation_id == conversation_id
            names = tuple(name for name in session.scalars(select(ChunkRow.spool_name).where(mine)) if name)
            for table in (ChunkRow, JobRow, EventRow, ConversationRow):
                session.execute(delete(table).where(table.conversation_id == conversation_id))
            return Deleted(names, leases)


def _ensure(session: Session, conversation_id: str) -> ConversationRow:
    row = session.get(ConversationRow, conversation_id)
    if row is None:
        row = ConversationRow(
            conversation_id=conversation_id,
            state=ConversationState.WAITING,
            reason="no audio yet",
            since_at=time.time(),
        )
        session.add(row)
        session.flush()
    return row


def _settle(session: Session, row: ConversationRow, *, final: bool, done_jobs: tuple[str, ...]) -> None:
    row.dirty = False
    state = ConversationState.FINAL if final else ConversationState.ASSIGNED
    if (row.state, row.reason) != (state, None):
        row.state, row.reason, row.since_at = state, None, time.time()
    if final and row.final_at is None:
        row.final_at = time.time()
    jobs = select(JobRow).where(JobRow.job_id.in_(done_jobs), JobRow.state == JobState.TURNS_STORED)
    for job in session.scalars(jobs):
        job.state, job.ended_at = JobState.DONE, time.time()
