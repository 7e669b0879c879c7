"""Leases: granted, ended, given back. Each change is one transaction with its job's state and event."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import bindparam, insert, select, update

from vps_bridge.ledger.both_dialects import SERVER_DIALECT
from vps_bridge.ledger.claim import claim
from vps_bridge.ledger.columns import JOB_COLUMNS, LEASE_COLUMNS, MAX_SPEAKERS
from vps_bridge.ledger.conversation_changes import keep_model, let_model_go
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.job_events import BRIDGE, OF_JOB, move, note_event
from vps_bridge.ledger.job_states import JobEvent, JobState, state_after
from vps_bridge.ledger.records import JobRecord, LeaseRecord
from vps_bridge.ledger.tables import ConversationRow, JobRow, LeaseRow
from vps_bridge.rules.lease import CAME_TO_NOTHING, LeaseEnd

LEASE_ID_BYTES = 16  # 128 random bits

# Statements are made once: making one costs several times what running it does.
_CURRENT = (
    select(*LEASE_COLUMNS)
    .join(JobRow, JobRow.lease_id == LeaseRow.lease_id)
    .where(JobRow.state == JobState.LEASED)
    .order_by(JobRow.number)
)
_CURRENT_OF_AGENT = _CURRENT.where(LeaseRow.agent_id == bindparam("agent_id"))
_FIND = (
    select(*LEASE_COLUMNS)
    .join(JobRow, JobRow.job_id == LeaseRow.job_id)
    .where(LeaseRow.lease_id == bindparam("lease_id"))
)
_CAME_TO_NOTHING = select(LeaseRow.job_id, LeaseRow.agent_id).where(
    LeaseRow.job_id.in_(bindparam("of_jobs", expanding=True)), LeaseRow.lease_end.in_(sorted(CAME_TO_NOTHING))
)
# Whoever changes a job locks its row first; SQLite has one writer at a time, and locks no rows.
_FIND_TO_RETURN = _FIND.with_for_update(of=JobRow)
_JOB_OF_LEASE = (
    select(*JOB_COLUMNS)
    .where(JobRow.lease_id == bindparam("lease_id"), JobRow.state == JobState.LEASED)
    .with_for_update()
)
_TO_GRANT = (
    select(
        JobRow.conversation_id,
        JobRow.audio_s,
        JobRow.attempts,
        MAX_SPEAKERS.label("max_speakers"),
        ConversationRow.embedding_model,
        ConversationRow.embedding_revision,
    )
    .join(ConversationRow, ConversationRow.conversation_id == JobRow.conversation_id)
    .where(JobRow.job_id == OF_JOB)
)
_PIN = (
    update(ConversationRow)
    .where(ConversationRow.conversation_id == bindparam("of_conversation"))
    .values(embedding_model=bindparam("model"), embedding_revision=bindparam("revision"))
)
_NEW = insert(LeaseRow)
_GRANT = move(JobEvent.GRANTED).values(lease_id=bindparam("by_lease"))
_RETURN = move(JobEvent.LEASE_RETURNED).values(
    lease_id=bindparam("by_lease"), deaths=JobRow.deaths - bindparam("undone_deaths")
)
_END = move(JobEvent.LEASE_ENDED).values(lease_id=None, deaths=bindparam("all_deaths"))
_THIS = update(LeaseRow).where(LeaseRow.lease_id == bindparam("of_lease"))
_MARK_ENDED = _THIS.values(lease_end=bindparam("why"))
_MARK_RETURNED = _THIS.values(lease_end=None, instance_id=bindparam("to_instance"))


class LeaseBook:
    """Leases of all jobs, current and long over."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def current(self) -> list[LeaseRecord]:
        """Return the leases under which an agent works now, oldest job first."""
        with self._database.reading() as connection:
            return [LeaseRecord(*row) for row in connection.execute(_CURRENT)]

    def of_agent(self, agent_id: str) -> list[LeaseRecord]:
        """Return the leases under which one agent works now, oldest job first."""
        with self._database.reading() as connection:
            return [LeaseRecord(*row) for row in connection.execute(_CURRENT_OF_AGENT, {"agent_id": agent_id})]

    def find(self, lease_id: str) -> LeaseRecord | None:
        """Return a lease, current or long over."""
        with self._database.reading() as connection:
            row = connection.execute(_FIND, {"lease_id": lease_id}).first()
            return LeaseRecord(*row) if row else None

    def failed_by(self, job_ids: Iterable[str]) -> dict[str, frozenset[str]]:
        """Return the agents whose attempts at these jobs came to nothing, by job; a job without any is left out."""
        found: dict[str, frozenset[str]] = {}
        with self._database.reading() as connection:
            for job_id, agent_id in connection.execute(_CAME_TO_NOTHING, {"of_jobs": list(job_ids)}):
                found[job_id] = found.get(job_id, frozenset()) | {agent_id}
        return found

    def grant(self, job_id: str, agent_id: str, instance_id: str, embedding: tuple[str, str]) -> LeaseRecord | None:
        """Lease a waiting job to an agent and pin its conversation to the agent's embedding.

        Returns None where the job does not wait any more or its conversation is pinned to another model.
        """
        lease_id = secrets.token_hex(LEASE_ID_BYTES)
        holder = {"lease_id": lease_id, "job_id": job_id, "agent_id": agent_id, "instance_id": instance_id}
        with self._database.writing() as connection:
            if connection.dialect.name == SERVER_DIALECT:
                return claim(connection, holder, embedding)
            job = connection.execute(_TO_GRANT, {"of_job": job_id}).first()
            if job is None or (job.embedding_model, job.embedding_revision) not in ((None, None), embedding):
                return None
            if not connection.execute(_GRANT, {"of_job": job_id, "by_lease": lease_id}).rowcount:
                return None
            model, revision = embedding
            pin = {"of_conversation": job.conversation_id, "model": model, "revision": revision}
            connection.execute(_PIN, pin)
            connection.execute(_NEW, {**holder, "granted_at": time.time()})
            note_event(connection, JobEvent.GRANTED, job_id, by=agent_id, lease_id=lease_id)
        about = {"audio_s": job.audio_s, "attempts": job.attempts, "max_speakers": job.max_speakers}
        return LeaseRecord(lease_id, job_id, job.conversation_id, agent_id, instance_id, **about, is_current=True)

    def end(self, lease_id: str, why: LeaseEnd) -> JobRecord | None:
        """End a current lease; its job waits again. Where the agent's process ended with it, `deaths` grows by one."""
        with self._database.writing() as connection:
            row = connection.execute(_JOB_OF_LEASE, {"lease_id": lease_id}).first()
            if row is None:
                return None
            job = JobRecord(*row)
            deaths = job.deaths + (why is LeaseEnd.AGENT_DIED)
            connection.execute(_END, {"of_job": job.job_id, "all_deaths": deaths})
            connection.execute(_MARK_ENDED, {"of_lease": lease_id, "why": why})
            note_event(connection, JobEvent.LEASE_ENDED, job.job_id, by=BRIDGE, lease_id=lease_id, detail=why)
            let_model_go(connection, job.conversation_id)
            return replace(job, state=state_after(JobEvent.LEASE_ENDED), lease_id=None, deaths=deaths)

    def give_back(self, lease: LeaseRecord, instance_id: str, embedding: tuple[str, str] | None = None) -> bool:
        """Return a lost lease to its agent, which turned up again still holding the job (`instance_id` does).

        Not where others work on the conversation with another model than its `embedding` (None: it does not say).
        If that very process was taken for dead, because another one beat under its agent id, the death is taken back.
        """
        with self._database.writing() as connection:
            row = connection.execute(_FIND_TO_RETURN, {"lease_id": lease.lease_id}).first()
            lost = LeaseRecord(*row) if row else None
            if lost is None or lost.lease_end is None or not lost.lease_end.may_return:
                return False
            was_no_death = lost.instance_id == instance_id and lost.lease_end is LeaseEnd.AGENT_DIED
            about = {"of_job": lost.job_id, "by_lease": lost.lease_id, "undone_deaths": int(was_no_death)}
            if embedding is not None and not keep_model(connection, lost.conversation_id, embedding):
                return False
            if not connection.execute(_RETURN, about).rowcount:
                let_model_go(connection, lost.conversation_id)
                return False
            connection.execute(_MARK_RETURNED, {"of_lease": lost.lease_id, "to_instance": instance_id})
            note_event(connection, JobEvent.LEASE_RETURNED, lost.job_id, by=lost.agent_id, lease_id=lost.lease_id)
            return True
