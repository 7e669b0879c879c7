"""Dispatch: leases for live agents, parts of audio for their holders, and heartbeats that reconcile both sides."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from functools import partial

import structlog

from schemas.agent import (
    MAX_JOB_CHUNKS,
    AgentControl,
    AgentHeartbeat,
    AgentState,
    AgentWant,
    ControlType,
    HeldJob,
    HeldJobState,
    OfferedChunk,
)
from schemas.audio import AudioPart
from schemas.conversation import Verdict
from schemas.failure import FailureCode, JobFailure
from schemas.record import MAX_DURATION_S
from schemas.topics import Topics
from vps_bridge.backoff import RetryTimer
from vps_bridge.dispatch.offer_times import ON_ITS_WAY_S, OfferTimes
from vps_bridge.dispatch.ready_jobs import find_ready_jobs, is_left_to_another
from vps_bridge.dispatch.roster import AgentRoster, AgentView
from vps_bridge.dispatch.wanted_parts import cut_ranges
from vps_bridge.durations import seconds
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import WITH_RESULT, JobState
from vps_bridge.ledger.records import JobChunk, JobRecord, LeaseRecord
from vps_bridge.moments import to_moment
from vps_bridge.publisher import Publisher
from vps_bridge.rules.lease import (
    AgentCapacity,
    LeaseAction,
    LeaseEnd,
    LeaseView,
    expected_s,
    is_exhausted,
    judge_lease,
    judge_unlisted,
    match_jobs,
)
from vps_bridge.rules.ownership import Owns, own_all
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
MAX_REASON_CHARS = 200
MAX_GRANTS_AT_ONCE = 100  # a fleet that comes back to a backlog gets it in several steps, and messages in between
AUDIO_CHANGED = "the audio was changed on the bridge's disk: look after the disk, publish it again under a new chunk_id"
AUDIO_GONE = "the audio was unlinked before it was diarized: publish it again under a new chunk_id"


class Dispatcher:
    """Grants, renews and revokes leases. Runs on the bridge's own thread only."""

    def __init__(
        self, settings: BridgeSettings, ledger: Ledger, spool: Spool, publisher: Publisher, *, owns: Owns = own_all
    ) -> None:
        """Work on this ledger and spool."""
        self._settings, self._ledger, self._spool, self._publisher = settings, ledger, spool, publisher
        self._topics, self._rules = Topics(settings.topic_root), settings.lease_rules
        self._owns, self.roster = owns, AgentRoster()
        self._up: list[AgentCapacity] = []  # at the last `tick`
        self.leaves_jobs = True
        """Whether there may be jobs that the last `tick` had no agent for."""
        self._newest_first = False  # every other time: else a backlog would hold up whoever comes after it (ADR 0040)
        self._granted_s: dict[str, float] = {}
        self._offers = OfferTimes()
        self._settled = RetryTimer(ON_ITS_WAY_S, ON_ITS_WAY_S)
        self._to_note: dict[str, AgentHeartbeat] = {}
        self._rests = RetryTimer(settings.retry_min_s, settings.retry_max_s)

    def take_heartbeat(self, heartbeat: AgentHeartbeat, now_s: float) -> None:
        """Take in a live heartbeat: compare the jobs it lists with the leases, and answer where they differ."""
        before = self.roster.get(heartbeat.agent_id)
        is_new_state = before is None or before.state is not heartbeat.state
        held_before = {job.lease_id for job in before.heartbeat.jobs} if before else set()
        view = self.roster.note_beat(heartbeat, now_s)
        if not self._owns(heartbeat.agent_id):
            return
        self._to_note[heartbeat.agent_id] = heartbeat
        if is_new_state:
            self.note_heartbeats()
            _LOG.info("agent_state", agent=heartbeat.agent_id, state=heartbeat.state)
        if heartbeat.state is AgentState.OFFLINE:
            return
        held = {(job.job_id, job.lease_id) for job in heartbeat.jobs}
        leases = self._ledger.leases.of_agent(heartbeat.agent_id)
        current = {(lease.job_id, lease.lease_id): lease for lease in leases}
        unlisted = []
        for key, lease in current.items():
            if key in held:
                continue
            is_same_process = lease.instance_id == heartbeat.instance_id
            end = judge_unlisted(is_same_process=is_same_process, was_listed=lease.lease_id in held_before)
            if end is not None:
                self._revoke(lease, end)
            elif not self._is_on_its_way(lease, heartbeat, now_s):
                unlisted.append(lease.lease_id)
        view.count_unlisted(unlisted)
        for job in heartbeat.jobs:
            self._offers.forget(job.lease_id)
            if (job.job_id, job.lease_id) not in current:
                self._reconcile_held(job, view)

    def _is_on_its_way(self, lease: LeaseRecord, heartbeat: AgentHeartbeat, now_s: float) -> bool:
        """Whether an offer may have come only after this beat was sent: its agent has more to do than to read."""
        return heartbeat.state is AgentState.ONLINE and self._offers.is_on_its_way(lease.lease_id, now_s)

    def note_heartbeats(self) -> None:
        """Write the latest heartbeat of each agent to the ledger for people to look at: not each one, they are many."""
        to_note, self._to_note = self._to_note, {}
        for agent_id, heartbeat in to_note.items():
            self._ledger.agents.note_heartbeat(agent_id, heartbeat.model_dump(mode="json", by_alias=True))

    def _reconcile_held(self, held: HeldJob, view: AgentView) -> None:
        """Answer an agent that lists a job under a lease which is not its current one.

        Not where a `settled` about this lease was sent just now: the agent may not have received it yet.
        """
        if not self._settled.is_due(held.lease_id, time.monotonic()):
            return
        agent_id, instance_id = view.heartbeat.agent_id, view.heartbeat.instance_id
        lease = self._ledger.leases.find(held.lease_id)
        job = self._ledger.jobs.get(held.job_id)
        if lease is None or job is None or (lease.agent_id, lease.job_id) != (agent_id, held.job_id):
            self._cancel(agent_id, held.job_id, held.lease_id, "unknown here")
        elif job.state in WITH_RESULT:
            self.settle(agent_id, held.job_id, held.lease_id, Verdict.DUPLICATE)
        elif job.state in (JobState.CANCELLED, JobState.FAILED):
            self._cancel(agent_id, held.job_id, held.lease_id, f"job is {job.state}")
        elif job.state is JobState.READY:
            is_allowed = agent_id in self._ledger.agents.allowed()
            embedding = view.embedding if view.heartbeat.engine else None
            if is_allowed and self._ledger.leases.give_back(lease, instance_id, embedding):
                self._granted_s[lease.lease_id] = view.last_beat_s
                view.worked_s.pop(lease.lease_id, None)
                _LOG.info("lease_given_back", job=held.job_id, agent=agent_id, conversation=job.conversation_id)
            elif held.state is not HeldJobState.OUTBOX:
                reason = lease.lease_end.description if lease.lease_end else "lease is over"
                self._cancel(agent_id, held.job_id, held.lease_id, reason)
        elif job.lease_id != held.lease_id and held.state is not HeldJobState.OUTBOX:  # a result counts from any lease
            self._cancel(agent_id, held.job_id, held.lease_id, "another agent has the job now")

    def tick(self, now_s: float, *, is_for_all: bool = True) -> frozenset[str]:
        """Judge the leases of our agents, then lease waiting jobs to those that are free; return the allow-list.

        Without `is_for_all` other bridges' conversations are left to them: they have the audio at hand.
        """
        allowed = self._ledger.agents.allowed()
        leases = self._ledger.leases.current()
        self._settled.keep_only(self._settled.resting(time.monotonic()))
        ours = [lease for lease in leases if self._owns(lease.agent_id)]
        leased = Counter(lease.conversation_id for lease in leases)
        self._granted_s = {lease.lease_id: self._granted_s.get(lease.lease_id, now_s) for lease in ours}
        self._offers.keep_only(self._granted_s)
        kept = [lease for lease in ours if not self._judge(lease, now_s, allowed)]
        leased -= Counter(lease.conversation_id for lease in ours if lease not in kept)
        everybody = self.roster.capacities(
            now_s, self._settings.stale_s, allowed, [(lease.agent_id, lease.lease_id, lease.audio_s) for lease in kept]
        )
        self._up = everybody
        self._grant_ready(everybody, leased, now_s, is_for_all=is_for_all)
        return allowed

    def _judge(self, lease: LeaseRecord, now_s: float, allowed: frozenset[str]) -> bool:
        """Apply the lease rules to one lease; return whether it was revoked."""
        agent = self.roster.get(lease.agent_id)
        unlisted = agent.unlisted_beats.get(lease.lease_id, 0) if agent else 0
        worked_s = agent.worked_s.get(lease.lease_id, 0.0) if agent else 0.0
        untaken_s, granted_s = self._offers.untaken_s(lease.lease_id, now_s), self._granted_s[lease.lease_id]
        lease_view = LeaseView(granted_s, self._expected_s(lease), unlisted, worked_s, untaken_s)
        presence, is_allowed = agent.presence if agent else None, lease.agent_id in allowed
        decision = judge_lease(lease_view, presence, now_s, self._rules, is_allowed=is_allowed)
        if decision.action is LeaseAction.FAIL_ATTEMPT:
            self._fail_attempt(lease, worked_s)
            return True
        if decision.end is not None:
            self._revoke(lease, decision.end)
            return True
        if decision.action is LeaseAction.OFFER_AGAIN and agent is not None:
            agent.unlisted_beats.pop(lease.lease_id, None)
            self._offer(lease, now_s)
        return False

    def _grant_ready(
        self, everybody: list[AgentCapacity], leased_by_conversation: dict[str, int], now_s: float, *, is_for_all: bool
    ) -> None:
        self.leaves_jobs = True
        agents = [agent for agent in everybody if self._owns(agent.agent_id)]
        free = [agent for agent in agents if agent.is_free]
        if not free:
            return
        embeddings = {agent.agent_id: agent.embedding for agent in free}
        limit = min(MAX_GRANTS_AT_ONCE, sum(agent.free for agent in free))
        found = find_ready_jobs(
            self._ledger,
            free,
            everybody,
            leased=set(leased_by_conversation),
            resting=self._rests.resting(now_s),
            limit=limit,
            newest_first=self._newest_first,
        )
        ready = [job for job in found if is_for_all or len(found) == limit or self._owns(job.conversation_id)]
        pairs = match_jobs(ready, agents, leased_by_conversation, are_all=len(found) < limit)
        self.leaves_jobs = len(pairs) < len(ready) or len(found) == limit
        if pairs:
            self._newest_first = not self._newest_first
        for job_id, agent_id in pairs:
            view = self.roster.get(agent_id)
            if view is None:
                continue
            lease = self._ledger.leases.grant(job_id, agent_id, view.heartbeat.instance_id, embeddings[agent_id])
            if lease is not None:
                self._granted_s[lease.lease_id] = now_s
                _LOG.info("lease_granted", job=job_id, agent=agent_id, conversation=lease.conversation_id)
                self._offer(lease, now_s)

    def _offer(self, lease: LeaseRecord, now_s: float) -> None:
        self._offers.note(lease.lease_id, now_s)
        chunks = self._ledger.jobs.chunks(lease.job_id)
        if any(item.chunk.spool_name is None for item in chunks):
            self.give_up(lease.job_id, FailureCode.PAYLOAD_INCOMPLETE, AUDIO_GONE)
            return
        if len(chunks) > MAX_JOB_CHUNKS:
            words = f"{len(chunks)} chunks do not fit an offer: publish chunks of a second or longer"
            self.give_up(lease.job_id, FailureCode.PAYLOAD_MALFORMED, words)
            return
        offer = AgentControl(
            type=ControlType.OFFER,
            ledger_id=self._ledger.ledger_id,
            job_id=lease.job_id,
            lease_id=lease.lease_id,
            conversation_id=lease.conversation_id,
            attempt=lease.attempts + 1,
            expected_s=self._expected_s(lease),
            max_speakers=lease.max_speakers,
            chunks=tuple(_offered(item) for item in chunks),
        )
        self._publisher.send(self._topics.control(lease.agent_id), offer)

    def _expected_s(self, lease: LeaseRecord) -> float:
        view = self.roster.get(lease.agent_id)
        return min(MAX_DURATION_S, expected_s(lease.audio_s, view.heartbeat.speed_x_real_time if view else 0.0))

    def take_want(self, agent_id: str, want: AgentWant) -> None:
        """Send the parts an agent asked for, if it holds the current lease of that job."""
        lease = self._ledger.leases.find(want.lease_id)
        if lease is None or (lease.agent_id, lease.job_id) != (agent_id, want.job_id):
            self._cancel(agent_id, want.job_id, want.lease_id, "unknown lease")
            return
        if not lease.is_current or agent_id not in self._ledger.agents.allowed():
            self._cancel(agent_id, want.job_id, want.lease_id, "lease is over")
            return
        chunk = self._ledger.jobs.find_chunk(want.job_id, want.chunk_id)
        if chunk is None or chunk.spool_name is None:
            _LOG.warning("want_unknown_chunk", job=want.job_id, agent=agent_id, chunk=want.chunk_id)
            return
        if not self._spool.is_at_hand(chunk, partial(self.take_want, agent_id, want)):
            return
        for span in cut_ranges(want.ranges, self._settings.part_bytes, chunk.bytes):
            try:
                audio = self._spool.read(chunk.spool_name, span.start, span.end)
            except FileNotFoundError:
                self._cancel(agent_id, want.job_id, want.lease_id, "the audio is gone")
                self.give_up(want.job_id, FailureCode.PAYLOAD_INCOMPLETE, AUDIO_GONE)
                return
            if len(audio) < span.end - span.start:  # cut off on the disk: the agent would ask for the rest for ever
                self._cancel(agent_id, want.job_id, want.lease_id, "the audio is cut off")
                self.give_up(want.job_id, FailureCode.PAYLOAD_SHA256_MISMATCH, AUDIO_CHANGED)
                return
            part = AudioPart(
                job_id=want.job_id,
                lease_id=want.lease_id,
                chunk_id=want.chunk_id,
                byte_offset=span.start,
                total_bytes=chunk.bytes,
                part_sha256=hashlib.sha256(audio).hexdigest(),
                audio=audio,
            )
            self._publisher.send_ahead(self._topics.parts(lease.conversation_id, agent_id), part)

    def settle(self, agent_id: str, job_id: str, lease_id: str, verdict: Verdict, reason: str | None = None) -> None:
        """Send an agent the receipt of its result or failure: it may forget the job now."""
        control = AgentControl(
            type=ControlType.SETTLED,
            ledger_id=self._ledger.ledger_id,
            job_id=job_id,
            lease_id=lease_id,
            verdict=verdict,
            reason=reason,
        )
        self._publisher.send(self._topics.control(agent_id), control)
        self._settled.take(lease_id, time.monotonic())

    def cancel(self, leases: tuple[LeaseRecord, ...]) -> None:
        """Send a cancellation to the holders of these leases: they stop and unlink the audio."""
        for lease in leases:
            self._cancel(lease.agent_id, lease.job_id, lease.lease_id, "deleted")

    def judge_failed(self, job: JobRecord, *, retryable: bool, counted: bool) -> None:
        """Give up a job that just failed, if the rules say so; else it waits a little before another attempt."""
        if job.failure_code == FailureCode.PAYLOAD_SHA256_MISMATCH and not self._is_audio_sound(job.job_id):
            self.give_up(job.job_id, FailureCode.PAYLOAD_SHA256_MISMATCH, AUDIO_CHANGED)
            return
        if not self._give_up_exhausted(job, retryable=retryable, counted=counted):
            self._rests.take(job.job_id, time.monotonic())

    def leaves_to_another(self, job: JobRecord, failed_now: frozenset[str] = frozenset()) -> bool:
        """Whether an agent that was up at the last `tick` could do a job at which others, and `failed_now`, failed."""
        return is_left_to_another(self._ledger, job, failed_now, self._up)

    def _is_audio_sound(self, job_id: str) -> bool:
        """Whether the spool still holds what was accepted. If not, another attempt would get the same wrong bytes."""
        return all(self._spool.is_sound(item.chunk) for item in self._ledger.jobs.chunks(job_id))

    def _give_up_exhausted(self, job: JobRecord, *, retryable: bool, counted: bool) -> bool:
        exhausted = is_exhausted(
            attempts=job.attempts,
            deaths=job.deaths,
            is_hopeless=counted and not retryable and not self.leaves_to_another(job),
            rules=self._rules,
        )
        if exhausted:
            code = job.failure_code or FailureCode.LEASE_LOST
            self.give_up(job.job_id, code, job.failure_message or "the agent's process died with this job every time")
        return exhausted

    def give_up(self, job_id: str, code: str, message: str) -> None:
        """End a job as failed, and publish the failure under the bridge's own id."""
        job = self._ledger.jobs.get(job_id)
        if job is None or not self._ledger.jobs.give_up(job_id, code, message):
            return
        self._rests.reset(job_id)
        _LOG.error("job_failed", job=job_id, conversation=job.conversation_id, code=code, attempts=job.attempts)
        failure = JobFailure(
            conversation_id=job.conversation_id, job_id=job_id, attempt=job.attempts, code=code, message=message
        )
        self._publisher.send(self._topics.failure(job.conversation_id, self._settings.bridge_id), failure)

    def _revoke(self, lease: LeaseRecord, end: LeaseEnd) -> None:
        job = self._ledger.leases.end(lease.lease_id, end)
        if job is None:
            return
        if not end.may_return:
            self._cancel(lease.agent_id, lease.job_id, lease.lease_id, end.description)
        _LOG.warning(
            "lease_revoked",
            job=lease.job_id,
            agent=lease.agent_id,
            conversation=lease.conversation_id,
            reason=end.description,
        )
        self._give_up_exhausted(job, retryable=True, counted=False)

    def _fail_attempt(self, lease: LeaseRecord, worked_s: float) -> None:
        """End a lease whose agent worked on its job until the limit, as an attempt that failed."""
        job_id, agent_id = lease.job_id, lease.agent_id
        words = (
            f"agent {agent_id} worked on it for {seconds(worked_s)} and had no result when its lease ended: look at "
            f"its log (omi-agent logs), then: omi-bridge retry {job_id}"
        )
        job = self._ledger.jobs.note_failure(job_id, FailureCode.ENGINE_OVER_LIMIT, words, counted=True)
        self._cancel(agent_id, job_id, lease.lease_id, LeaseEnd.OVER_LIMIT.description)
        _LOG.warning("attempt_over_limit", job=job_id, agent=agent_id, conversation=lease.conversation_id)
        if job is not None:
            self.judge_failed(job, retryable=True, counted=True)

    def _cancel(self, agent_id: str, job_id: str, lease_id: str, reason: str) -> None:
        control = AgentControl(
            type=ControlType.CANCEL,
            ledger_id=self._ledger.ledger_id,
            job_id=job_id,
            lease_id=lease_id,
            reason=reason[:MAX_REASON_CHARS],
        )
        self._publisher.send(self._topics.control(agent_id), control)


def _offered(item: JobChunk) -> OfferedChunk:
    chunk = item.chunk
    return OfferedChunk(
        chunk_id=chunk.chunk_id,
        bytes=chunk.bytes,
        sha256=chunk.sha256,
        encoding=chunk.encoding,
        sample_rate=chunk.sample_rate,
        channels=chunk.channels,
        start_s=item.start_s,
        captured_at=None if chunk.captured_at_s is None else to_moment(chunk.captured_at_s),
    )
