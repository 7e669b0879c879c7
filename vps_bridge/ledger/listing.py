"""Reading many conversations at once: without their updates, which are large, and what of all of it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum, auto
from typing import Any

from sqlalchemy import Select, Subquery, bindparam, func, literal_column, null, select, union

from vps_bridge.ledger.database import LedgerDatabase, Mark
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.packing import reading_unpacked
from vps_bridge.ledger.records import ConversationRecord
from vps_bridge.ledger.tables import (
    AgentRow,
    ConversationRow,
    JobEventRow,
    JobRow,
    PersonDecisionRow,
    PersonRow,
    RefusedChunkRow,
    WebhookRow,
)

MARKED = 2_000
"""Conversations that `Listing.marks` tells of: those that something happened to last."""

_LARGE = ("updated_payload", "embedding")
_COLUMNS = tuple(getattr(ConversationRow, item.name) for item in fields(ConversationRecord) if item.name not in _LARGE)
# SQLite keeps a large row in a chain of pages, and a column after the update costs reading all of that chain. The index
# `conversations_activity` holds all that these two ask for.
_LATEST_FIRST = select(ConversationRow.conversation_id).order_by(
    ConversationRow.last_activity_at.desc(), ConversationRow.conversation_id.desc()
)
_VOICES = select(ConversationRow.conversation_id, ConversationRow.voices).where(
    ConversationRow.conversation_id.in_(bindparam("names", expanding=True))
)
_MARK = select(
    ConversationRow.conversation_id,
    ConversationRow.last_activity_at,
    ConversationRow.dirty,
    ConversationRow.updated_version,
)
_MARKS = _MARK.order_by(ConversationRow.last_activity_at.desc(), ConversationRow.conversation_id.desc()).limit(MARKED)
# One that is old is worked on again: it is here until its labels are worked out, and then it is not.
_MARKS_OF_OLDER = _MARK.where(ConversationRow.dirty > literal_column("0")).limit(MARKED)
_SOME = select(
    *_COLUMNS,
    null().label("updated_payload"),
    ConversationRow.embedding_model,
    ConversationRow.embedding_revision,
).where(ConversationRow.conversation_id.in_(bindparam("names", expanding=True)), ~ConversationRow.throwaway)
_SET_ASIDE = select(ConversationRow.conversation_id).where(ConversationRow.set_aside.is_not(None))
_IS_TRIED, _IS_OPEN = ConversationRow.set_aside.is_(None), ConversationRow.final_at.is_(None)
_ACTIVITY = select(ConversationRow.conversation_id, ConversationRow.last_activity_at)
_OF_FAILED_JOBS = _ACTIVITY.join(JobRow, JobRow.conversation_id == ConversationRow.conversation_id).where(
    JobRow.state == JobState.FAILED
)
_PLACES = select(ConversationRow.audio_places).where(ConversationRow.conversation_id == bindparam("of_conversation"))
_AGENTS = select(AgentRow.agent_id, AgentRow.allowed, AgentRow.last_seen_at).order_by(AgentRow.agent_id)


class Which(StrEnum):
    """Conversations that may be in a state, or wait for something; found without looking at all others."""

    ALL = auto()
    OPEN = auto()
    """Not final, and not set aside."""
    FINAL = auto()
    SET_ASIDE = auto()
    WITH_REASON = auto()
    """Those that may wait for something, or have something that failed."""


def _latest_of(few: Subquery) -> Select[Any]:
    """Return the statement for the latest of a few, which are found first: the last of all may be none of them."""
    return select(few.c.conversation_id).order_by(few.c.last_activity_at.desc(), few.c.conversation_id.desc())


_LATEST: dict[Which, Select[Any]] = {
    Which.ALL: _LATEST_FIRST,
    Which.OPEN: _latest_of(_ACTIVITY.where(_IS_TRIED, _IS_OPEN).offset(0).subquery()),
    Which.FINAL: _LATEST_FIRST.where(_IS_TRIED, ~_IS_OPEN),
    Which.SET_ASIDE: _latest_of(_ACTIVITY.where(~_IS_TRIED).offset(0).subquery()),
    Which.WITH_REASON: _latest_of(
        union(_ACTIVITY.where(_IS_OPEN), _ACTIVITY.where(~_IS_TRIED), _OF_FAILED_JOBS).subquery()
    ),
}


@dataclass(frozen=True)
class Marks:
    """How far everything is: what differs between two of these has changed in between."""

    conversations: dict[str, tuple[Any, ...]]
    jobs: int
    """The number of the latest event of any job."""
    refused: float
    """When audio was refused last (Unix time)."""
    agents: tuple[Any, ...]
    people: tuple[int, int] = (0, 0)
    """The number of the latest decision about anybody, and how many people there are."""
    webhook: tuple[Any, ...] = ()
    """How many of its messages wait, and when one was tried last."""


class Listing:
    """Conversations as lists need them, and marks of what has changed."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def latest_first(self) -> list[str]:
        """Return all conversations, the one that something happened to last first."""
        with self._database.reading() as connection:
            return list(connection.scalars(_LATEST_FIRST))

    def count(self) -> int:
        """Return how many conversations there are."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(ConversationRow)) or 0

    def latest(self, offset: int, limit: int, which: Which = Which.ALL) -> list[str]:
        """Return a part of these in the order of `latest_first`, which costs the same however many there are."""
        with self._database.reading() as connection:
            return list(connection.scalars(_LATEST[which].offset(offset).limit(limit)))

    def voices(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the voices of these conversations."""
        with self._database.reading() as connection:
            return {name: voices for name, voices in connection.execute(_VOICES, {"names": list(names)})}  # noqa: C416 - rows are no pairs to mypy

    def some(self, names: Sequence[str]) -> list[ConversationRecord]:
        """Return these conversations in this order, without `updated_payload`; not those that are gone or temporary."""
        with self._database.reading() as connection:
            found = {row.conversation_id: row for row in connection.execute(_SOME, {"names": list(names)})}
        records = []
        for name in names:
            if name in found:
                facts = found[name]._asdict()
                model, revision = facts.pop("embedding_model"), facts.pop("embedding_revision")
                pinned = None if model is None or revision is None else (model, revision)
                records.append(ConversationRecord(**facts, embedding=pinned))
        return records

    def audio_places(self, conversation_id: str) -> Any:  # noqa: ANN401 - JSON
        """Return where a conversation's audio lies in its transcript, as its latest update noted; None before one."""
        with reading_unpacked(self._database, conversation_id) as connection:
            return connection.scalar(_PLACES, {"of_conversation": conversation_id})

    def change_mark(self) -> Mark:
        """Return a mark that differs after every commit of another connection: cheap, unlike `marks`."""
        return self._database.change_mark()

    def marks(self) -> Marks:
        """Return how far everything is; of conversations those that something happened to last, or still happens."""
        with self._database.reading() as connection:
            conversations: dict[str, tuple[Any, ...]] = {
                name: tuple(rest)
                for statement in (_MARKS_OF_OLDER, _MARKS)
                for name, *rest in connection.execute(statement)
            }
            for (name,) in connection.execute(_SET_ASIDE):
                conversations[name] = (*conversations.get(name, ()), "set_aside")
            return Marks(
                conversations=conversations,
                jobs=connection.scalar(select(func.max(JobEventRow.number))) or 0,
                refused=connection.scalar(select(func.max(RefusedChunkRow.last_at))) or 0.0,
                agents=tuple(tuple(row) for row in connection.execute(_AGENTS)),
                people=(
                    connection.scalar(select(func.max(PersonDecisionRow.number))) or 0,
                    connection.scalar(select(func.count()).select_from(PersonRow)) or 0,
                ),
                webhook=tuple(connection.execute(select(func.count(), func.max(WebhookRow.tried_at))).one()),
            )
