"""The jobs that wait for the agents that are free, each without those whose attempts at it came to nothing."""

from __future__ import annotations

from collections.abc import Sequence

from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import JobRecord
from vps_bridge.rules.lease import AgentCapacity, ReadyJob, avoid_failed

MAX_LOOKS = 5  # at what waits behind jobs that are left for agents that are busy


def find_ready_jobs(
    ledger: Ledger,
    free: Sequence[AgentCapacity],
    everybody: Sequence[AgentCapacity],
    *,
    leased: set[str],
    resting: set[str],
    limit: int,
    newest_first: bool,
) -> list[ReadyJob]:
    """Return what `JobBook.ready` does for the agents in `free`; `everybody` are all that are up.

    Jobs that none of the free ones may have, because all of them failed at it and a busy one has not, are passed over.
    """
    embeddings, agent_ids = {agent.embedding for agent in free}, {agent.agent_id for agent in free}
    jobs: list[ReadyJob] = []
    for _ in range(MAX_LOOKS):
        found = ledger.jobs.ready(
            embeddings, leased=leased, resting=resting, limit=limit, agent_ids=agent_ids, newest_first=newest_first
        )
        jobs = [
            ReadyJob(job.job_id, job.conversation_id, order, embedding, job.audio_s, only_agent=only_agent)
            for order, (job, embedding, only_agent) in enumerate(found)
        ]
        if jobs and len(everybody) > 1:
            failed_by = ledger.leases.failed_by([job.job_id for job in jobs])
            jobs = [avoid_failed(job, failed_by.get(job.job_id, frozenset()), everybody) for job in jobs]
        left = {job.job_id for job in jobs if job.shuns.issuperset(agent_ids)}
        if not left or len(found) < limit:
            break
        resting = resting | left
    return jobs


def is_left_to_another(
    ledger: Ledger, job: JobRecord, failed_now: frozenset[str], everybody: Sequence[AgentCapacity]
) -> bool:
    """Whether one of those that are up could do a job, and is none of `failed_now` nor of those that failed at it.

    What one agent calls undecodable or too long may be so for its own decoder or settings alone.
    """
    conversation = ledger.conversations.peek(job.conversation_id)
    embedding = None if conversation is None else conversation.embedding
    waiting = ReadyJob(job.job_id, job.conversation_id, 0, embedding, job.audio_s)
    failed_by = ledger.leases.failed_by([job.job_id]).get(job.job_id, frozenset()) | failed_now
    return bool(avoid_failed(waiting, failed_by, everybody).shuns)
