"""Changes of a job's state, each with its event: the statement asks the table of states, and the event is kept."""

from __future__ import annotations

import time

from sqlalchemy import BindParameter, ColumnElement, Connection, Update, bindparam, insert, or_, select, update

from vps_bridge.ledger.job_states import JobEvent, JobState, state_after, states_before
from vps_bridge.ledger.records import JobEventRecord
from vps_bridge.ledger.tables import JobEventRow, JobRow
from vps_bridge.ledger.webhook_outbox import queue_failed_job

BRIDGE, OPERATOR = "bridge", "operator"
OF_JOB: BindParameter[str] = bindparam("of_job")

# Statements are made once: making one costs several times what running it does.
_NEW = insert(JobEventRow)
_OF_JOB = (
    select(
        JobEventRow.at,
        JobEventRow.event,
        JobEventRow.by,
        JobEventRow.lease_id,
        JobEventRow.detail,
        JobEventRow.message,
    )
    .where(JobEventRow.job_id == OF_JOB)
    .order_by(JobEventRow.number)
)


def is_in(*states: JobState) -> ColumnElement[bool]:
    """Return the condition that a job is in one of these states."""
    return or_(*(JobRow.state == state for state in states))


def allows(event: JobEvent) -> ColumnElement[bool]:
    """Return the condition that the state of a job allows an event."""
    return is_in(*states_before(event))


def move(event: JobEvent) -> Update:
    """Return the statement that moves the job `of_job` where its state allows the event, and else changes nothing."""
    return update(JobRow).where(JobRow.job_id == OF_JOB, allows(event)).values(state=state_after(event))


def note_event(
    connection: Connection,
    event: JobEvent,
    job_id: str,
    *,
    by: str,
    lease_id: str | None = None,
    detail: str | None = None,
    message: str | None = None,
) -> None:
    """Keep what happened to a job, and who did it: an agent's id, `BRIDGE` or `OPERATOR`."""
    facts = {"job_id": job_id, "at": time.time(), "event": event, "by": by}
    connection.execute(_NEW, {**facts, "lease_id": lease_id, "detail": detail, "message": message})
    if event is JobEvent.GIVEN_UP:
        queue_failed_job(connection, job_id, detail or "", message or "")


def events_of(connection: Connection, job_id: str) -> list[JobEventRecord]:
    """Return what happened to a job, in order."""
    return [JobEventRecord(**row._asdict()) for row in connection.execute(_OF_JOB, {"of_job": job_id})]


_LABELLED = move(JobEvent.LABELLED).values(ended_at=bindparam("now"))


def note_labelled(connection: Connection, job_ids: tuple[str, ...]) -> None:
    """Note that the labels of a conversation stand on the results of these jobs."""
    for job_id in job_ids:
        if connection.execute(_LABELLED, {"of_job": job_id, "now": time.time()}).rowcount:
            note_event(connection, JobEvent.LABELLED, job_id, by=BRIDGE)
