"""Conversations in the ledger: what the backend told of them, and what it was told."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, literal_column, select
from sqlalchemy.orm import Session, sessionmaker

from schemas.conversation import ConversationEvent, EventType, Verdict
from schemas.failure import FailureCode
from vps_bridge.ledger.jobs import to_lease
from vps_bridge.ledger.records import (
    ConversationRecord,
    ConversationState,
    Deleted,
    JobState,
    OpenEnd,
    SpeakerHints,
)
from vps_bridge.ledger.tables import BUSY, ChunkRow, ConversationRow, EventRow, JobRow, LeaseRow, TombstoneRow


@dataclass(frozen=True)
class AssignedUpdate:
    """An assignment about to be noted: the update to offer and the voices it stands on.

    `seen` is how dirty the conversation was when it was read: what changed since then asks for another assignment.
    """

    voices: Any
    write_key: str
    payload: bytes
    final: bool
    done_jobs: tuple[str, ...]
    seen: int


def _to_record(row: ConversationRow) -> ConversationRecord:
    model, revision = row.embedding_model, row.embedding_revision
    return ConversationRecord(
        conversation_id=row.conversation_id,
        state=ConversationState(row.state),
        since_at=row.since_at,
        started_at_s=row.started_at_s,
        min_speakers=row.min_speakers,
        max_speakers=row.max_speakers,
        num_speakers=row.num_speakers,
        completed=row.completed,
        completed_chunks=row.completed_chunks,
        last_audio_at_s=row.last_audio_at_s,
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

    def answer_without(self, event: ConversationEvent, conversation_id: str) -> tuple[Verdict, str | None] | None:
        """Return the answer to an event that is not to be taken in, or None where it is.

        Its conversation is deleted, or it was answered before, or it is a `started` or `completed` after which one of
        a higher revision came already.
        """
        with self._session() as session:
            if session.get(TombstoneRow, conversation_id) is not None:
                return Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED
            seen = session.get(EventRow, (conversation_id, event.event_id))
            if seen is not None:
                return Verdict(seen.verdict), seen.reason
            row = session.get(ConversationRow, conversation_id)
            newest = (
                {EventType.STARTED: row.started_revision, EventType.COMPLETED: row.completed_revision} if row else {}
            )
            if event.revision < newest.get(event.type, -1):
                return Verdict.DISCARDED, FailureCode.REVISION_STALE
            return None

    def note_event(
        self, event: ConversationEvent, conversation_id: str, verdict: Verdict, reason: str | None = None
    ) -> None:
        """Take in any event but `deleted` with the answer it gets; of `segments` the store has what counts by now.

        An event that is not accepted changes nothing. A final conversation is taken back up by what it stands on.
        """
        with self._session.begin() as session:
            row = ConversationRow.opened(session, conversation_id)
            if verdict is Verdict.ACCEPTED:
                _take_in(event, row)
            session.merge(
                EventRow(conversation_id=conversation_id, event_id=event.event_id, verdict=verdict, reason=reason)
            )

    def mark_dirty(self, conversation_id: str) -> None:
        """Ask for a new assignment."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is not None:
                row.dirty += 1

    def dirty(self) -> list[str]:
        """Return the conversations whose labels may be out of date."""
        query = select(ConversationRow.conversation_id).where(ConversationRow.dirty > literal_column("0"))
        with self._session() as session:
            return list(session.scalars(query))

    def is_to_assign(self, conversation_id: str) -> bool:
        """Whether a conversation's labels may be out of date and there are results to make them of.

        Without results there is nothing to assign: it goes on waiting and is not dirty any more, unless it is final.
        """
        results = JobRow.state.in_((JobState.TURNS_STORED, JobState.DONE))
        of_it = select(JobRow.number).where(JobRow.conversation_id == conversation_id, results).limit(1)
        with self._session() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is None or not row.dirty:
                return False
            if row.final_at is not None or session.scalar(of_it) is not None:
                return True
            row.dirty = 0
            session.commit()
            return False

    def open_ended(self) -> list[OpenEnd]:
        """Return the completed conversations that are not final, and whose chunks all are in jobs that have ended."""
        with self._session() as session:
            return [OpenEnd(*row) for row in session.execute(_OPEN_ENDS)]

    def open_end(self, conversation_id: str) -> OpenEnd | None:
        """Return a conversation if it is one of `open_ended`."""
        with self._session() as session:
            row = session.execute(_OPEN_ENDS.where(ConversationRow.conversation_id == conversation_id)).first()
            return OpenEnd(*row) if row else None

    def unapplied(self) -> list[tuple[str, int]]:
        """Return (conversation, version) of each latest update that the backend has not confirmed."""
        query = select(ConversationRow.conversation_id, ConversationRow.updated_version).where(
            ConversationRow.applied_version < ConversationRow.updated_version
        )
        with self._session() as session:
            return [(name, version) for name, version in session.execute(query)]

    def note_nothing_new(self, conversation_id: str, *, final: bool, done_jobs: tuple[str, ...], seen: int) -> None:
        """Note that an assignment changed nothing that the backend does not know already."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is not None:
                _settle(session, row, final=final, done_jobs=done_jobs, seen=seen)

    def note_update(self, conversation_id: str, update: AssignedUpdate) -> None:
        """Note an assignment with the update that tells of it; from here on the update is offered."""
        with self._session.begin() as session:
            row = session.get(ConversationRow, conversation_id)
            if row is None:
                return
            row.voices, row.write_key = update.voices, update.write_key
            row.updated_version += 1
            row.updated_payload = update.payload
            _settle(session, row, final=update.final, done_jobs=update.done_jobs, seen=update.seen)

    def quiet_since(self, moment: float) -> list[str]:
        """Return the conversations that nothing has happened to since a Unix time, the quietest first."""
        recent = ChunkRow.conversation_id == ConversationRow.conversation_id, ChunkRow.accepted_at > moment
        query = (
            select(ConversationRow.conversation_id)
            .where(ConversationRow.since_at <= moment, ~select(ChunkRow.arrival).where(*recent).exists())
            .order_by(ConversationRow.since_at)
        )
        with self._session() as session:
            return list(session.scalars(query))

    def open_throwaway(self, conversation_id: str) -> None:
        """Begin a conversation that is deleted with the answer it was made for."""
        with self._session.begin() as session:
            ConversationRow.opened(session, conversation_id).throwaway = True

    def throwaways(self) -> list[str]:
        """Return the conversations that are to be deleted with an answer."""
        with self._session() as session:
            return list(session.scalars(select(ConversationRow.conversation_id).where(ConversationRow.throwaway)))

    def bury(self, conversation_id: str) -> None:
        """Put up the tombstone alone: what comes from now on is discarded, and the running bridge erases the rest."""
        with self._session.begin() as session:
            session.merge(_tombstone(conversation_id))

    def unfinished_deletions(self) -> list[str]:
        """Return the deleted conversations of which something may be left."""
        query = select(TombstoneRow.conversation_id).where(TombstoneRow.finished == literal_column("0"))
        with self._session() as session:
            return list(session.scalars(query))

    def finish_deletion(self, conversation_id: str) -> None:
        """Note that nothing is left of a deleted conversation, rows and files."""
        with self._session.begin() as session:
            row = session.get(TombstoneRow, conversation_id)
            if row is not None:
                row.finished = True

    def delete(self, conversation_id: str) -> Deleted:
        """Put up the tombstone and remove every row, in one transaction; return what is left to undo outside."""
        with self._session.begin() as session:
            session.merge(_tombstone(conversation_id))
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


def _tombstone(conversation_id: str) -> TombstoneRow:
    return TombstoneRow(conversation_id=conversation_id, deleted_at=time.time(), finished=False)


_OF_IT = ChunkRow.conversation_id == ConversationRow.conversation_id
_AUDIO_UNTIL_S = func.max(ChunkRow.captured_at_s + func.coalesce(ChunkRow.duration_s, literal_column("0")))
_OPEN_ENDS = select(
    ConversationRow.conversation_id,
    select(func.count()).where(_OF_IT).scalar_subquery(),
    ConversationRow.completed_chunks,
    ConversationRow.last_audio_at_s,
    select(_AUDIO_UNTIL_S).where(_OF_IT).scalar_subquery(),
).where(
    ConversationRow.completed,
    ConversationRow.final_at.is_(None),
    ~select(ChunkRow.arrival).where(_OF_IT, ~ChunkRow.covered).exists(),
    ~select(JobRow.number).where(JobRow.conversation_id == ConversationRow.conversation_id, BUSY).exists(),
)


def _take_in(event: ConversationEvent, row: ConversationRow) -> None:
    if event.type is EventType.STARTED:
        row.started_revision = event.revision
        row.started_at_s = event.started_at.timestamp() if event.started_at else row.started_at_s
        row.language = event.language or row.language
    elif event.type is EventType.COMPLETED:
        row.completed_revision = event.revision
        row.completed, row.completed_chunks = True, event.chunks
        row.last_audio_at_s = event.last_audio_at.timestamp() if event.last_audio_at else None
    elif event.type is EventType.APPLIED and event.updated_version is not None:
        row.applied_version = max(row.applied_version, min(event.updated_version, row.updated_version))
    elif event.type is EventType.RESYNC:
        row.applied_version = max(0, min(row.applied_version, row.updated_version - 1))
    if event.type in (EventType.STARTED, EventType.SEGMENTS):
        row.final_at = None
    if event.type in (EventType.STARTED, EventType.SEGMENTS, EventType.COMPLETED):
        row.dirty += 1
    row.note_hints(SpeakerHints(event.num_speakers, event.min_speakers, event.max_speakers))


def _settle(session: Session, row: ConversationRow, *, final: bool, done_jobs: tuple[str, ...], seen: int) -> None:
    if row.dirty == seen:
        row.dirty = 0
    row.note_state(ConversationState.FINAL if final else ConversationState.ASSIGNED)
    if final and row.final_at is None:
        row.final_at = time.time()
    jobs = select(JobRow).where(JobRow.job_id.in_(done_jobs), JobRow.state == JobState.TURNS_STORED)
    for job in session.scalars(jobs):
        job.state, job.ended_at = JobState.DONE, time.time()
