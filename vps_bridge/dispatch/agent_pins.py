"""Conversations that only one agent may work on: tests of that agent, as `omi-bridge ping AGENT` makes them."""

from __future__ import annotations

from collections.abc import Container

from vps_bridge.ledger import Ledger

MAX_PINNED = 100  # each is over in seconds; whoever makes more has the oldest worked on by any agent


class AgentPins:
    """Which agent a conversation is for. Kept in memory: a start of the bridge deletes temporary conversations."""

    def __init__(self, ledger: Ledger) -> None:
        """Start with none; the ledger knows the conversations' jobs."""
        self._ledger = ledger
        self._agents: dict[str, str] = {}

    def pin(self, conversation_id: str, agent_id: str) -> None:
        """Have only this agent work on a conversation."""
        self._agents.pop(conversation_id, None)
        self._agents[conversation_id] = agent_id
        if len(self._agents) > MAX_PINNED:
            del self._agents[next(iter(self._agents))]

    def forget(self, conversation_id: str) -> None:
        """Forget a conversation that is deleted."""
        self._agents.pop(conversation_id, None)

    def agent_of(self, conversation_id: str) -> str | None:
        """Return the only agent that may have a conversation's jobs, or None where any may."""
        return self._agents.get(conversation_id)

    def waiting(self, free: Container[str]) -> set[str]:
        """Return the jobs that wait for an agent which is not among the free ones: they stand before no other."""
        names = [name for name, agent_id in self._agents.items() if agent_id not in free]
        return {job.job_id for name in names for job in self._ledger.jobs.of_conversation(name)}
