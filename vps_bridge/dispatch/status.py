"""What a conversation waits for, in words for a person. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.agent import AgentState
from vps_bridge.ledger.job_states import UNFINISHED, JobState
from vps_bridge.ledger.records import (
    LIVE,
    AgentRecord,
    ChunkRecord,
    ConversationRecord,
    ConversationState,
    JobRecord,
    describe_completion,
)
from vps_bridge.rules.completion import is_all_here

_UP = (AgentState.STARTING, AgentState.ONLINE)
_LABELS_TO_WRITE = "its labels are to be written: where this lasts, the log of omi-bridge says what its store answers"


def describe_status(
    conversation: ConversationRecord,
    chunks: Sequence[ChunkRecord],
    jobs: Sequence[JobRecord],
    agents: Sequence[AgentRecord],
    *,
    now: float,
    stale_s: float,
) -> tuple[ConversationState, str | None]:
    """Return a conversation's state and what it waits for, or what failed. `now` is Unix time: for people only."""
    if conversation.set_aside is not None:
        return ConversationState.FAILED, f"{conversation.set_aside}: omi-bridge retry {conversation.conversation_id}"
    if conversation.final_at is not None:
        return ConversationState.FINAL, _name_failures(jobs)
    if conversation.packed_at is not None:  # nothing of it is at work; which audio is missing, `show` tells
        why = "completed: audio to come" if conversation.completed else None
        return ConversationState.WAITING if why else ConversationState.ASSIGNED, why
    if any(job.state in UNFINISHED for job in jobs):
        return ConversationState.WAITING, _why_diarization_waits(conversation, jobs, agents, now - stale_s)
    if any(not chunk.covered for chunk in chunks):
        return ConversationState.WAITING, "audio is gathered to a job"
    if conversation.completed:
        return ConversationState.WAITING, _why_end_waits(conversation, chunks)
    if not chunks:
        is_live = conversation.conversation_id.startswith(LIVE)
        return ConversationState.WAITING, "live: OMI has not reported it yet" if is_live else "no audio yet"
    if conversation.dirty:
        return ConversationState.DIRTY, _LABELS_TO_WRITE
    return ConversationState.ASSIGNED, None


def _name_failures(jobs: Sequence[JobRecord]) -> str | None:
    failed = [job.failure_code or "unknown" for job in jobs if job.state is JobState.FAILED]
    jobs_failed = "1 job failed" if len(failed) == 1 else f"{len(failed)} jobs failed"
    return f"{jobs_failed}: {', '.join(sorted(set(failed)))}" if failed else None


def _why_end_waits(conversation: ConversationRecord, chunks: Sequence[ChunkRecord]) -> str:
    end = describe_completion(conversation, chunks)
    if is_all_here(end) is not False:
        return f"completed: {_LABELS_TO_WRITE if conversation.dirty else 'final once it is quiet'}"
    missing = (end.completed_chunks or 0) - end.chunks
    return (
        f"completed: {missing} of {end.completed_chunks} chunks to come" if missing > 0 else "completed: audio to come"
    )


def _why_diarization_waits(
    conversation: ConversationRecord, jobs: Sequence[JobRecord], agents: Sequence[AgentRecord], heard_after: float
) -> str:
    holders = sorted({job.agent_id or "?" for job in jobs if job.state is JobState.LEASED})
    if holders:
        return f"diarization by {', '.join(holders)}"
    allowed = [agent for agent in agents if agent.allowed]
    if not allowed:
        return "no agent is allowed: omi-bridge agents allow ID"
    live = [
        agent
        for agent in allowed
        if (agent.last_seen_at or 0.0) >= heard_after and (agent.heartbeat or {}).get("state") in _UP
    ]
    if not live:
        return f"no allowed agent is live ({', '.join(agent.agent_id for agent in allowed)})"
    if conversation.embedding is not None and all(_embedding(agent) != conversation.embedding for agent in live):
        return f"no live agent has the embedding model it began with ({'@'.join(conversation.embedding)})"
    return "the agents are busy"


def _embedding(agent: AgentRecord) -> tuple[str, str]:
    engine = (agent.heartbeat or {}).get("engine") or {}
    return engine.get("embedding_model", ""), engine.get("embedding_revision", "")
