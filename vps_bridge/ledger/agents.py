"""Agents: only one that a person allowed is ever given audio."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import delete, func, select

from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.database import CachedRead, LedgerDatabase
from vps_bridge.ledger.erasure_log import Erased, Erasures
from vps_bridge.ledger.records import AgentRecord
from vps_bridge.ledger.tables import AgentRow

_ALL = select(
    AgentRow.agent_id,
    AgentRow.allowed,
    AgentRow.first_seen_at,
    AgentRow.last_seen_at,
    AgentRow.last_heartbeat.label("heartbeat"),
).order_by(AgentRow.agent_id)
_ALLOWED = select(AgentRow.agent_id).where(AgentRow.allowed)
_AGENT = insert(AgentRow)
_HEARD = _AGENT.on_conflict_do_update(
    index_elements=[AgentRow.agent_id],
    set_={"last_seen_at": _AGENT.excluded.last_seen_at, "last_heartbeat": _AGENT.excluded.last_heartbeat},
).returning(AgentRow.allowed)
_ALLOW = _AGENT.on_conflict_do_update(index_elements=[AgentRow.agent_id], set_={"allowed": _AGENT.excluded.allowed})

MAX_STRANGERS = 100
"""Agents that are not allowed of which the ledger knows: those heard last. Anyone at the broker can name new ones."""
_LAST_STRANGERS = (
    select(AgentRow.agent_id)
    .where(~AgentRow.allowed)
    .order_by(func.coalesce(AgentRow.last_seen_at, AgentRow.first_seen_at).desc())
    .limit(MAX_STRANGERS)
)
_FORGET_STRANGERS = delete(AgentRow).where(~AgentRow.allowed, AgentRow.agent_id.not_in(_LAST_STRANGERS))


class AgentBook:
    """The allow-list, and the latest heartbeat of each agent."""

    def __init__(self, database: LedgerDatabase, erasures: Erasures) -> None:
        """Work on the ledger's database."""
        self._database, self._erasures = database, erasures
        self._allowed = CachedRead(database, self._read_allowed)

    def note_heartbeat(self, agent_id: str, heartbeat: dict[str, Any]) -> None:
        """Keep the latest heartbeat of an agent for people to look at; of those not allowed the latest ones stay."""
        now = time.time()
        seen = {"first_seen_at": now, "last_seen_at": now, "last_heartbeat": heartbeat}
        with self._database.writing() as connection:
            is_allowed = connection.scalar(_HEARD, {"agent_id": agent_id, "allowed": False, **seen})
            if not is_allowed:
                connection.execute(_FORGET_STRANGERS)

    def set_allowed(self, agent_id: str, *, allowed: bool) -> None:
        """Put an agent on the allow-list or take it off; no heartbeat of it need have come yet."""
        with self._database.writing() as connection:
            if not allowed:
                self._erasures.note(connection, Erased.PERMISSION, agent_id)
            connection.execute(_ALLOW, {"agent_id": agent_id, "allowed": allowed, "first_seen_at": time.time()})
        self._allowed.drop()

    def forget(self, agent_id: str) -> bool:
        """Delete what is known of an agent, and that it is allowed; False where it is unknown."""
        with self._database.writing() as connection:
            self._erasures.note(connection, Erased.AGENT, agent_id)
            is_known = bool(connection.execute(delete(AgentRow).where(AgentRow.agent_id == agent_id)).rowcount)
        self._allowed.drop()
        return is_known

    def allowed(self) -> frozenset[str]:
        """Return the ids on the allow-list. It is asked for with every message of an agent, and seldom changes."""
        return self._allowed.get()

    def _read_allowed(self) -> frozenset[str]:
        with self._database.reading() as connection:
            return frozenset(connection.scalars(_ALLOWED))

    def all(self) -> list[AgentRecord]:
        """Return every agent by id."""
        with self._database.reading() as connection:
            return [AgentRecord(**row._asdict()) for row in connection.execute(_ALL)]
