"""Jobs and their results: each change of state is one transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Select, bindparam, case, exists, func, insert, select, update

from vps_bridge.ledger.columns import CHUNK_COLUMNS, JOB_COLUMNS
from vps_bridge.ledger.conversation_changes import keep_model, let_model_go, mark_changed, mark_dirty
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.decoded_lengths import note_decoded_lengths
from vps_bridge.ledger.job_events import BRIDGE, OF_JOB, allows, events_of, move, note_event
from vps_bridge.ledger.job_states import JobEvent, JobState, state_after
from vps_bridge.ledger.packing import reading_unpacked
from vps_bridge.ledger.records import (
    ChunkRecord,
    FailedJob,
    JobChunk,
    JobEventRecord,
    JobRecord,
    KeptResult,
    LeaseRecord,
    QueueCounts,
    StoredResult,
)
from vps_bridge.ledger.tables import (
    IS_UNFINISHED,
    ChunkRow,
    ConversationRow,
    JobChunkRow,
    JobRow,
    LeaseRow,
    RefusedChunkRow,
    ResultRow,
)
from vps_bridge.ledger.waiting_jobs import WaitingJob, find_waiting
from vps_bridge.rules.assemble import JobPlan, PlannedChunk
from vps_bridge.rules.lease import LeaseEnd
from vps_bridge.rules.queue_share import QueueUse

MAX_COUNTED = 10_000
"""So many jobs of one state are counted for whoever asks often: those that are done would take longer each day."""
THIN_BYTES_PER_S = 2_000  # 16 kbit/s, thin Opus: audio of unknown length is at most about so long, as is its lease

# Statements are made once: making one costs several times what running it does.
_OF_LEASE = LeaseRow.lease_id == JobRow.lease_id
_JOB_AND_AGENT: Select[Any] = select(*JOB_COLUMNS, LeaseRow.agent_id).outerjoin(LeaseRow, _OF_LEASE)
_GET = _JOB_AND_AGENT.where(JobRow.job_id == OF_JOB)
_OF_CONVERSATION = _JOB_AND_AGENT.where(JobRow.conversation_id == bindparam("conversation_id")).order_by(JobRow.number)
_OF_SEVERAL = _JOB_AND_AGENT.where(JobRow.conversation_id.in_(bindparam("names", expanding=True))).order_by(
    JobRow.number
)
# Whoever changes a job locks its row first, and only then changes its conversation's: in one order nobody waits for
# somebody who waits for him. SQLite has one writer at a time, and locks no rows.
_UNFINISHED_JOB = select(*JOB_COLUMNS).where(JobRow.job_id == OF_JOB, IS_UNFINISHED).with_for_update()
_LEASED_JOB = _JOB_AND_AGENT.where(JobRow.job_id == OF_JOB, allows(JobEvent.ATTEMPT_FAILED)).with_for_update(of=JobRow)
_FIND_CHUNK = (
    select(*CHUNK_COLUMNS)
    .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
    .join(JobRow, JobRow.job_id == JobChunkRow.job_id)
    .where(
        JobRow.job_id == OF_JOB,
        ChunkRow.conversation_id == JobRow.conversation_id,
        ChunkRow.chunk_id == bindparam("chunk_id"),
    )
)
_CHUNKS = (
    select(JobChunkRow.start_s, JobChunkRow.fresh, *CHUNK_COLUMNS)
    .join(ChunkRow, ChunkRow.arrival == JobChunkRow.arrival)
    .where(JobChunkRow.job_id == OF_JOB)
    .order_by(JobChunkRow.position)
)
_STORE = (
    move(JobEvent.STORED)
    .where(~exists().where(ResultRow.job_id == JobRow.job_id))
    .values(failure_code=None, failure_message=None)
    .returning(JobRow.conversation_id)
)
_NEW_RESULT = insert(ResultRow)
_FAIL = move(JobEvent.ATTEMPT_FAILED).values(
    lease_id=None, attempts=bindparam("all_attempts"), failure_code=bindparam("code"), failure_message=bindparam("text")
)
_END_LEASE = update(LeaseRow).where(LeaseRow.lease_id == bindparam("of_lease")).values(lease_end=bindparam("why"))
_GIVE_UP = move(JobEvent.GIVEN_UP).values(
    ended_at=bindparam("now"), failure_code=bindparam("code"), failure_message=bindparam("text")
)
_RESULTS = (
    select(JobRow.job_id, JobRow.number, ResultRow.payload)
    .join(ResultRow, ResultRow.job_id == JobRow.job_id)
    .where(JobRow.conversation_id == bindparam("conversation_id"))
    .order_by(JobRow.number)
)
_TO_COVER = select(
    ChunkRow.chunk_id,
    ChunkRow.arrival,
    ChunkRow.duration_s,
    ChunkRow.duration_estimated,
    ChunkRow.bytes,
    ChunkRow.covered,
).where(
    ChunkRow.conversation_id == bindparam("conversation_id"),
    ChunkRow.chunk_id.in_(bindparam("chunk_ids", expanding=True)),
)
_COVER = update(ChunkRow).where(ChunkRow.arrival.in_(bindparam("arrivals", expanding=True))).values(covered=True)
_NEW_JOB, _NEW_JOB_CHUNK = insert(JobRow), insert(JobChunkRow)
_COUNTED = (JobState.READY, JobState.LEASED, JobState.FAILED)
_STATES = select(*(select(func.count()).where(JobRow.state == state).scalar_subquery() for state in _COUNTED))
_UNCOVERED = select(func.count(), func.min(ChunkRow.accepted_at)).where(~ChunkRow.covered)
_FIRST_JOB_AT = select(func.min(JobRow.created_at)).where(IS_UNFINISHED)
_KEPT_BYTES = select(func.sum(ChunkRow.bytes)).where(ChunkRow.spool_name.is_not(None))
_CONVERSATIONS_FAILED = select(func.count()).where(ConversationRow.set_aside.is_not(None))
_REFUSED = select(func.count()).select_from(RefusedChunkRow)
_USE_OF_ONE = select(
    func.count(),
    func.coalesce(func.sum(case((ChunkRow.spool_name.is_not(None), ChunkRow.bytes), else_=0)), 0),
    select(func.count()).where(JobRow.conversation_id == bindparam("conversation_id"), IS_UNFINISHED).scalar_subquery(),
).where(ChunkRow.conversation_id == bindparam("conversation_id"))


class JobBook:
    """Jobs of all conversations."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def add(self, conversation_id: str, plans: tuple[JobPlan, ...]) -> list[str]:
        """Turn plans into jobs that wait for a lease; their fresh chunks are covered from now on."""
        with self._database.writing(conversation_id) as connection:
            made = [_add_job(connection, conversation_id, plan) for plan in plans]
        return [job_id for job_id in made if job_id is not None]

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job, or None where it is unknown (or its conversation is deleted)."""
        with self._database.reading() as connection:
            row = connection.execute(_GET, {"of_job": job_id}).first()
            return JobRecord(*row) if row else None

    def of_conversation(self, conversation_id: str) -> list[JobRecord]:
        """Return a conversation's jobs, oldest first."""
        with reading_unpacked(self._database, conversation_id) as connection:
            return jobs_of(connection, conversation_id)

    def of_unpacked(self, names: Sequence[str]) -> dict[str, list[JobRecord]]:
        """Return the jobs of each of these conversations, none of which is packed, oldest first."""
        found: dict[str, list[JobRecord]] = {name: [] for name in names}
        with self._database.reading() as connection:
            for row in connection.execute(_OF_SEVERAL, {"names": list(names)}):
                job = JobRecord(*row)
                found[job.conversation_id].append(job)
        return found

    def all(
        self, *, states: tuple[JobState, ...] = (), conversation_id: str | None = None, limit: int | None = None
    ) -> list[JobRecord]:
        """Return jobs, oldest first; with a limit the latest of them."""
        query = _JOB_AND_AGENT.order_by(JobRow.number.desc()).limit(limit)
        if states:
            query = query.where(JobRow.state.in_(states))
        if conversation_id is not None:
            query = query.where(JobRow.conversation_id == conversation_id)
        with reading_unpacked(self._database, conversation_id or "") as connection:
            return [JobRecord(*row) for row in connection.execute(query)][::-1]

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
            select(
                last_agent.scalar_subquery().label("last_agent_id"), (~lost.exists()).label("has_audio"), *JOB_COLUMNS
            )
            .where(JobRow.state == JobState.FAILED)
            .order_by(JobRow.number.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = [row._asdict() for row in connection.execute(query)]
        return [
            FailedJob(last_agent_id=row.pop("last_agent_id"), has_audio=row.pop("has_audio"), job=JobRecord(**row))
            for row in reversed(rows)
        ]

    def by_state(self, *, at_most: int | None = None) -> dict[JobState, int]:
        """Return how many jobs there are in each state that has any; more than `at_most` of one are not counted."""
        first = select(JobRow.number).order_by(JobRow.number).limit(at_most)
        each = (first.where(JobRow.state == state).subquery() for state in JobState)
        counts = [select(func.count()).select_from(of_state).scalar_subquery() for of_state in each]
        with self._database.reading() as connection:
            row = connection.execute(select(*counts)).one()
        return {state: count for state, count in zip(JobState, row, strict=True) if count}

    def ready(
        self,
        embeddings: set[tuple[str, str]],
        *,
        leased: set[str],
        resting: set[str],
        limit: int,
        agent_ids: Collection[str] = (),
        newest_first: bool = False,
    ) -> list[WaitingJob]:
        """Return as many of the jobs that wait for a lease as `limit` fair grants need, in the order of the grants.

        These are the oldest job of each of the first `limit` conversations that have none in `leased`; where there are
        fewer such, the oldest `limit` of them and of the leased conversations. So the cost does not grow with what
        waits, and neither a long upload nor conversations pinned to a model that is in none of `embeddings` hide the
        rest. Jobs in `resting` are passed over, and tests of agents that are not among `agent_ids`. With
        `newest_first`, where more wait than `limit`, every other one is of the conversation with the newest job.
        """
        fitting = {"embeddings": list(embeddings), "resting": list(resting), "agent_ids": list(agent_ids)}
        return find_waiting(self._database, fitting, leased=leased, limit=limit, newest_first=newest_first)

    def find_chunk(self, job_id: str, chunk_id: str) -> ChunkRecord | None:
        """Return a chunk of a job by its id."""
        with self._database.reading() as connection:
            row = connection.execute(_FIND_CHUNK, {"of_job": job_id, "chunk_id": chunk_id}).first()
            return ChunkRecord(*row) if row else None

    def chunks(self, job_id: str) -> list[JobChunk]:
        """Return a job's chunks in order."""
        with self._database.reading() as connection:
            rows = connection.execute(_CHUNKS, {"of_job": job_id})
            return [JobChunk(start_s=row[0], fresh=row[1], chunk=ChunkRecord(*row[2:])) for row in rows]

    def events(self, job_id: str) -> list[JobEventRecord]:
        """Return what happened to a job since it was made, in order."""
        with self._database.reading() as connection:
            return events_of(connection, job_id)

    def store_result(
        self,
        lease: LeaseRecord,
        payload: bytes,
        decoded_s: Mapping[str, float] = MappingProxyType({}),
        undecoded: Sequence[str] = (),
        late_model: tuple[str, str] | None = None,
    ) -> KeptResult | None:
        """Keep a result and mark its conversation, in one transaction; None where one is kept already.

        `decoded_s`: the length of each chunk, by its id, as the agent decoded it. It replaces what was thought before.
        `undecoded`: the chunks that the agent could not decode. Each becomes a job of its own. `late_model`: with what
        it was found, where its lease had ended and another agent may have been given the conversation.
        """
        its = {"job_id": lease.job_id, "lease_id": lease.lease_id, "agent_id": lease.agent_id}
        with self._database.writing(lease.conversation_id) as connection:
            conversation_id = connection.scalar(_STORE, {"of_job": lease.job_id})
            if conversation_id is None:
                return None
            connection.execute(_NEW_RESULT, {**its, "payload": payload, "stored_at": time.time()})
            note_decoded_lengths(connection, lease.job_id, decoded_s)
            note_event(connection, JobEvent.STORED, lease.job_id, by=lease.agent_id, lease_id=lease.lease_id)
            mark_changed(connection, conversation_id)
            if late_model is not None:
                keep_model(connection, conversation_id, late_model)
            alone = (JobPlan((PlannedChunk(chunk_id, None),), fresh=()) for chunk_id in undecoded)
            made = [_add_job(connection, conversation_id, plan) for plan in alone]
            return KeptResult(tuple(job_id for job_id in made if job_id is not None))

    def note_failure(self, job_id: str, code: str, message: str, *, counted: bool) -> JobRecord | None:
        """Note a failure of the current lease: the job waits again, with one more attempt where it counts."""
        with self._database.writing() as connection:
            row = connection.execute(_LEASED_JOB, {"of_job": job_id}).first()
            if row is None:
                return None
            job = JobRecord(*row)
            attempts = job.attempts + counted
            connection.execute(_FAIL, {"of_job": job_id, "all_attempts": attempts, "code": code, "text": message})
            connection.execute(_END_LEASE, {"of_lease": job.lease_id, "why": LeaseEnd.ATTEMPT_FAILED})
            about = {"lease_id": job.lease_id, "detail": code, "message": message}
            note_event(connection, JobEvent.ATTEMPT_FAILED, job_id, by=job.agent_id or BRIDGE, **about)
            let_model_go(connection, job.conversation_id)
            job = replace(job, state=state_after(JobEvent.ATTEMPT_FAILED), lease_id=None, agent_id=None)
            return replace(job, attempts=attempts, failure_code=code, failure_message=message)

    def give_up(self, job_id: str, code: str, message: str) -> bool:
        """End a job as failed; its conversation is assigned anew without it. False where it had ended already."""
        with self._database.writing() as connection:
            row = connection.execute(_UNFINISHED_JOB, {"of_job": job_id}).first()
            if row is None:
                return False
            connection.execute(_GIVE_UP, {"of_job": job_id, "now": time.time(), "code": code, "text": message})
            about = {"lease_id": row.lease_id, "detail": code, "message": message}
            note_event(connection, JobEvent.GIVEN_UP, job_id, by=BRIDGE, **about)
            let_model_go(connection, row.conversation_id)
            mark_dirty(connection, row.conversation_id)
            return True

    def without_audio(self) -> list[str]:
        """Return the jobs that still wait for an agent although audio of theirs is unlinked."""
        lost = (  # of this job: a join might read all chunks
            select(ChunkRow.arrival)
            .join(JobChunkRow, JobChunkRow.arrival == ChunkRow.arrival)
            .where(JobChunkRow.job_id == JobRow.job_id, ChunkRow.spool_name.is_(None))
            .limit(1)
        )
        query = select(JobRow.job_id).where(JobRow.state == JobState.READY, lost.scalar_subquery().is_not(None))
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    def results(self, conversation_id: str) -> list[StoredResult]:
        """Return the results of a conversation's jobs, in order of the jobs."""
        with reading_unpacked(self._database, conversation_id) as connection:
            return results_of(connection, conversation_id)

    def replace_results(self, payloads: dict[str, bytes]) -> None:
        """Keep other bytes for the results of these jobs."""
        with self._database.writing() as connection:
            for job_id, payload in payloads.items():
                connection.execute(update(ResultRow).where(ResultRow.job_id == job_id).values(payload=payload))

    def counts(self) -> QueueCounts:
        """Return how much waits."""
        with self._database.reading() as connection:
            ready, leased, failed_jobs = connection.execute(_STATES).one()
            uncovered, first_chunk_at = connection.execute(_UNCOVERED).one()
            failed, size = connection.scalar(_CONVERSATIONS_FAILED), connection.scalar(_KEPT_BYTES)
            first_job_at, refused = connection.scalar(_FIRST_JOB_AT), connection.scalar(_REFUSED)
            oldest = [moment for moment in (first_chunk_at, first_job_at) if moment is not None]
        return QueueCounts(
            chunks_waiting=uncovered,
            jobs_ready=ready,
            jobs_leased=leased,
            jobs_failed=failed_jobs,
            conversations_failed=failed or 0,
            bytes=int(size or 0),
            oldest_at=min(oldest, default=None),
            chunks_refused=refused or 0,
        )

    def use_of(self, conversation_id: str) -> QueueUse | None:
        """Return how much of the queue a conversation uses; None where no audio of it was accepted."""
        with self._database.reading() as connection:
            chunks, size, jobs = connection.execute(_USE_OF_ONE, {"conversation_id": conversation_id}).one()
        return QueueUse(jobs, int(size)) if chunks else None


def jobs_of(connection: Connection, conversation_id: str) -> list[JobRecord]:
    """Return what `JobBook.of_conversation` does, of an unpacked conversation."""
    rows = connection.execute(_OF_CONVERSATION, {"conversation_id": conversation_id})
    return [JobRecord(*row) for row in rows]


def results_of(connection: Connection, conversation_id: str) -> list[StoredResult]:
    """Return what `JobBook.results` does, of an unpacked conversation."""
    rows = connection.execute(_RESULTS, {"conversation_id": conversation_id})
    return [StoredResult(*row) for row in rows]


def _add_job(connection: Connection, conversation_id: str, plan: JobPlan) -> str | None:
    """Add a job; None where another bridge has made one of these chunks meanwhile, or they are deleted."""
    job_id, fresh = "j-" + secrets.token_hex(12), set(plan.fresh)
    wanted = {"conversation_id": conversation_id, "chunk_ids": [item.chunk_id for item in plan.chunks]}
    chunks = {row.chunk_id: row for row in connection.execute(_TO_COVER, wanted)}
    if any(name not in chunks or chunks[name].covered for name in fresh):
        return None
    unsure = {row.arrival for row in chunks.values() if row.duration_estimated or row.duration_s is None}
    audio_s = sum(
        max(row.duration_s or 0.0, row.bytes / THIN_BYTES_PER_S if row.arrival in unsure else 0.0)
        for row in chunks.values()
    )
    new = {"job_id": job_id, "conversation_id": conversation_id, "state": JobState.READY, "created_at": time.time()}
    connection.execute(_NEW_JOB, {**new, "audio_s": audio_s, "audio_estimated": bool(unsure)})
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
