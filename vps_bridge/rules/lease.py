"""Lease rules: who may work on a job, how long, and what a heartbeat changes. Pure, on a monotonic clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True)
class LeaseRules:
    """Times in seconds; the defaults are the design's."""

    stale_s: float = 30.0
    grace_s: float = 30.0
    limit_factor: float = 10.0
    limit_floor_s: float = 600.0
    missed_beats: int = 2
    take_s: float = 60.0
    max_attempts: int = 3
    max_deaths: int = 5

    def limit_s(self, expected_s: float) -> float:
        """Return how long a lease may last at most, also where its agent beats regularly."""
        return self.limit_factor * expected_s + self.limit_floor_s


@dataclass(frozen=True)
class AgentPresence:
    """What the bridge knows of an agent, from heartbeats without the retain flag. Times are monotonic seconds.

    `offline_s` is when its will arrived (None while connected); `stopped`: it said that it stops; `draining`: it takes
    no new jobs.
    """

    last_beat_s: float
    offline_s: float | None = None
    stopped: bool = False
    draining: bool = False


@dataclass(frozen=True)
class LeaseView:
    """A current lease.

    `unlisted_beats` counts the agent's beats in a row that did not list the job; `worked_s` is for how long its beats
    listed the job as running; `untaken_s` is how long ago it was first offered, where no beat has listed it since.
    """

    granted_s: float
    expected_s: float
    unlisted_beats: int = 0
    worked_s: float = 0.0
    untaken_s: float = 0.0


class LeaseEnd(StrEnum):
    """Why a lease ended before its job had a result."""

    OVER_LIMIT = "over_limit"
    AGENT_STALE = "agent_stale"
    AGENT_STOPPED = "agent_stopped"
    AGENT_OFFLINE = "agent_offline"
    AGENT_DRAINS = "agent_drains"
    AGENT_DENIED = "agent_denied"
    AGENT_DIED = "agent_died"
    """Another process of the agent beats without the job, which a beat of the earlier one had listed."""
    NEVER_TAKEN = "never_taken"
    """The same, but no beat had ever listed the job: it cannot be what ended the process."""
    OFFERS_UNANSWERED = "offers_unanswered"
    """Its agent beats, and does not take the job however often it is offered."""
    ATTEMPT_FAILED = "attempt_failed"
    JOB_CANCELLED = "job_cancelled"
    AUDIO_PURGED = "audio_purged"

    @property
    def may_return(self) -> bool:
        """Whether the lease is only lost: an agent that turns up still holding the job gets it back."""
        return self in _LOST

    @property
    def description(self) -> str:
        """What agents and operators read."""
        return _DESCRIPTIONS[self]


_LOST = frozenset(
    {
        LeaseEnd.AGENT_STALE,
        LeaseEnd.AGENT_STOPPED,
        LeaseEnd.AGENT_OFFLINE,
        LeaseEnd.AGENT_DRAINS,
        LeaseEnd.AGENT_DIED,
        LeaseEnd.NEVER_TAKEN,
        LeaseEnd.OFFERS_UNANSWERED,
    }
)
CAME_TO_NOTHING = frozenset(
    {LeaseEnd.ATTEMPT_FAILED, LeaseEnd.OVER_LIMIT, LeaseEnd.AGENT_DIED, LeaseEnd.OFFERS_UNANSWERED}
)
"""Ends of leases of which the agent may be the cause: another one may do the job."""
_DESCRIPTIONS = {
    LeaseEnd.OVER_LIMIT: "over the absolute limit",
    LeaseEnd.AGENT_STALE: "agent is stale",
    LeaseEnd.AGENT_STOPPED: "agent stopped without the job",
    LeaseEnd.AGENT_OFFLINE: "agent is offline beyond the grace",
    LeaseEnd.AGENT_DRAINS: "agent drains without the job",
    LeaseEnd.AGENT_DENIED: "agent is not allowed any more",
    LeaseEnd.AGENT_DIED: "agent started anew without the job",
    LeaseEnd.NEVER_TAKEN: "agent started anew, and had not said that it took the job",
    LeaseEnd.OFFERS_UNANSWERED: "agent beats and does not take the job",
    LeaseEnd.ATTEMPT_FAILED: "the attempt failed",
    LeaseEnd.JOB_CANCELLED: "cancelled by an operator",
    LeaseEnd.AUDIO_PURGED: "an operator purged the audio",
}


class LeaseAction(StrEnum):
    """What to do with a lease now."""

    KEEP = "keep"
    OFFER_AGAIN = "offer_again"
    REVOKE = "revoke"
    FAIL_ATTEMPT = "fail_attempt"
    """End it, and count an attempt: its agent worked on the job until the limit, and has no result."""


