"""What an operator does to jobs and audio: replay, cancel, give audio up.

Each is one transaction and safe beside a running bridge, which acts on it at its next tick.
"""

from __future__ import annotations

import time
from enum import StrEnum

from sqlalchemy import Connection, bindparam, select, update

from schemas.failure import FailureCode
from vps_bridge.database import Database
from vps_bridge.ledger.conversations import mark_dirty, take_back_up
from vps_bridge.ledger.records import JobState
from vps_bridge.ledger.tables import ChunkRow, JobChunkRow, JobRow, LeaseRow

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


_THE_JOB = select(JobRow.conversation_id, JobRow.state, JobRow.lease_id).where(JobRow.job_id == bindparam("of_job"))


class Interventions:
    """Changes that no message asks for."""

    def __init__(self, database: Database) -> None:
        """Work on the ledger's database."""
        self._database = database

    def retry(self, job_id: str) -> Intervention:
        """Let a failed job wait for an agent again, with all its attempts; its conversation is taken back up."""
        lost = (
            select(ChunkRow.arrival)
            .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
            .where(JobChunkRow.job_id == job_id, ChunkRow.spool_name.is_(None))
        )
        anew = {"state": JobState.READY, "attempts": 0, "deaths": 0, "lease_id": None, "ended_at": None}
        with self._database.writing() as connection:
            job = connection.execute(_THE_JOB, {"of_job": job_id}).first()
            if job is None:
                return Intervention.UNKNOWN
            if job.state != JobState.FAILED:
                return _standing(JobState(job.state))
            if connection.execute(lost).first() is not None:
                return Intervention.AUDIO_GONE
            this = update(JobRow).where(JobRow.job_id == job_id)
            connection.execute(this.values(**anew, failure_code=None, failure_message=None))
            take_back_up(connection, job.conversation_id)
            return Intervention.RETRIED

    def cancel(self, job_id: str) -> Intervention:
        """Give a job up for good: its agent is told to stop, a late result is discarded, nothing waits for it."""
        with self._database.writing() as connection:
            job = connection.execute(_THE_JOB, {"of_job": job_id}).first()
            if job is None:
                return Intervention.UNKNOWN
            if job.state not in (*_WAITING, JobState.FAILED):
                return _standing(JobState(job.state))
            _end(connection, job_id, job.lease_id, CANCELLED_REASON, state=JobState.CANCELLED)
            mark_dirty(connection, job.conversation_id)  # labels are worked out without it
            return Intervention.CANCELLED

    def give_up_audio(self, conversation_id: str) -> tuple[str, ...]:
        """Note that a conversation's audio is gone, and return the names of the files to unlink.

        Jobs that still waited for an agent fail and say why; labels and history stay.
        """
        mine = (ChunkRow.conversation_id == conversation_id) & ChunkRow.spool_name.is_not(None)
        of_it = (JobRow.conversation_id == conversation_id) & JobRow.state.in_(_WAITING)
        why = {"failure_code": FailureCode.PAYLOAD_INCOMPLETE, "failure_message": AUDIO_PURGED}
        with self._database.writing() as connection:
            names = tuple(name for name in connection.scalars(select(ChunkRow.spool_name).where(mine)) if name)
            connection.execute(update(ChunkRow).where(mine).values(spool_name=None))
            for job_id, lease_id in connection.execute(select(JobRow.job_id, JobRow.lease_id).where(of_it)).all():
                _end(connection, job_id, lease_id, AUDIO_PURGED, state=JobState.FAILED, **why)
                mark_dirty(connection, conversation_id)
            return names


def _end(connection: Connection, job_id: str, lease_id: str | None, reason: str, **facts: str) -> None:
    leases = update(LeaseRow).where(LeaseRow.job_id == job_id)
    connection.execute(leases.values(may_return=False))
    if lease_id is not None:
        connection.execute(leases.where(LeaseRow.lease_id == lease_id).values(ended_reason=reason))
    ended = update(JobRow).where(JobRow.job_id == job_id)
    connection.execute(ended.values(lease_id=None, ended_at=time.time(), **facts))


def _standing(state: JobState) -> Intervention:
    if state in _WAITING:
        return Intervention.ALREADY_WAITING
    return Intervention.ALREADY_CANCELLED if state is JobState.CANCELLED else Intervention.ALREADY_DIARIZED
