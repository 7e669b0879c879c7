"""Where a conversation stands: whether all of it is here, and what it waits for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.agent import AgentState
from schemas.bridge import QueueState
from schemas.record import MAX_DURATION_S
from vps_bridge.ledger.records import (
    AgentRecord,
    ChunkRecord,
    ConversationRecord,
    ConversationState,
    JobRecord,
    JobState,
    OpenEnd,
    QueueCounts,
)
from vps_bridge.settings import BridgeSettings

MISSING_PATIENCE = 10  # times `quiet_s` that audio which was named and never came is waited for
CLOCK_TOLERANCE_S = 0.5  # between the end of the last chunk and the `last_audio_at` that was told
_UP = (AgentState.STARTING, AgentState.ONLINE)


def is_all_here(end: OpenEnd) -> bool | None:
    """Whether everything a `completed` event named has come; None where it named nothing that can be checked."""
    checks = []
    if end.completed_chunks is not None:
        checks.append(end.chunks >= end.completed_chunks)
    if end.last_audio_at_s is not None and end.audio_until_s is not None:
        checks.append(end.audio_until_s >= end.last_audio_at_s - CLOCK_TOLERANCE_S)
    return all(checks) if checks else None


def is_final(end: OpenEnd, *, idle_s: float, quiet_s: float) -> bool:
    """Whether a completed conversation that has all its results waits for nothing more."""
    return idle_s >= patience_s(end, quiet_s=quiet_s)


def patience_s(end: OpenEnd, *, quiet_s: float) -> float:
    """How long no audio must have come before such a conversation is final.

    What was named is waited for, but not for ever; where nothing was named, `quiet_s` without audio have to do.
    """
    all_here = is_all_here(end)
    if all_here is None:
        return quiet_s
    return 0.0 if all_here else MISSING_PATIENCE * quiet_s


def describe_end(conversation: ConversationRecord, chunks: Sequence[ChunkRecord]) -> OpenEnd:
    """Return what decides about a conversation's end."""
    ends_s = [chunk.captured_at_s + (chunk.duration_s or 0.0) for chunk in chunks if chunk.captured_at_s is not None]
    return OpenEnd(
        conversation.conversation_id,
        len(chunks),
        conversation.completed_chunks,
        conversation.last_audio_at_s,
        max(ends_s, default=None),
    )


def describe_queue(counts: QueueCounts, now: float) -> QueueState:
    """Return what a heartbeat says of the queue. `now` is Unix time: for people only."""
    oldest_s = 0.0 if counts.oldest_at is None else now - counts.oldest_at
    return QueueState(
        chunks_waiting=counts.chunks_waiting,
        jobs_ready=counts.jobs_ready,
        jobs_leased=counts.jobs_leased,
        jobs_failed=counts.jobs_failed,
        bytes=counts.bytes,
        oldest_s=min(MAX_DURATION_S, max(0.0, oldest_s)),
    )


def has_room(queue: QueueState, settings: BridgeSettings) -> bool:
    """Whether the queue's limits allow more."""
    is_full = queue.jobs_ready + queue.jobs_leased >= settings.max_queue_jobs
    return not is_full and queue.bytes < settings.max_queue_bytes


def describe_standing(
    conversation: ConversationRecord,
    chunks: Sequence[ChunkRecord],
    jobs: Sequence[JobRecord],
    agents: Sequence[AgentRecord],
    *,
    now: float,
    stale_s: float,
) -> tuple[ConversationState, str | None]:
    """Return a conversation's state and, where it waits, for what. `now` is Unix time: for people only."""
    if conversation.final_at is not None:
        return ConversationState.FINAL, None
    if any(job.state in (JobState.READY, JobState.LEASED) for job in jobs):
        return ConversationState.WAITING, _why_diarization_waits(conversation, jobs, agents, now - stale_s)
    if any(not chunk.covered for chunk in chunks):
        return ConversationState.WAITING, "audio is gathered to a job"
    if conversation.completed:
        return ConversationState.WAITING, _why_end_waits(describe_end(conversation, chunks))
    if not chunks:
        return ConversationState.WAITING, "no audio yet"
    if conversation.dirty:
        return ConversationState.DIRTY, None
    return ConversationState.ASSIGNED, None


def _why_end_waits(end: OpenEnd) -> str:
    if is_all_here(end) is not False:
        return "completed: final once it is quiet"
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