@dataclass(frozen=True)
class LeaseDecision:
    """What to do with a lease, and for a revocation why it ends."""

    action: LeaseAction
    end: LeaseEnd | None = None


WORKED_SHARE = 0.5  # of a lease's limit: an agent that had the job running for longer, without a result, has failed


def judge_lease(
    lease: LeaseView, agent: AgentPresence | None, now_s: float, rules: LeaseRules, *, is_allowed: bool = True
) -> LeaseDecision:
    """Decide whether a lease goes on.

    Args:
        lease: the lease, a current one.
        agent: its agent; None where no beat of it came since the bridge started.
        now_s: monotonic seconds.
        rules: the limits.
        is_allowed: whether the agent is on the allow-list.
    """
    if not is_allowed:
        return LeaseDecision(LeaseAction.REVOKE, LeaseEnd.AGENT_DENIED)
    limit_s = rules.limit_s(lease.expected_s)
    if now_s - lease.granted_s > limit_s:
        # A job that waited behind another on its agent, or whose agent slept, is no worse for it.
        if lease.worked_s > WORKED_SHARE * limit_s:
            return LeaseDecision(LeaseAction.FAIL_ATTEMPT, LeaseEnd.OVER_LIMIT)
        return LeaseDecision(LeaseAction.REVOKE, LeaseEnd.OVER_LIMIT)
    last_heard_s = max(lease.granted_s, agent.last_beat_s) if agent else lease.granted_s
    if now_s - last_heard_s > rules.stale_s:
        return LeaseDecision(LeaseAction.REVOKE, LeaseEnd.AGENT_STALE)
    if agent is None:
        return LeaseDecision(LeaseAction.KEEP)
    if agent.stopped and lease.unlisted_beats:
        return LeaseDecision(LeaseAction.REVOKE, LeaseEnd.AGENT_STOPPED)
    if agent.offline_s is not None and now_s - agent.offline_s > rules.grace_s:
        return LeaseDecision(LeaseAction.REVOKE, LeaseEnd.AGENT_OFFLINE)
    if lease.unlisted_beats >= rules.missed_beats:
        if agent.draining:
            return LeaseDecision(LeaseAction.REVOKE, LeaseEnd.AGENT_DRAINS)
        if lease.untaken_s > rules.take_s:
            return LeaseDecision(LeaseAction.REVOKE, LeaseEnd.OFFERS_UNANSWERED)
        return LeaseDecision(LeaseAction.OFFER_AGAIN)
    return LeaseDecision(LeaseAction.KEEP)


def judge_unlisted(*, is_same_process: bool, was_listed: bool) -> LeaseEnd | None:
    """Return why a lease ends whose agent's beat does not list its job, or None where the agent may still take it.

    Args:
        is_same_process: whether the beat comes from the process that got the lease.
        was_listed: whether the beat before listed the job. A job that no beat ever listed did not end the process.
    """
    if is_same_process:
        return None
    return LeaseEnd.AGENT_DIED if was_listed else LeaseEnd.NEVER_TAKEN


def is_exhausted(*, attempts: int, deaths: int, retryable: bool, counted: bool, rules: LeaseRules) -> bool:
    """Whether a job that just failed is given up.

    The failure says that no other attempt can succeed, or there were enough attempts, or enough agents' processes died
    with it.
    """
    is_hopeless = counted and not retryable
    return is_hopeless or attempts >= rules.max_attempts or deaths >= rules.max_deaths


AHEAD_JOBS = 2  # an agent works on one while it pulls the audio of the next
AHEAD_S = 0.5  # and holds more only while all of them take less: longer ones are left for other agents
ASSUMED_SPEED_X = 1.0  # of an agent that has not measured itself yet
SLOWEST_SPEED_X = 0.1  # one that claims to be slower would hold its jobs for as long as it liked


