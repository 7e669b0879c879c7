"""What an operator does to jobs and audio: retry, cancel, give audio up.

Each is one transaction and safe beside a running bridge, which acts on it at its next tick.
"""

from __future__ import annotations

import time
from enum import StrEnum

from sqlalchemy import Connection, bindparam, select, update

from schemas.failure import FailureCode
from vps_bridge.ledger.conversation_changes import let_model_go, mark_dirty, reopen
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.erasure_log import Erased, Erasures
from vps_bridge.ledger.job_events import OF_JOB, OPERATOR, move, note_event
from vps_bridge.ledger.job_states import UNFINISHED, JobEvent, JobState, states_before
from vps_bridge.ledger.tables import ChunkRow, JobChunkRow, JobRow, LeaseRow
from vps_bridge.rules.lease import LeaseEnd

AUDIO_PURGED = "an operator purged the audio before it was diarized: publish it again under a new chunk_id"


class ActionResult(StrEnum):
    """The outcome of an operator's command for one job."""

    RETRIED = "retried"
    CANCELLED = "cancelled"
    ALREADY_WAITING = "already_waiting"
    ALREADY_CANCELLED = "already_cancelled"
    ALREADY_DIARIZED = "already_diarized"
    AUDIO_GONE = "audio_gone"
    BROUGHT_BACK = "brought_back"
    NOT_SET_ASIDE = "not_set_aside"
    UNKNOWN = "unknown"


# Its row is locked; SQLite has one writer at a time, and locks none.
_THE_JOB = (
    select(JobRow.conversation_id, JobRow.state, JobRow.lease_id).where(JobRow.job_id == OF_JOB).with_for_update()
)
_RETRY = move(JobEvent.RETRIED).values(
    attempts=0, deaths=0, lease_id=None, ended_at=None, failure_code=None, failure_message=None
)
_CANCEL = move(JobEvent.CANCELLED).values(lease_id=None, ended_at=bindparam("now"))
_GIVE_UP = move(JobEvent.GIVEN_UP).values(
    lease_id=None, ended_at=bindparam("now"), failure_code=FailureCode.PAYLOAD_INCOMPLETE, failure_message=AUDIO_PURGED
)


class OperatorActions:
    """What an operator's commands change."""

    def __init__(self, database: LedgerDatabase, erasures: Erasures) -> None:
        """Work on the ledger's database."""
        self._database, self._erasures = database, erasures

    def retry(self, job_id: str) -> ActionResult:
        """Let a failed job wait for an agent again, with all its attempts; its conversation waits for it again."""
        lost = (
            select(ChunkRow.arrival)
            .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
            .where(JobChunkRow.job_id == job_id, ChunkRow.spool_name.is_(None))
        )
        with self._database.writing() as connection:
            job = connection.execute(_THE_JOB, {"of_job": job_id}).first()
            if job is None:
                return ActionResult.UNKNOWN
            if job.state not in states_before(JobEvent.RETRIED):
                return _already(job.state)
            if connection.execute(lost).first() is not None:
                return ActionResult.AUDIO_GONE
            connection.execute(_RETRY, {"of_job": job_id})
            note_event(connection, JobEvent.RETRIED, job_id, by=OPERATOR)
            let_model_go(connection, job.conversation_id)
            reopen(connection, job.conversation_id)
            return ActionResult.RETRIED

    def cancel(self, job_id: str) -> ActionResult:
        """Give a job up for good: its agent has to stop, a late result is discarded, nothing waits for it."""
        with self._database.writing() as connection:
            job = connection.execute(_THE_JOB, {"of_job": job_id}).first()
            if job is None:
                return ActionResult.UNKNOWN
            if job.state not in states_before(JobEvent.CANCELLED):
                return _already(job.state)
            connection.execute(_CANCEL, {"of_job": job_id, "now": time.time()})
            note_event(connection, JobEvent.CANCELLED, job_id, by=OPERATOR, lease_id=job.lease_id)
            _end_lease(connection, job.lease_id, LeaseEnd.JOB_CANCELLED)
            let_model_go(connection, job.conversation_id)
            mark_dirty(connection, job.conversation_id)  # labels are worked out without it
            return ActionResult.CANCELLED

    def give_up_audio(self, conversation_id: str) -> tuple[str, ...]:
        """Note that a conversation's audio is gone, and return the names of the files to unlink.

        Jobs that still waited for an agent fail and say why; labels and history stay.
        """
        mine = (ChunkRow.conversation_id == conversation_id) & ChunkRow.spool_name.is_not(None)
        of_it = (JobRow.conversation_id == conversation_id) & JobRow.state.in_(states_before(JobEvent.GIVEN_UP))
        with self._database.writing(conversation_id) as connection:
            names = tuple(name for name in connection.scalars(select(ChunkRow.spool_name).where(mine)) if name)
            if names:
                self._erasures.note(connection, Erased.AUDIO, conversation_id)
            connection.execute(update(ChunkRow).where(mine).values(spool_name=None))
            for job in connection.execute(select(JobRow.job_id, JobRow.lease_id).where(of_it)).all():
                connection.execute(_GIVE_UP, {"of_job": job.job_id, "now": time.time()})
                about = {"lease_id": job.lease_id, "detail": FailureCode.PAYLOAD_INCOMPLETE, "message": AUDIO_PURGED}
                note_event(connection, JobEvent.GIVEN_UP, job.job_id, by=OPERATOR, **about)
                _end_lease(connection, job.lease_id, LeaseEnd.AUDIO_PURGED)
                mark_dirty(connection, conversation_id)
            return names


def _end_lease(connection: Connection, lease_id: str | None, why: LeaseEnd) -> None:
    if lease_id is not None:
        connection.execute(update(LeaseRow).where(LeaseRow.lease_id == lease_id).values(lease_end=why))


def _already(state: JobState) -> ActionResult:
    if state in UNFINISHED:
        return ActionResult.ALREADY_WAITING
    return ActionResult.ALREADY_CANCELLED if state is JobState.CANCELLED else ActionResult.ALREADY_DIARIZED
