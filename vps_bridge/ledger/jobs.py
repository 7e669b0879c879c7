"""Jobs, their leases and results: each change of state is one transaction."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from vps_bridge.assemble import JobPlan
from vps_bridge.ledger.chunks import to_chunk
from vps_bridge.ledger.records import JobChunk, JobRecord, JobState, LeaseRecord, QueueCounts, StoredResult
from vps_bridge.ledger.tables import ChunkRow, ConversationRow, JobChunkRow, JobRow, LeaseRow, ResultRow

LEASE_ID_BYTES = 16  # 128 random bits


def to_lease(lease: LeaseRow, job: JobRow) -> LeaseRecord:
    """Return the record of a lease."""
    return LeaseRecord(
        lease.lease_id, lease.job_id, job.conversation_id, lease.agent_id, lease.instance_id, job.audio_s
    )


def _to_job(row: JobRow, agent_id: str | None) -> JobRecord:
    return JobRecord(
        number=row.number,
        job_id=row.job_id,
        conversation_id=row.conversation_id,
        state=JobState(row.state),
        audio_s=row.audio_s,
        attempts=row.attempts,
        deaths=row.deaths,
        lease_id=row.lease_id,
        failure_code=row.failure_code,
        failure_message=row.failure_message,
        created_at=row.created_at,
        ended_at=row.ended_at,
        agent_id=agent_id,
    )


_JOB_AND_AGENT = select(JobRow, LeaseRow.agent_id).outerjoin(LeaseRow, LeaseRow.lease_id == JobRow.lease_id)


class JobBook:
    """Jobs of all conversations."""

    def __init__(self, session: sessionmaker[Session]) -> None:
        """Work on the ledger's database."""
        self._session = session

    def add(self, conversation_id: str, plans: tuple[JobPlan, ...]) -> list[str]:
        """Turn plans into jobs that wait for a lease; their fresh chunks are covered from now on."""
        with self._session.begin() as session:
            mine = ChunkRow.conversation_id == conversation_id
            chunks = {row.chunk_id: row for row in session.scalars(select(ChunkRow).where(mine))}
            return [_add_job(session, conversation_id, plan, chunks) for plan in plans]

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job, or None where it is unknown (or its conversation is deleted)."""
        with self._session() as session:
            found = session.execute(_JOB_AND_AGENT.where(JobRow.job_id == job_id)).first()
            return _to_job(*found) if found else None

    def all(self, *, states: tuple[JobState, ...] = (), conversation_id: str | None = None) -> list[JobRecord]:
        """Return jobs, oldest first."""
        query = _JOB_AND_AGENT.order_by(JobRow.number)
        if states:
            query = query.where(JobRow.state.in_(states))
        if conversation_id is not None:
            query = query.where(JobRow.conversation_id == conversation_id)
        with self._session() as session:
            return [_to_job(job, agent_id) for job, agent_id in session.execute(query)]

    def ready(self, limit: int) -> list[tuple[JobRecord, tuple[str, str] | None]]:
        """Return the oldest jobs that wait for a lease, with the embedding their conversation is pinned to."""
        query = (
            select(JobRow, ConversationRow.embedding_model, ConversationRow.embedding_revision)
            .join(ConversationRow, ConversationRow.conversation_id == JobRow.conversation_id)
            .where(JobRow.state == JobState.READY)
            .order_by(JobRow.number)
            .limit(limit)
        )
        with self._session() as session:
            return [
                (_to_job(job, None), None if model is None or revision is None else (model, revision))
                for job, model, revision in session.execute(query)
            ]

    def chunks(self, job_id: str) -> list[JobChunk]:
        """Return a job's chunks in order."""
        query = (
            select(JobChunkRow, ChunkRow)
            .join(ChunkRow, ChunkRow.arrival == JobChunkRow.arrival)
            .where(JobChunkRow.job_id == job_id)
            .order_by(JobChunkRow.position)
        )
        with self._session() as session:
            return [JobChunk(to_chunk(chunk), place.start_s, place.fresh) for place, chunk in session.execute(query)]

    def grant(self, job_id: str, agent_id: str, instance_id: str, embedding: tuple[str, str]) -> LeaseRecord | None:
        """Lease a waiting job to an agent and pin its conversation to the agent's embedding.

        Returns None where the job does not wait any more or its conversation is pinned to another model.
        """
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == job_id, JobRow.state == JobState.READY))
            conversation = session.get(ConversationRow, job.conversation_id) if job else None
            if job is None or conversation is None:
                return None
            pinned = (conversation.embedding_model, conversation.embedding_revision)
            if pinned not in ((None, None), embedding):
                return None
            conversation.embedding_model, conversation.embedding_revision = embedding
            lease = LeaseRow(
                lease_id=secrets.token_hex(LEASE_ID_BYTES),
                job_id=job_id,
                agent_id=agent_id,
                instance_id=instance_id,
                granted_at=time.time(),
            )
            session.add(lease)
            job.state, job.lease_id = JobState.LEASED, lease.lease_id
            return to_lease(lease, job)

    def leases(self) -> list[LeaseRecord]:
        """Return the leases that are current."""
        query = (
            select(LeaseRow, JobRow)
            .join(JobRow, JobRow.lease_id == LeaseRow.lease_id)
            .where(JobRow.state == JobState.LEASED)
            .order_by(JobRow.number)
        )
        with self._session() as session:
            return [to_lease(lease, job) for lease, job in session.execute(query)]

    def find_lease(self, lease_id: str) -> LeaseRecord | None:
        """Return a lease, current or long over."""
        query = (
            select(LeaseRow, JobRow).join(JobRow, JobRow.job_id == LeaseRow.job_id).where(LeaseRow.lease_id == lease_id)
        )
        with self._session() as session:
            found = session.execute(query).first()
            return to_lease(*found) if found else None

    def revoke(self, lease_id: str, reason: str, *, died: bool) -> JobRecord | None:
        """End a current lease; its job waits again. `died`: the agent's process died holding it."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.lease_id == lease_id, JobRow.state == JobState.LEASED))
            if job is None:
                return None
            job.state, job.lease_id, job.deaths = JobState.READY, None, job.deaths + died
            session.execute(update(LeaseRow).where(LeaseRow.lease_id == lease_id).values(ended_reason=reason))
            return _to_job(job, None)

    def give_back(self, lease: LeaseRecord, instance_id: str) -> bool:
        """Return a revoked lease to the agent that turned up again still holding the job."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == lease.job_id, JobRow.state == JobState.READY))
            row = session.get(LeaseRow, lease.lease_id)
            if job is None or row is None or row.instance_id != instance_id:
                return False
            job.state, job.lease_id, row.ended_reason = JobState.LEASED, lease.lease_id, None
            return True

    def store_result(self, lease: LeaseRecord, payload: bytes) -> bool:
        """Keep a result and mark its conversation, in one transaction; False where one is kept already."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == lease.job_id))
            keeps = (JobState.READY, JobState.LEASED, JobState.FAILED)
            if job is None or job.state not in keeps or session.get(ResultRow, lease.job_id) is not None:
                return False
            session.add(
                ResultRow(
                    job_id=lease.job_id,
                    lease_id=lease.lease_id,
                    agent_id=lease.agent_id,
                    payload=payload,
                    stored_at=time.time(),
                )
            )
            job.state, job.failure_code, job.failure_message = JobState.TURNS_STORED, None, None
            session.execute(
                update(ConversationRow).where(ConversationRow.conversation_id == job.conversation_id).values(dirty=True)
            )
            return True

    def note_failure(self, job_id: str, code: str, message: str, *, counted: bool) -> JobRecord | None:
        """Note a failure of the current lease: the job waits again, with one more attempt where it counts."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == job_id, JobRow.state == JobState.LEASED))
            if job is None:
                return None
            session.execute(update(LeaseRow).where(LeaseRow.lease_id == job.lease_id).values(ended_reason=code))
            job.state, job.lease_id, job.attempts = JobState.READY, None, job.attempts + counted
            job.failure_code, job.failure_message = code, message
            return _to_job(job, None)

    def give_up(self, job_id: str, code: str, message: str) -> None:
        """End a job as failed; its conversation is assigned anew without it."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == job_id))
            if job is None:
                return
            job.state, job.ended_at = JobState.FAILED, time.time()
            job.failure_code, job.failure_message = code, message
            session.execute(
                update(ConversationRow).where(ConversationRow.conversation_id == job.conversation_id).values(dirty=True)
            )

    def results(self, conversation_id: str) -> list[StoredResult]:
        """Return the results of a conversation's jobs, in order of the jobs."""
        query = (
            select(JobRow.job_id, JobRow.number, ResultRow.payload)
            .join(ResultRow, ResultRow.job_id == JobRow.job_id)
            .where(JobRow.conversation_id == conversation_id)
            .order_by(JobRow.number)
        )
        with self._session() as session:
            return [StoredResult(*found) for found in session.execute(query)]

    def counts(self) -> QueueCounts:
        """Return how much waits."""
        with self._session() as session:
            states: dict[str, int] = dict(
                session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).tuples().all()
            )
            uncovered, first_chunk_at = session.execute(
                select(func.count(), func.min(ChunkRow.accepted_at)).where(~ChunkRow.covered)
            ).one()
            size = session.scalar(select(func.sum(ChunkRow.bytes)).where(ChunkRow.spool_name.is_not(None)))
            waiting = (JobState.READY, JobState.LEASED)
            first_job_at = session.scalar(select(func.min(JobRow.created_at)).where(JobRow.state.in_(waiting)))
            oldest = [moment for moment in (first_chunk_at, first_job_at) if moment is not None]
        return QueueCounts(
            chunks_waiting=uncovered,
            jobs_ready=states.get(JobState.READY, 0),
            jobs_leased=states.get(JobState.LEASED, 0),
            jobs_failed=states.get(JobState.FAILED, 0),
            bytes=size or 0,
            oldest_at=min(oldest, default=None),
        )


def _add_job(session: Session, conversation_id: str, plan: JobPlan, chunks: dict[str, ChunkRow]) -> str:
    job_id = "j-" + secrets.token_hex(12)
    fresh = set(plan.fresh)
    audio_s = sum(chunks[item.chunk_id].duration_s or 0.0 for item in plan.chunks)
    session.add(
        JobRow(
            job_id=job_id,
            conversation_id=conversation_id,
            state=JobState.READY,
            audio_s=audio_s,
            created_at=time.time(),
        )
    )
    session.flush()
    for position, item in enumerate(plan.chunks):
        row = chunks[item.chunk_id]
        row.covered = row.covered or item.chunk_id in fresh
        session.add(
            JobChunkRow(
                job_id=job_id,
                position=position,
                arrival=row.arrival,
                start_s=item.start_s,
                fresh=item.chunk_id in fresh,
            )
        )
    return job_id
