"""Jobs, their leases and results: each change of state is one transaction."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Row, func, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from vps_bridge.assemble import JobPlan
from vps_bridge.lease import STARTED_ANEW
from vps_bridge.ledger.chunks import COLUMNS as CHUNK_COLUMNS
from vps_bridge.ledger.records import (
    ChunkRecord,
    FailedJob,
    JobChunk,
    JobRecord,
    JobState,
    LeaseRecord,
    QueueCounts,
    StoredResult,
)
from vps_bridge.ledger.tables import BUSY, ChunkRow, ConversationRow, JobChunkRow, JobRow, LeaseRow, ResultRow

READY_AT_ONCE = 50
LEASE_ID_BYTES = 16  # 128 random bits
ASSUMED_BYTES_PER_S = 2_000  # 16 kbit/s, thin Opus: audio of unknown length is at most about this long


def to_lease(lease: LeaseRow, job: JobRow) -> LeaseRecord:
    """Return the record of a lease."""
    return LeaseRecord(
        lease_id=lease.lease_id,
        job_id=lease.job_id,
        conversation_id=job.conversation_id,
        agent_id=lease.agent_id,
        instance_id=lease.instance_id,
        audio_s=job.audio_s,
        ended_reason=lease.ended_reason,
        may_return=lease.may_return,
        is_current=job.state == JobState.LEASED and job.lease_id == lease.lease_id,
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
            return [_add_job(session, conversation_id, plan) for plan in plans]

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job, or None where it is unknown (or its conversation is deleted)."""
        with self._session() as session:
            found = session.execute(_JOB_AND_AGENT.where(JobRow.job_id == job_id)).first()
            return _to_job(*found) if found else None

    def all(
        self, *, states: tuple[JobState, ...] = (), conversation_id: str | None = None, limit: int | None = None
    ) -> list[JobRecord]:
        """Return jobs, oldest first; with a limit the latest of them."""
        query = _JOB_AND_AGENT.order_by(JobRow.number.desc()).limit(limit)
        if states:
            query = query.where(JobRow.state.in_(states))
        if conversation_id is not None:
            query = query.where(JobRow.conversation_id == conversation_id)
        with self._session() as session:
            return [_to_job(job, agent_id) for job, agent_id in session.execute(query)][::-1]

    def failed(self, *, limit: int | None = None) -> list[FailedJob]:
        """Return failed jobs, oldest first; with a limit the latest of them."""
        of_it = LeaseRow.job_id == JobRow.job_id
        last_agent = select(LeaseRow.agent_id).where(of_it).order_by(LeaseRow.granted_at.desc()).limit(1)
        lost = (
            select(ChunkRow.arrival)
            .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
            .where(JobChunkRow.job_id == JobRow.job_id, ChunkRow.spool_name.is_(None))
        )
        query = (
            select(JobRow, last_agent.scalar_subquery(), ~lost.exists())
            .where(JobRow.state == JobState.FAILED)
            .order_by(JobRow.number.desc())
            .limit(limit)
        )
        with self._session() as session:
            found = session.execute(query)
            return [FailedJob(_to_job(job, None), agent, has_audio) for job, agent, has_audio in found][::-1]

    def by_state(self) -> dict[JobState, int]:
        """Return how many jobs there are in each state that has any."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        with self._session() as session:
            return {JobState(state): count for state, count in session.execute(query)}

    def ready(
        self, embeddings: set[tuple[str, str]], *, leased: set[str], resting: set[str], limit: int
    ) -> list[tuple[JobRecord, tuple[str, str] | None]]:
        """Return as many of the jobs that wait for a lease as `limit` fair grants need, with their conversations' pins.

        These are the oldest job of each of the first `limit` conversations that have none in `leased`; where there are
        fewer such, the oldest `limit` of them and of the leased conversations. So the cost does not grow with what
        waits, and neither a long upload nor conversations pinned to a model that is in none of `embeddings` hide the
        rest. Jobs in `resting` are passed over.
        """
        model, revision = ConversationRow.embedding_model, ConversationRow.embedding_revision
        fits = [model.is_(None), *((model == wanted) & (revision == exact) for wanted, exact in embeddings)]
        query = (
            select(JobRow, model, revision)
            .join(ConversationRow, ConversationRow.conversation_id == JobRow.conversation_id)
            .where(JobRow.state == JobState.READY, JobRow.job_id.not_in(resting), or_(*fits))
            .order_by(JobRow.number)
        )
        heads: dict[str, Row[JobRow, str | None, str | None]] = {}
        with self._session() as session:
            while len(heads) < limit:
                others = query.where(JobRow.conversation_id.not_in({*leased, *heads})).limit(READY_AT_ONCE)
                rows = session.execute(others).all()
                for row in rows:
                    heads.setdefault(row[0].conversation_id, row)
                if len(rows) < READY_AT_ONCE:
                    break
            found = list(heads.values())[:limit]
            if len(found) < limit:
                for conversation_id in {*leased, *heads}:
                    of_one = query.where(JobRow.conversation_id == conversation_id, BUSY).limit(limit)
                    found += [row for row in session.execute(of_one) if row not in found]
            return [
                (_to_job(job, None), None if pin is None or exact is None else (pin, exact))
                for job, pin, exact in sorted(found, key=lambda row: row[0].number)
            ]

    def find_chunk(self, job_id: str, chunk_id: str) -> ChunkRecord | None:
        """Return a chunk of a job by its id."""
        query = (
            select(*CHUNK_COLUMNS)
            .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
            .join(JobRow, JobRow.job_id == JobChunkRow.job_id)
            .where(
                JobRow.job_id == job_id,
                ChunkRow.conversation_id == JobRow.conversation_id,
                ChunkRow.chunk_id == chunk_id,
            )
        )
        with self._session() as session:
            row = session.execute(query).first()
            return ChunkRecord(*row) if row else None

    def chunks(self, job_id: str) -> list[JobChunk]:
        """Return a job's chunks in order."""
        query = (
            select(JobChunkRow.start_s, JobChunkRow.fresh, *CHUNK_COLUMNS)
            .join(ChunkRow, ChunkRow.arrival == JobChunkRow.arrival)
            .where(JobChunkRow.job_id == job_id)
            .order_by(JobChunkRow.position)
        )
        with self._session() as session:
            return [JobChunk(ChunkRecord(*chunk), start_s, fresh) for start_s, fresh, *chunk in session.execute(query)]

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

    def revoke(self, lease_id: str, reason: str, *, died: bool, may_return: bool) -> JobRecord | None:
        """End a current lease; its job waits again.

        `died`: the agent's process died holding it. `may_return`: the agent gets it back if it turns up with the job.
        """
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.lease_id == lease_id, JobRow.state == JobState.LEASED))
            if job is None:
                return None
            job.state, job.lease_id, job.deaths = JobState.READY, None, job.deaths + died
            ended = update(LeaseRow).where(LeaseRow.lease_id == lease_id)
            session.execute(ended.values(ended_reason=reason, may_return=may_return))
            return _to_job(job, None)

    def give_back(self, lease: LeaseRecord, instance_id: str) -> bool:
        """Return a lost lease to its agent, which turned up again still holding the job (`instance_id` does).

        If that very process was taken for dead, because another one spoke under its name, the death is taken back.
        """
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == lease.job_id, JobRow.state == JobState.READY))
            row = session.get(LeaseRow, lease.lease_id)
            if job is None or row is None or not row.may_return:
                return False
            job.state, job.lease_id = JobState.LEASED, lease.lease_id
            job.deaths -= row.instance_id == instance_id and row.ended_reason == STARTED_ANEW
            row.instance_id, row.ended_reason, row.may_return = instance_id, None, False
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
            _mark_dirty(session, job.conversation_id)
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

    def give_up(self, job_id: str, code: str, message: str) -> bool:
        """End a job as failed; its conversation is assigned anew without it. False where it had ended already."""
        with self._session.begin() as session:
            job = session.scalar(select(JobRow).where(JobRow.job_id == job_id, BUSY))
            if job is None:
                return False
            job.state, job.ended_at = JobState.FAILED, time.time()
            job.failure_code, job.failure_message = code, message
            _mark_dirty(session, job.conversation_id)
            return True

    def without_audio(self) -> list[str]:
        """Return the jobs that still wait for an agent although audio of theirs is unlinked."""
        query = (
            select(JobRow.job_id)
            .join(JobChunkRow, JobChunkRow.job_id == JobRow.job_id)
            .join(ChunkRow, ChunkRow.arrival == JobChunkRow.arrival)
            .where(JobRow.state == JobState.READY, ChunkRow.spool_name.is_(None))
            .distinct()
        )
        with self._session() as session:
            return list(session.scalars(query))

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
            told = (JobState.READY, JobState.LEASED, JobState.FAILED)
            by_state = select(JobRow.state, func.count()).where(JobRow.state.in_(told)).group_by(JobRow.state)
            states: dict[str, int] = dict(session.execute(by_state).tuples().all())
            uncovered, first_chunk_at = session.execute(
                select(func.count(), func.min(ChunkRow.accepted_at)).where(~ChunkRow.covered)
            ).one()
            size = session.scalar(select(func.sum(ChunkRow.bytes)).where(ChunkRow.spool_name.is_not(None)))
            first_job_at = session.scalar(select(func.min(JobRow.created_at)).where(BUSY))
            oldest = [moment for moment in (first_chunk_at, first_job_at) if moment is not None]
        return QueueCounts(
            chunks_waiting=uncovered,
            jobs_ready=states.get(JobState.READY, 0),
            jobs_leased=states.get(JobState.LEASED, 0),
            jobs_failed=states.get(JobState.FAILED, 0),
            bytes=size or 0,
            oldest_at=min(oldest, default=None),
        )


def _mark_dirty(session: Session, conversation_id: str) -> None:
    row = session.get(ConversationRow, conversation_id)
    if row is not None:
        row.dirty += 1


def _length_s(chunk: ChunkRow) -> float:
    return chunk.duration_s or chunk.bytes / ASSUMED_BYTES_PER_S


def _add_job(session: Session, conversation_id: str, plan: JobPlan) -> str:
    job_id = "j-" + secrets.token_hex(12)
    named = [item.chunk_id for item in plan.chunks]
    of_it = select(ChunkRow).where(ChunkRow.conversation_id == conversation_id, ChunkRow.chunk_id.in_(named))
    chunks = {row.chunk_id: row for row in session.scalars(of_it)}
    fresh = set(plan.fresh)
    audio_s = sum(_length_s(chunks[item.chunk_id]) for item in plan.chunks)
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
