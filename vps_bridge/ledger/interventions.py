"""What an operator does to jobs and audio: replay, cancel, give audio up.

Each is one transaction and safe beside a running bridge, which acts on it at its next tick.
"""

from __future__ import annotations

import time
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from schemas.failure import FailureCode
from vps_bridge.ledger.records import ConversationState, JobState
from vps_bridge.ledger.tables import ChunkRow, ConversationRow, JobChunkRow, JobRow, LeaseRow

CANCELLED_REASON = "cancelled by an operator"
AUDIO_PURGED = "an operator purged the audio before it was diarized: publish it again under a new chunk_id"
_WAITING = (JobState.READY, JobState.LEASED)


class Intervention(StrEnum):
    """What became of an operator's wish for one job."""

    RETRIED = "retried"
    CANCELLED = "cancelled"
    ALREADY_WAITING = "already_waiting"
    ALREADY_CANCELLED = "already_cancelled"
    ALREADY_DIARIZED = "already_diarized"
    AUDIO_GONE = "audio_gone"
    UNKNOWN = "unknown"


class Interventions:
    """Changes that no message asks for."""

    def __init__(self, session: sessionmaker[Session]) -> None:
        """Work on the ledger's database."""
        self._session = session

    def retry(self, job_id: str) -> Intervention:
        """Let a failed job wait for an agent again, with all its attempts; its conversation is taken back up."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == job_id))
            if job is None:
                return Intervention.UNKNOWN
            if job.state != JobState.FAILED:
                return _standing(JobState(job.state))
            lost = (
                select(ChunkRow.arrival)
                .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
                .where(JobChunkRow.job_id == job_id, ChunkRow.spool_name.is_(None))
            )
            if session.scalars(lost).first() is not None:
                return Intervention.AUDIO_GONE
            job.state, job.attempts, job.deaths = JobState.READY, 0, 0
            job.lease_id = job.ended_at = job.failure_code = job.failure_message = None
            conversation = session.get(ConversationRow, job.conversation_id)
            if conversation is not None:
                conversation.final_at = None
                conversation.note_state(ConversationState.WAITING)
            return Intervention.RETRIED

    def cancel(self, job_id: str) -> Intervention:
        """Give a job up for good: its agent is told to stop, a late result is discarded, nothing waits for it."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == job_id))
            if job is None:
                return Intervention.UNKNOWN
            if job.state not in (*_WAITING, JobState.FAILED):
                return _standing(JobState(job.state))
            _end(session, job, JobState.CANCELLED, CANCELLED_REASON)
            return Intervention.CANCELLED

    def give_up_audio(self, conversation_id: str) -> tuple[str, ...]:
        """Note that a conversation's audio is gone, and return the names of the files to unlink.

        Jobs that still waited for an agent fail and say why; labels and history stay.
        """
        with self._session.begin() as session:
            mine = (ChunkRow.conversation_id == conversation_id) & ChunkRow.spool_name.is_not(None)
            names = tuple(name for name in session.scalars(select(ChunkRow.spool_name).where(mine)) if name)
            session.execute(update(ChunkRow).where(mine).values(spool_name=None))
            of_it = (JobRow.conversation_id == conversation_id) & JobRow.state.in_(_WAITING)
            for job in session.scalars(select(JobRow).where(of_it)):
                job.failure_code, job.failure_message = FailureCode.PAYLOAD_INCOMPLETE, AUDIO_PURGED
                _end(session, job, JobState.FAILED, AUDIO_PURGED)
            return names


def _end(session: Session, job: JobRow, state: JobState, reason: str) -> None:
    leases = update(LeaseRow).where(LeaseRow.job_id == job.job_id)
    session.execute(leases.values(may_return=False))
    if job.lease_id is not None:
        session.execute(leases.where(LeaseRow.lease_id == job.lease_id).values(ended_reason=reason))
    job.state, job.lease_id, job.ended_at = state, None, time.time()
    conversation = session.get(ConversationRow, job.conversation_id)
    if conversation is not None:
        conversation.dirty += 1  # labels are worked out without it


def _standing(state: JobState) -> Intervention:
    if state in _WAITING:
        return Intervention.ALREADY_WAITING
    return Intervention.ALREADY_CANCELLED if state is JobState.CANCELLED else Intervention.ALREADY_DIARIZED
