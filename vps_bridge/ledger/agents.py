"""Agents on the books: only an agent that a person allowed is ever given audio."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from vps_bridge.ledger.records import AgentRecord
from vps_bridge.ledger.tables import AgentRow


class AgentBook:
    """The allow-list, and when each agent was last heard of."""

    def __init__(self, session: sessionmaker[Session]) -> None:
        """Work on the ledger's database."""
        self._session = session

    def note_heartbeat(self, agent_id: str, heartbeat: dict[str, Any]) -> None:
        """Keep the latest heartbeat of an agent for people to look at."""
        now = time.time()
        with self._session.begin() as session:
            row = session.get(AgentRow, agent_id) or AgentRow(agent_id=agent_id, allowed=False, first_seen_at=now)
            row.last_seen_at, row.last_heartbeat = now, heartbeat
            session.add(row)

    def set_allowed(self, agent_id: str, *, allowed: bool) -> None:
        """Put an agent on the allow-list or take it off; it need not have been heard of yet."""
        with self._session.begin() as session:
            row = session.get(AgentRow, agent_id) or AgentRow(agent_id=agent_id, first_seen_at=time.time())
            row.allowed = allowed
            session.add(row)

    def allowed(self) -> frozenset[str]:
        """Return the ids on the allow-list."""
        with self._session() as session:
            return frozenset(session.scalars(select(AgentRow.agent_id).where(AgentRow.allowed)))

    def all(self) -> list[AgentRecord]:
        """Return every agent by id."""
        with self._session() as session:
            rows = session.scalars(select(AgentRow).order_by(AgentRow.agent_id))
            return [
                AgentRecord(row.agent_id, row.allowed, row.first_seen_at, row.last_seen_at, row.last_heartbeat)
                for row in rows
            ]