@dataclass(frozen=True)
class AgentCapacity:
    """An agent that could take a job now.

    `free`: its free places less what was granted and its last beat does not list. `held`: the leases it has, and
    `held_s` how long all of them will take it.
    """

    agent_id: str
    free: int
    speed_x_real_time: float
    embedding: tuple[str, str]
    held: int = 0
    held_s: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether it gets another job now. Jobs it would only hold are left for agents that have none."""
        return self.free > 0 and (self.held < AHEAD_JOBS or self.held_s < AHEAD_S)

    def ends_after_s(self, audio_s: float) -> float:
        """Return in how many seconds it would have done one more job of so much audio, after those it holds."""
        return self.held_s + expected_s(audio_s, self.speed_x_real_time)

    def take(self, audio_s: float) -> AgentCapacity:
        """Return the capacity that is left after one more job of so much audio."""
        return replace(self, free=self.free - 1, held=self.held + 1, held_s=self.ends_after_s(audio_s))


@dataclass(frozen=True)
class ReadyJob:
    """A job that waits.

    `embedding` is the model its conversation is pinned to, or None; `only_agent` the only agent that may have it.
    """

    job_id: str
    conversation_id: str
    order: int
    embedding: tuple[str, str] | None
    audio_s: float
    only_agent: str | None = None
    shuns: frozenset[str] = frozenset()
    """The agents that are not to get it, while others are up: see `avoid_failed`."""

    def fits(self, agent: AgentCapacity) -> bool:
        """Whether an agent could do it, free or not."""
        return self.embedding in (None, agent.embedding) and self.only_agent in (None, agent.agent_id)


def avoid_failed(job: ReadyJob, failed_by: frozenset[str], agents: Iterable[AgentCapacity]) -> ReadyJob:
    """Return a job that shuns the agents whose attempts at it came to nothing, where another that is up could do it.

    An engine that fails at once is always the one that is free: it would use up all attempts at every job, and no other
    agent would have one.
    """
    is_other = any(agent.agent_id not in failed_by and job.fits(agent) for agent in agents)
    return replace(job, shuns=failed_by) if is_other else job


def expected_s(audio_s: float, speed_x_real_time: float) -> float:
    """Return how long an agent will take for so much audio that says it has this speed."""
    return audio_s / max(speed_x_real_time or ASSUMED_SPEED_X, SLOWEST_SPEED_X)


def match_jobs(
    jobs: list[ReadyJob],
    agents: list[AgentCapacity],
    leased_by_conversation: dict[str, int],
    *,
    are_all: bool = False,
) -> list[tuple[str, str]]:
    """Return (job_id, agent_id) pairs: fair between conversations, oldest first within one, to whom ends it soonest.

    Fair: the next job is always of the conversation with the fewest leases, its oldest job before all. No agent is
    given more than keeps it busy (`AgentCapacity.is_free`).

    Args:
        jobs: those that wait, or as many of them as there may be grants.
        agents: those that are up, free or busy.
        leased_by_conversation: how many leases there are already.
        are_all: whether no other job waits. Then none is laid beside another one on an agent while a busy one would
            have done it sooner: the end of a backlog would wait for the slowest.
    """
    leased = dict(leased_by_conversation)
    able = {agent.agent_id: agent for agent in agents}
    pins: dict[str, tuple[str, str]] = {job.conversation_id: job.embedding for job in jobs if job.embedding}
    waiting: dict[str, deque[ReadyJob]] = {}
    for job in sorted(jobs, key=lambda job: job.order):
        waiting.setdefault(job.conversation_id, deque()).append(job)
    turns = [(leased.get(name, 0), queue[0].order, name) for name, queue in waiting.items()]
    heapq.heapify(turns)
    pairs: list[tuple[str, str]] = []
    while turns:
        count, _, conversation_id = heapq.heappop(turns)
        job = waiting[conversation_id].popleft()
        best = _choose_agent(job, able.values(), pins.get(conversation_id), are_all=are_all)
        if best is None:
            continue  # neither may the later jobs of its conversation go before it
        able[best.agent_id] = best.take(job.audio_s)
        if not best.is_free:
            continue  # it is left for this one, which will have done it sooner than any that is free now
        pins[conversation_id] = best.embedding
        pairs.append((job.job_id, best.agent_id))
        if waiting[conversation_id]:
            heapq.heappush(turns, (count + 1, waiting[conversation_id][0].order, conversation_id))
    return pairs


def _choose_agent(
    job: ReadyJob, agents: Iterable[AgentCapacity], pin: tuple[str, str] | None, *, are_all: bool
) -> AgentCapacity | None:
    """Return who would have done a job soonest of those that are free; a busy one where the job is left for it."""

    def in_order(agent: AgentCapacity) -> tuple[float, float, int, str]:
        return agent.ends_after_s(job.audio_s), -agent.speed_x_real_time, -agent.free, agent.agent_id

    fitting = [
        agent
        for agent in agents
        if agent.free > 0
        and pin in (None, agent.embedding)
        and job.only_agent in (None, agent.agent_id)
        and agent.agent_id not in job.shuns
    ]
    free = [agent for agent in fitting if agent.is_free]
    best = min(free, key=in_order, default=None)
    if best is None or not best.held or not are_all:
        return best
    soonest = min(fitting, key=in_order)
    if soonest.is_free:
        return soonest
    # An idle one begins at once: whether the busy one keeps its word nobody knows.
    return min((agent for agent in free if not agent.held), key=in_order, default=soonest)
