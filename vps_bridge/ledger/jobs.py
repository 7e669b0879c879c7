"""Jobs, their leases and results: each change of state is one transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, func, insert, or_, select, tuple_, update

from vps_bridge.database import Database
from vps_bridge.ledger.conversations import mark_dirty
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
from vps_bridge.ledger.tables import (
    BUSY,
    CHUNK_COLUMNS,
    JOB_COLUMNS,
    LEASE_COLUMNS,
    ChunkRow,
    ConversationRow,
    JobChunkRow,
    JobRow,
    LeaseRow,
    ResultRow,
)
from vps_bridge.rules.assemble import JobPlan
from vps_bridge.rules.lease import STARTED_ANEW

READY_AT_ONCE = 50
LEASE_ID_BYTES = 16  # 128 random bits
ASSUMED_BYTES_PER_S = 2_000  # 16 kbit/s, thin Opus: audio of unknown length is at most about this long

# Statements are made once: making one costs several times what running it does.
_JOB: BindParameter[str] = bindparam("of_job")
_JOB_AND_AGENT = select(*JOB_COLUMNS, LeaseRow.agent_id).outerjoin(LeaseRow, LeaseRow.lease_id == JobRow.lease_id)
_GET = _JOB_AND_AGENT.where(JobRow.job_id == _JOB)
_OF_CONVERSATION = _JOB_AND_AGENT.where(JobRow.conversation_id == bindparam("conversation_id")).order_by(JobRow.number)
_BUSY_JOB = select(*JOB_COLUMNS).where(JobRow.job_id == _JOB, BUSY)
_LEASED_JOB = select(*JOB_COLUMNS).where(JobRow.job_id == _JOB, JobRow.state == JobState.LEASED)
_JOB_OF_LEASE = select(*JOB_COLUMNS).where(JobRow.lease_id == bindparam("lease_id"), JobRow.state == JobState.LEASED)
_LEASES = (
    select(*LEASE_COLUMNS)
    .join(JobRow, JobRow.lease_id == LeaseRow.lease_id)
    .where(JobRow.state == JobState.LEASED)
    .order_by(JobRow.number)
)
_FIND_LEASE = (
    select(*LEASE_COLUMNS)
    .join(JobRow, JobRow.job_id == LeaseRow.job_id)
    .where(LeaseRow.lease_id == bindparam("lease_id"))
)
_PIN = (ConversationRow.embedding_model, ConversationRow.embedding_revision)
_READY = (
    select(*JOB_COLUMNS, *_PIN)
    .join(ConversationRow, ConversationRow.conversation_id == JobRow.conversation_id)
    .where(
        JobRow.state == JobState.READY,
        JobRow.job_id.not_in(bindparam("resting", expanding=True)),
        or_(_PIN[0].is_(None), tuple_(*_PIN).in_(bindparam("embeddings", expanding=True))),
    )
    .order_by(JobRow.number)
)
_READY_ELSEWHERE = _READY.where(JobRow.conversation_id.not_in(bindparam("passed", expanding=True))).limit(READY_AT_ONCE)
_READY_OF_ONE = _READY.where(JobRow.conversation_id == bindparam("conversation_id"), BUSY).limit(bindparam("at_most"))
_WITH_MORE = select(ConversationRow.conversation_id).where(
    ConversationRow.conversation_id.in_(bindparam("among", expanding=True)),
    select(JobRow.number)
    .where(
        JobRow.conversation_id == ConversationRow.conversation_id,
        BUSY,
        JobRow.state == JobState.READY,
        JobRow.job_id.not_in(bindparam("chosen", expanding=True)),
    )
    .exists(),
)
_FIND_CHUNK = (
    select(*CHUNK_COLUMNS)
    .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
    .join(JobRow, JobRow.job_id == JobChunkRow.job_id)
    .where(
        JobRow.job_id == _JOB,
        ChunkRow.conversation_id == JobRow.conversation_id,
        ChunkRow.chunk_id == bindparam("chunk_id"),
    )
)
_CHUNKS = (
    select(JobChunkRow.start_s, JobChunkRow.fresh, *CHUNK_COLUMNS)
    .join(ChunkRow, ChunkRow.arrival == JobChunkRow.arrival)
    .where(JobChunkRow.job_id == _JOB)
    .order_by(JobChunkRow.position)
)
_TO_GRANT = (
    select(JobRow.conversation_id, JobRow.audio_s, *_PIN)
    .join(ConversationRow, ConversationRow.conversation_id == JobRow.conversation_id)
    .where(JobRow.job_id == _JOB, JobRow.state == JobState.READY)
)
_TO_PIN = (
    update(ConversationRow)
    .where(ConversationRow.conversation_id == bindparam("of_conversation"))
    .values(embedding_model=bindparam("model"), embedding_revision=bindparam("revision"))
)
_NEW_LEASE = insert(LeaseRow)
_THIS = update(JobRow).where(JobRow.job_id == _JOB)
_LEASE_IT = _THIS.values(state=JobState.LEASED, lease_id=bindparam("by_lease"))
_STORED = _THIS.values(state=JobState.TURNS_STORED, failure_code=None, failure_message=None)
_TO_STORE = (
    select(JobRow.conversation_id)
    .outerjoin(ResultRow, ResultRow.job_id == JobRow.job_id)
    .where(
        JobRow.job_id == _JOB,
        JobRow.state.in_((JobState.READY, JobState.LEASED, JobState.FAILED)),
        ResultRow.job_id.is_(None),
    )
)
_NEW_RESULT = insert(ResultRow)
_RESULTS = (
    select(JobRow.job_id, JobRow.number, ResultRow.payload)
    .join(ResultRow, ResultRow.job_id == JobRow.job_id)
    .where(JobRow.conversation_id == bindparam("conversation_id"))
    .order_by(JobRow.number)
)
_TO_COVER = select(ChunkRow.chunk_id, ChunkRow.arrival, ChunkRow.duration_s, ChunkRow.bytes).where(
    ChunkRow.conversation_id == bindparam("conversation_id"),
    ChunkRow.chunk_id.in_(bindparam("chunk_ids", expanding=True)),
)
_COVER = update(ChunkRow).where(ChunkRow.arrival.in_(bindparam("arrivals", expanding=True))).values(covered=True)
_NEW_JOB, _NEW_JOB_CHUNK = insert(JobRow), insert(JobChunkRow)


class JobBook:
    """Jobs of all conversations."""

    def __init__(self, database: Database) -> None:
        """Work on the ledger's database."""
        self._database = database

    def add(self, conversation_id: str, plans: tuple[JobPlan, ...]) -> list[str]:
        """Turn plans into jobs that wait for a lease; their fresh chunks are covered from now on."""
        with self._database.writing() as connection:
            return [_add_job(connection, conversation_id, plan) for plan in plans]

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job, or None where it is unknown (or its conversation is deleted)."""
        with self._database.reading() as connection:
            return _first_job(connection.execute(_GET, {"of_job": job_id}).first())

    def of_conversation(self, conversation_id: str) -> list[JobRecord]:
        """Return a conversation's jobs, oldest first."""
        with self._database.reading() as connection:
            return [_to_job(row) for row in connection.execute(_OF_CONVERSATION, {"conversation_id": conversation_id})]

    def all(
        self, *, states: tuple[JobState, ...] = (), conversation_id: str | None = None, limit: int | None = None
    ) -> list[JobRecord]:
        """Return jobs, oldest first; with a limit the latest of them."""
        query = _JOB_AND_AGENT.order_by(JobRow.number.desc()).limit(limit)
        if states:
            query = query.where(JobRow.state.in_(states))
        if conversation_id is not None:
            query = query.where(JobRow.conversation_id == conversation_id)
        with self._database.reading() as connection:
            return [_to_job(row) for row in connection.execute(query)][::-1]

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
            select(last_agent.scalar_subquery(), ~lost.exists(), *JOB_COLUMNS)
            .where(JobRow.state == JobState.FAILED)
            .order_by(JobRow.number.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [FailedJob(_to_job(job), agent, has_audio) for agent, has_audio, *job in rows][::-1]

    def by_state(self) -> dict[JobState, int]:
        """Return how many jobs there are in each state that has any."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        with self._database.reading() as connection:
            return {JobState(state): count for state, count in connection.execute(query)}

    def ready(
        self, embeddings: set[tuple[str, str]], *, leased: set[str], resting: set[str], limit: int
    ) -> list[tuple[JobRecord, tuple[str, str] | None]]:
        """Return as many of the jobs that wait for a lease as `limit` fair grants need, with their conversations' pins.

        These are the oldest job of each of the first `limit` conversations that have none in `leased`; where there are
        fewer such, the oldest `limit` of them and of the leased conversations. So the cost does not grow with what
        waits, and neither a long upload nor conversations pinned to a model that is in none of `embeddings` hide the
        rest. Jobs in `resting` are passed over.
        """
        fitting = {"embeddings": list(embeddings), "resting": list(resting)}
        heads: dict[str, _Ready] = {}
        with self._database.reading() as connection:
            while len(heads) < limit:
                rows = connection.execute(_READY_ELSEWHERE, {**fitting, "passed": [*leased, *heads]}).all()
                for found in map(_to_ready, rows):
                    heads.setdefault(found[0].conversation_id, found)
                if len(rows) < READY_AT_ONCE:
                    break
            chosen = {job.job_id: (job, pin) for job, pin in list(heads.values())[:limit]}
            if len(chosen) < limit:
                others = {"among": [*leased, *heads], "chosen": list(chosen)}
                for conversation_id in connection.scalars(_WITH_MORE, others).all():
                    of_one = {**fitting, "conversation_id": conversation_id, "at_most": limit}
                    rows = connection.execute(_READY_OF_ONE, of_one).all()
                    chosen |= {job.job_id: (job, pin) for job, pin in map(_to_ready, rows)}
        return sorted(chosen.values(), key=lambda found: found[0].number)

    def find_chunk(self, job_id: str, chunk_id: str) -> ChunkRecord | None:
        """Return a chunk of a job by its id."""
        with self._database.reading() as connection:
            row = connection.execute(_FIND_CHUNK, {"of_job": job_id, "chunk_id": chunk_id}).first()
            return ChunkRecord(*row) if row else None

    def chunks(self, job_id: str) -> list[JobChunk]:
        """Return a job's chunks in order."""
        with self._database.reading() as connection:
            rows = connection.execute(_CHUNKS, {"of_job": job_id})
            return [JobChunk(ChunkRecord(*chunk), start_s, fresh) for start_s, fresh, *chunk in rows]

    def grant(self, job_id: str, agent_id: str, instance_id: str, embedding: tuple[str, str]) -> LeaseRecord | None:
        """Lease a waiting job to an agent and pin its conversation to the agent's embedding.

        Returns None where the job does not wait any more or its conversation is pinned to another model.
        """
        lease_id = secrets.token_hex(LEASE_ID_BYTES)
        holder = {"lease_id": lease_id, "job_id": job_id, "agent_id": agent_id, "instance_id": instance_id}
        with self._database.writing() as connection:
            row = connection.execute(_TO_GRANT, {"of_job": job_id}).first()
            if row is None:
                return None
            conversation_id, audio_s, *pinned = row
            if tuple(pinned) not in ((None, None), embedding):
                return None
            model, revision = embedding
            connection.execute(_TO_PIN, {"of_conversation": conversation_id, "model": model, "revision": revision})
            connection.execute(_NEW_LEASE, {**holder, "granted_at": time.time()})
            connection.execute(_LEASE_IT, {"of_job": job_id, "by_lease": lease_id})
        return LeaseRecord(lease_id, job_id, conversation_id, agent_id, instance_id, audio_s, is_current=True)

    def leases(self) -> list[LeaseRecord]:
        """Return the leases that are current."""
        with self._database.reading() as connection:
            return [LeaseRecord(*row) for row in connection.execute(_LEASES)]

    def find_lease(self, lease_id: str) -> LeaseRecord | None:
        """Return a lease, current or long over."""
        with self._database.reading() as connection:
            row = connection.execute(_FIND_LEASE, {"lease_id": lease_id}).first()
            return LeaseRecord(*row) if row else None

    def revoke(self, lease_id: str, reason: str, *, died: bool, may_return: bool) -> JobRecord | None:
        """End a current lease; its job waits again.

        `died`: the agent's process died holding it. `may_return`: the agent gets it back if it turns up with the job.
        """
        with self._database.writing() as connection:
            job = _first_job(connection.execute(_JOB_OF_LEASE, {"lease_id": lease_id}).first())
            if job is None:
                return None
            ended = update(LeaseRow).where(LeaseRow.lease_id == lease_id)
            connection.execute(ended.values(ended_reason=reason, may_return=may_return))
            return _change(connection, job, state=JobState.READY, lease_id=None, deaths=job.deaths + died)

    def give_back(self, lease: LeaseRecord, instance_id: str) -> bool:
        """Return a lost lease to its agent, which turned up again still holding the job (`instance_id` does).

        If that very process was taken for dead, because another one spoke under its name, the death is taken back.
        """
        with self._database.writing() as connection:
            job = _first_job(connection.execute(_BUSY_JOB, {"of_job": lease.job_id}).first())
            row = connection.execute(_FIND_LEASE, {"lease_id": lease.lease_id}).first()
            lost = LeaseRecord(*row) if row else None
            if job is None or job.state is not JobState.READY or lost is None or not lost.may_return:
                return False
            was_no_death = lost.instance_id == instance_id and lost.ended_reason == STARTED_ANEW
            this = update(LeaseRow).where(LeaseRow.lease_id == lease.lease_id)
            connection.execute(this.values(instance_id=instance_id, ended_reason=None, may_return=False))
            deaths = job.deaths - was_no_death
            _change(connection, job, state=JobState.LEASED, lease_id=lease.lease_id, deaths=deaths)
            return True

    def store_result(self, lease: LeaseRecord, payload: bytes) -> bool:
        """Keep a result and mark its conversation, in one transaction; False where one is kept already."""
        its = {"job_id": lease.job_id, "lease_id": lease.lease_id, "agent_id": lease.agent_id}
        with self._database.writing() as connection:
            conversation_id = connection.scalar(_TO_STORE, {"of_job": lease.job_id})
            if conversation_id is None:
                return False
            connection.execute(_NEW_RESULT, {**its, "payload": payload, "stored_at": time.time()})
            connection.execute(_STORED, {"of_job": lease.job_id})
            mark_dirty(connection, conversation_id)
            return True

    def note_failure(self, job_id: str, code: str, message: str, *, counted: bool) -> JobRecord | None:
        """Note a failure of the current lease: the job waits again, with one more attempt where it counts."""
        with self._database.writing() as connection:
            job = _first_job(connection.execute(_LEASED_JOB, {"of_job": job_id}).first())
            if job is None:
                return None
            connection.execute(update(LeaseRow).where(LeaseRow.lease_id == job.lease_id).values(ended_reason=code))
            again = {"state": JobState.READY, "lease_id": None, "attempts": job.attempts + counted}
            return _change(connection, job, **again, failure_code=code, failure_message=message)

    def give_up(self, job_id: str, code: str, message: str) -> bool:
        """End a job as failed; its conversation is assigned anew without it. False where it had ended already."""
        with self._database.writing() as connection:
            job = _first_job(connection.execute(_BUSY_JOB, {"of_job": job_id}).first())
            if job is None:
                return False
            ended = {"state": JobState.FAILED, "ended_at": time.time()}
            _change(connection, job, **ended, failure_code=code, failure_message=message)
            mark_dirty(connection, job.conversation_id)
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
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    def results(self, conversation_id: str) -> list[StoredResult]:
        """Return the results of a conversation's jobs, in order of the jobs."""
        with self._database.reading() as connection:
            rows = connection.execute(_RESULTS, {"conversation_id": conversation_id})
            return [StoredResult(*row) for row in rows]

    def counts(self) -> QueueCounts:
        """Return how much waits."""
        with self._database.reading() as connection:
            told = (JobState.READY, JobState.LEASED, JobState.FAILED)
            by_state = select(JobRow.state, func.count()).where(JobRow.state.in_(told)).group_by(JobRow.state)
            states: dict[str, int] = dict(connection.execute(by_state).tuples().all())
            uncovered, first_chunk_at = connection.execute(
                select(func.count(), func.min(ChunkRow.accepted_at)).where(~ChunkRow.covered)
            ).one()
            size = connection.scalar(select(func.sum(ChunkRow.bytes)).where(ChunkRow.spool_name.is_not(None)))
            first_job_at = connection.scalar(select(func.min(JobRow.created_at)).where(BUSY))
            oldest = [moment for moment in (first_chunk_at, first_job_at) if moment is not None]
        return QueueCounts(
            chunks_waiting=uncovered,
            jobs_ready=states.get(JobState.READY, 0),
            jobs_leased=states.get(JobState.LEASED, 0),
            jobs_failed=states.get(JobState.FAILED, 0),
            bytes=size or 0,
            oldest_at=min(oldest, default=None),
        )


_Ready = tuple[JobRecord, tuple[str, str] | None]


def _to_job(row: Sequence[Any]) -> JobRecord:
    number, job_id, conversation_id, state, *facts = row
    return JobRecord(number, job_id, conversation_id, JobState(state), *facts)


def _first_job(row: Sequence[Any] | None) -> JobRecord | None:
    return None if row is None else _to_job(row)


def _to_ready(row: Sequence[Any]) -> _Ready:
    *job, model, revision = row
    return _to_job(job), None if model is None or revision is None else (model, revision)


def _change(connection: Connection, job: JobRecord, **changes: Any) -> JobRecord:  # noqa: ANN401 - fields of JobRecord
    connection.execute(update(JobRow).where(JobRow.job_id == job.job_id).values(**changes))
    return replace(job, **changes)


def _add_job(connection: Connection, conversation_id: str, plan: JobPlan) -> str:
    job_id = "j-" + secrets.token_hex(12)
    wanted = {"conversation_id": conversation_id, "chunk_ids": [item.chunk_id for item in plan.chunks]}
    chunks = {row.chunk_id: row for row in connection.execute(_TO_COVER, wanted)}
    audio_s = sum(row.duration_s or row.bytes / ASSUMED_BYTES_PER_S for row in chunks.values())
    new = {"job_id": job_id, "conversation_id": conversation_id, "state": JobState.READY}
    connection.execute(_NEW_JOB, {**new, "audio_s": audio_s, "created_at": time.time()})
    fresh = set(plan.fresh)
    places = [
        {
            "job_id": job_id,
            "position": position,
            "arrival": chunks[item.chunk_id].arrival,
            "start_s": item.start_s,
            "fresh": item.chunk_id in fresh,
        }
        for position, item in enumerate(plan.chunks)
    ]
    connection.execute(_NEW_JOB_CHUNK, places)
    connection.execute(_COVER, {"arrivals": [place["arrival"] for place in places if place["fresh"]]})
    return job_id
