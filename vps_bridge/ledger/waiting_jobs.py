"""Jobs that wait for a lease: as many of them as fair grants need, so that the cost does not grow with what waits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, func, or_, select, tuple_

from vps_bridge.ledger.columns import JOB_COLUMNS
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.records import JobRecord
from vps_bridge.ledger.tables import IS_UNFINISHED, ConversationRow, JobRow

READY_AT_ONCE = 50

# Statements are made once: making one costs several times what running it does.
_PIN = (ConversationRow.embedding_model, ConversationRow.embedding_revision)
_OF_ITS_CONVERSATION = ConversationRow.conversation_id == JobRow.conversation_id
_FITS = (
    or_(ConversationRow.only_agent.is_(None), ConversationRow.only_agent.in_(bindparam("agent_ids", expanding=True))),
    JobRow.job_id.not_in(bindparam("resting", expanding=True)),
    or_(_PIN[0].is_(None), tuple_(*_PIN).in_(bindparam("embeddings", expanding=True))),
)
_IS_ELSEWHERE = JobRow.conversation_id.not_in(bindparam("passed", expanding=True))
_IS_READY = JobRow.state == JobState.READY
_FITTING = (
    select(*JOB_COLUMNS, ConversationRow.only_agent, *_PIN)
    .join(ConversationRow, _OF_ITS_CONVERSATION)
    .where(*_FITS)
    .order_by(JobRow.number)
)
_READY_ELSEWHERE = _FITTING.where(_IS_READY, _IS_ELSEWHERE).limit(bindparam("at_most"))
_NEWEST_ELSEWHERE = (
    select(JobRow.conversation_id)
    .join(ConversationRow, _OF_ITS_CONVERSATION)
    .where(*_FITS, _IS_READY, _IS_ELSEWHERE)
    .order_by(JobRow.number.desc())
    .limit(bindparam("at_most"))
)
# `coalesce`, so that SQLite looks at the jobs of the conversation and not through all that are ready.
_READY_OF_ONE = _FITTING.where(
    JobRow.conversation_id == bindparam("conversation_id"),
    IS_UNFINISHED,
    func.coalesce(JobRow.state, "") == JobState.READY,
).limit(bindparam("at_most"))
_WITH_MORE = select(ConversationRow.conversation_id).where(
    ConversationRow.conversation_id.in_(bindparam("among", expanding=True)),
    select(JobRow.number)
    .where(
        JobRow.conversation_id == ConversationRow.conversation_id,
        IS_UNFINISHED,
        JobRow.state == JobState.READY,
        JobRow.job_id.not_in(bindparam("chosen", expanding=True)),
    )
    .exists(),
)
_MORE_ARE_READY = f"SELECT 1 FROM jobs WHERE state = '{JobState.READY}' LIMIT 1 OFFSET ?"  # noqa: S608 - a constant


class WaitingJob(NamedTuple):
    """A job that waits for a lease."""

    job: JobRecord
    embedding: tuple[str, str] | None
    """The model that its conversation is pinned to."""
    only_agent: str | None
    """Who alone may have it: it is a test of that agent."""


def find_waiting(
    database: LedgerDatabase, fitting: Mapping[str, object], *, leased: set[str], limit: int, newest_first: bool
) -> list[WaitingJob]:
    """Return what `JobBook.ready` does, of the jobs that are `fitting`."""
    with database.reading() as connection:
        oldest = _find_oldest(database, connection, fitting, leased, limit)
        if not newest_first or len(oldest) < limit:
            return oldest
        return take_turns(_find_newest(connection, fitting, leased, (limit + 1) // 2), oldest)[:limit]


def take_turns(newest: list[WaitingJob], oldest: list[WaitingJob]) -> list[WaitingJob]:
    """Return the jobs of both lists in turn, the newest one first, each job once."""
    in_turn = (found for pair in zip_longest(newest, oldest) for found in pair if found is not None)
    return list({found.job.job_id: found for found in in_turn}.values())


def _find_newest(
    connection: Connection, fitting: Mapping[str, object], leased: set[str], at_most: int
) -> list[WaitingJob]:
    """Return the oldest job of each conversation that has one of the newest `at_most` jobs and no lease."""
    ids = connection.execute(_NEWEST_ELSEWHERE, {**fitting, "passed": list(leased), "at_most": at_most}).scalars().all()
    of_one = ({**fitting, "conversation_id": conversation_id, "at_most": 1} for conversation_id in dict.fromkeys(ids))
    rows = (connection.execute(_READY_OF_ONE, values).first() for values in of_one)
    return [_to_waiting(row) for row in rows if row is not None]  # another bridge may have leased one meanwhile


def _find_oldest(
    database: LedgerDatabase, connection: Connection, fitting: Mapping[str, object], leased: set[str], limit: int
) -> list[WaitingJob]:
    heads: dict[str, WaitingJob] = {}
    at_most = min(limit, READY_AT_ONCE)  # where each is of another conversation, that is enough
    while len(heads) < limit:
        elsewhere = {**fitting, "passed": [*leased, *heads], "at_most": at_most}
        rows = connection.execute(_READY_ELSEWHERE, elsewhere).all()
        for found in map(_to_waiting, rows):
            heads.setdefault(found.job.conversation_id, found)
        if len(rows) < at_most:
            break
        at_most = READY_AT_ONCE
    chosen = {found.job.job_id: found for found in list(heads.values())[:limit]}
    among = [*leased, *heads]
    if among and len(chosen) < limit and database.has_row(_MORE_ARE_READY, str(len(heads))):
        others = {"among": among, "chosen": list(chosen)}
        for (conversation_id,) in connection.execute(_WITH_MORE, others).all():
            of_one = {**fitting, "conversation_id": conversation_id, "at_most": limit}
            rows = connection.execute(_READY_OF_ONE, of_one).all()
            chosen |= {found.job.job_id: found for found in map(_to_waiting, rows)}
    return sorted(chosen.values(), key=lambda found: found.job.number)


def _to_waiting(row: Row[*tuple[Any, ...]]) -> WaitingJob:
    *facts, only_agent, model, revision = row
    embedding = None if model is None or revision is None else (model, revision)
    return WaitingJob(JobRecord(*facts), embedding, only_agent)
