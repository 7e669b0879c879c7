"""The lease rules as a whole: the real dispatcher, results and ledger through every order of beats, silence, wills,
restarts, failures and results, on a clock of their own, held against a model of what the design promises."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.agent import AgentControl, AgentHeartbeat, AgentState, ControlType, HeldJob, HeldJobState
from schemas.codec import encode
from schemas.conversation import Verdict
from schemas.failure import FailureCode, JobFailure, policy_of
from schemas.turns import ChunkSpan, SpeakerTurns
from tests.ledger_switch import copy_ledger
from tests.vps_bridge.dispatch.lease_model import (
    AGENTS,
    AUDIO_S,
    CODES,
    ENGINE,
    GRACE_S,
    LIMIT_S,
    MAX_ATTEMPTS,
    MAX_DEATHS,
    PLACES,
    STALE_S,
    TOPICS,
    UNRETURNABLE,
    ModelAgent,
    SimulatedWire,
    bridge_settings,
    three_jobs,
)
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.dispatch.results import Results
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """No line of log for each of many thousand leases."""
    with structlog.testing.capture_logs() as lines:
        yield
        lines.clear()


class Leases(RuleBasedStateMachine):
    """State × event × time."""

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")  # every transaction is flushed: a memory disk makes that cheap
        self.home = Path(tempfile.mkdtemp(prefix="omi-leases-", dir=shm if shm.is_dir() else None))
        self.now_s = 1e9  # ahead of the real clock, by which failed jobs rest
        self.agents = {name: ModelAgent(name) for name in AGENTS}
        self.attempts: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.listed: dict[str, set[str]] = {}
        self.hopeless: dict[str, set[str]] = {}
        """By job, the agents that said that no attempt at it can succeed."""
        self.stored: set[str] = set()
        self.granted: dict[str, tuple[str, str]] = {}
        self.fresh_s: dict[str, float] = {}
        self.signs_s: dict[str, float] = {}
        self.wills_s: dict[str, float] = {}

    @initialize()
    def begin(self) -> None:
        self.settings = bridge_settings(self.home)
        copy_ledger(three_jobs(), self.settings.root)
        self.ledger = Ledger(self.settings.root, exclusive=True)
        self.jobs = {job.job_id: job for job in self.ledger.jobs.all()}
        self.conversations = {job.job_id: job.conversation_id for job in self.jobs.values()}
        self.wire = SimulatedWire()
        self.start_bridge()

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
        shutil.rmtree(self.home, ignore_errors=True)

    # ------------------------------------------------------------------------------------------ events

    @rule()
    def start_bridge(self) -> None:
        """The bridge's memory of agents and deadlines is gone; the ledger is not."""
        self.dispatcher = Dispatcher(self.settings, self.ledger, Spool(self.home / "spool"), self.wire)  # type: ignore[arg-type]
        self.results = Results(self.ledger, self.dispatcher, self.settings.max_audio_s)
        self.signs_s, self.wills_s, self.listed = {}, {}, {}
        for agent in self.agents.values():
            agent.worked_s, agent.running = {}, set()
        self.fresh_s = dict.fromkeys(self.current(), self.now_s)
        self.tick()

    @rule(seconds=st.floats(0.1, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.tick()

    @rule(name=st.sampled_from(AGENTS))
    def beat(self, name: str) -> None:
        """A live beat. Whoever still holds a job whose lease was only lost has it back."""
        agent = self.agents[name]
        held = {**agent.outbox, **agent.held}
        if agent.connected_as != agent.instance:
            gone = self.listed.get(name, set()) - set(held.values())
            self.deaths.update(job_id for lease_id, job_id in self.current().items() if lease_id in gone)
            agent.worked_s, agent.running = {}, set()
        self.note_work(agent, set(held.values()))
        agent.connected_as = agent.instance
        self.listed[name] = set(held.values())
        self.signs_s[name] = self.now_s
        self.wills_s.pop(name, None)
        allowed = name in self.ledger.agents.allowed()
        returning = {
            job_id: lease_id for job_id, lease_id in held.items() if allowed and self.is_lost(job_id, lease_id)
        }
        self.dispatcher.take_heartbeat(self.heartbeat(agent, AgentState.ONLINE), self.now_s)
        current = self.current()
        for job_id, lease_id in returning.items():
            assert current.get(lease_id) == job_id, "an agent that comes back holding the job gets its lease back"
            self.fresh_s[lease_id] = self.now_s
            agent.worked_s.pop(lease_id, None)
        self.tick()

    def note_work(self, agent: ModelAgent, listed: set[str]) -> None:
        """What a beat says of work: the time since the one before, of a job that both list as running."""
        running = set(list(agent.held.values())[:1])
        pause_s = self.now_s - self.signs_s.get(agent.agent_id, self.now_s)
        agent.worked_s = {
            lease_id: agent.worked_s.get(lease_id, 0.0) + (pause_s if lease_id in running & agent.running else 0.0)
            for lease_id in listed
        }
        agent.running = running

    @rule(name=st.sampled_from(AGENTS))
    def will(self, name: str) -> None:
        if name in self.signs_s and name not in self.wills_s:
            self.wills_s[name] = self.now_s
        self.dispatcher.take_heartbeat(self.heartbeat(self.agents[name], AgentState.OFFLINE), self.now_s)

    @rule(name=st.sampled_from(AGENTS))
    def listen(self, name: str) -> None:
        """The agent reads what the bridge said to it, in order."""
        agent = self.agents[name]
        for topic, message in self.wire.said[agent.read :]:
            if topic == TOPICS.control(name) and isinstance(message, AgentControl):
                self.obey(agent, message)
        agent.read = len(self.wire.said)

    def obey(self, agent: ModelAgent, word: AgentControl) -> None:
        job_id, lease_id = word.job_id or "", word.lease_id or ""
        if word.type is ControlType.OFFER and job_id not in agent.outbox:
            agent.held[job_id] = lease_id
        elif word.type is not ControlType.OFFER:
            if agent.held.get(job_id) == lease_id:
                del agent.held[job_id]
            agent.outbox.pop(job_id, None)

    @rule(name=st.sampled_from(AGENTS), beats=st.integers(1, 5), pause_s=st.floats(5.0, 29.0))
    def work_on(self, name: str, beats: int, pause_s: float) -> None:
        """Nothing goes wrong for a while, but for what the others do not do."""
        for _ in range(beats):
            self.listen(name)
            self.time_passes(pause_s)
            self.beat(name)

    @rule(name=st.sampled_from(AGENTS), lives=st.integers(1, 3))
    def die_again_and_again(self, name: str, lives: int) -> None:
        for _ in range(lives):
            self.listen(name)
            self.beat(name)
            self.agent_dies_and_starts(name)
            self.beat(name)

    @rule(name=st.sampled_from(AGENTS), seconds=st.floats(15.0, 29.0))
    def vanish_for_a_while(self, name: str, seconds: float) -> None:
        """A will, and then less silence than makes stale."""
        self.beat(name)
        self.will(name)
        self.time_passes(seconds)

    @rule(name=st.sampled_from(AGENTS))
    def lose_what_was_said(self, name: str) -> None:
        self.agents[name].read = len(self.wire.said)

    @rule(name=st.sampled_from(AGENTS))
    def agent_dies_and_starts(self, name: str) -> None:
        """Only its outbox survives."""
        agent = self.agents[name]
        agent.instance += 1
        agent.held.clear()
        agent.read = len(self.wire.said)

    @rule(name=st.sampled_from(AGENTS), allowed=st.booleans())
    def allow(self, name: str, allowed: bool) -> None:
        self.ledger.agents.set_allowed(name, allowed=allowed)
        self.tick()

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def result(self, data: st.DataObject) -> None:
        """A result under any lease that was ever granted, early, late or twice."""
        lease_id = self.draw_lease(data)
        job_id, name = self.granted[lease_id]
        before = len(self.wire.said)
        conversation_id = self.conversation(job_id)
        self.agents[name].held.pop(job_id, None)
        self.agents[name].outbox[job_id] = lease_id
        self.results.take_turns(conversation_id, name, encode(self.turns(job_id, lease_id, name)))
        expected = Verdict.DUPLICATE if job_id in self.stored else Verdict.STORED
        assert self.settled(before, lease_id) is expected, "results count from any lease ever granted, once"
        self.stored.add(job_id)
        assert self.state(job_id) is JobState.TURNS_STORED

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), code=st.sampled_from(CODES), retryable=st.booleans())
    def failure(self, data: st.DataObject, code: FailureCode, retryable: bool) -> None:
        """A failure under any lease that was ever granted; only the current one is believed."""
        lease_id = self.draw_lease(data)
        job_id, name = self.granted[lease_id]
        is_current = lease_id in self.current()
        if is_current and policy_of(code).counts_as_attempt:
            self.attempts[job_id] += 1
            if not retryable:
                self.hopeless.setdefault(job_id, set()).add(name)
        old = self.ledger.jobs.get(job_id)
        before = len(self.wire.said)
        failure = JobFailure(
            conversation_id=self.conversation(job_id),
            job_id=job_id,
            lease_id=lease_id,
            code=code,
            retryable=retryable,
            message="as the test told it",
        )
        self.agents[name].held.pop(job_id, None)
        self.results.take_failure(self.conversation(job_id), name, encode(failure))
        assert self.settled(before, lease_id) is (Verdict.STORED if is_current else Verdict.DISCARDED)
        if not is_current:
            assert self.ledger.jobs.get(job_id) == old, "failures count only from the current lease"
        self.tick()

    def draw_lease(self, data: st.DataObject) -> str:
        """A lease that was ever granted; every other time a current one. Ids are random, the order of grants is not."""
        current = [lease_id for lease_id in self.granted if lease_id in self.current() and data.draw(st.booleans())]
        return data.draw(st.sampled_from(current or list(self.granted)))

    @rule(name=st.sampled_from(AGENTS), guess=st.sampled_from(["0" * 32, "f" * 32]))
    def result_under_no_lease(self, name: str, guess: str) -> None:
        job_id = next(iter(self.jobs))
        old = self.ledger.jobs.get(job_id)
        self.results.take_turns(self.conversation(job_id), name, encode(self.turns(job_id, guess, name)))
        assert self.ledger.jobs.get(job_id) == old

    # --------------------------------------------------------------------------------------- promises

    @invariant()
    def what_the_ledger_says_is_as_promised(self) -> None:
        if not hasattr(self, "ledger"):
            return
        current = self.current()
        assert len(set(current.values())) == len(current), "one job, one lease"
        for job in self.ledger.jobs.all():
            attempts = self.attempts[job.job_id]
            assert (job.state is JobState.LEASED) == (job.job_id in current.values())
            assert job.attempts == attempts, "attempts are failures that count, and limits worked to; a loss is none"
            assert job.deaths == self.deaths[job.job_id], "a death is one of who had said that it holds the job"
            is_spent, hopeless = attempts >= MAX_ATTEMPTS or job.deaths >= MAX_DEATHS, self.hopeless.get(job.job_id, ())
            if job.job_id in self.stored:
                assert job.state is JobState.TURNS_STORED
            elif job.state is JobState.FAILED:
                assert is_spent or hopeless, "it ends by rule, and only so"
            else:
                assert not is_spent
                assert set(hopeless) < set(AGENTS), "no agent is left that could do it"

    def tick(self) -> None:
        """What the bridge does every half second, and what must hold after it."""
        before = self.current()
        said = len(self.wire.said)
        self.count_limits(before)
        self.dispatcher.tick(self.now_s)
        current = self.current()
        for lease_id in set(current) - set(before):
            self.fresh_s[lease_id] = self.now_s
        self.check_offers(said, current)
        for lease in self.ledger.leases.current():
            fresh_s = self.fresh_s.get(lease.lease_id, self.now_s)
            sign_s = max(fresh_s, self.signs_s.get(lease.agent_id, 0.0))
            assert self.now_s - fresh_s <= LIMIT_S + 1e-6, "never past the absolute limit"
            assert self.now_s - sign_s <= STALE_S + 1e-6
            if lease.agent_id in self.wills_s:
                assert self.now_s - self.wills_s[lease.agent_id] <= GRACE_S + 1e-6
        for lease_id in set(before) - set(current):
            ended = self.ledger.leases.find(lease_id)
            assert ended is not None
            assert ended.lease_end is not None
            assert ended.lease_end.may_return == (ended.lease_end not in UNRETURNABLE)

    def count_limits(self, current: dict[str, str]) -> None:
        """A lease over its limit is an attempt where its agent, by its beats, worked on it for most of the time."""
        allowed = self.ledger.agents.allowed()
        for lease_id, job_id in current.items():
            lease = self.ledger.leases.find(lease_id)
            assert lease is not None
            over = self.now_s - self.fresh_s.get(lease_id, self.now_s) > LIMIT_S
            worked_s = self.agents[lease.agent_id].worked_s.get(lease_id, 0.0)
            self.attempts[job_id] += over and lease.agent_id in allowed and worked_s > LIMIT_S / 2

    def check_offers(self, said: int, current: dict[str, str]) -> None:
        allowed = self.ledger.agents.allowed()
        for topic, message in self.wire.said[said:]:
            if isinstance(message, AgentControl) and message.type is ControlType.OFFER:
                name = topic.split("/")[-2]
                assert name in allowed, "audio goes to nobody who is not allowed"
                assert name not in self.wills_s
                assert self.now_s - self.signs_s[name] <= STALE_S
                assert current[message.lease_id or ""] == message.job_id
                self.granted[message.lease_id or ""] = (message.job_id or "", name)

    # ------------------------------------------------------------------------------------- looking on

    def current(self) -> dict[str, str]:
        return {lease.lease_id: lease.job_id for lease in self.ledger.leases.current()}

    def state(self, job_id: str) -> JobState | None:
        job = self.ledger.jobs.get(job_id)
        return job.state if job else None

    def conversation(self, job_id: str) -> str:
        return self.conversations[job_id]

    def is_lost(self, job_id: str, lease_id: str) -> bool:
        """Whether the lease was lost for a reason that is no fault, and nobody has the job since."""
        lease = self.ledger.leases.find(lease_id)
        is_lost = lease is not None and lease.lease_end is not None and lease.lease_end.may_return
        return is_lost and self.state(job_id) is JobState.READY

    def settled(self, since: int, lease_id: str) -> Verdict | None:
        words = [m for _, m in self.wire.said[since:] if isinstance(m, AgentControl) and m.lease_id == lease_id]
        return next((word.verdict for word in words if word.type is ControlType.SETTLED), None)

    def heartbeat(self, agent: ModelAgent, state: AgentState) -> AgentHeartbeat:
        now = datetime.now(UTC)
        gone = state is AgentState.OFFLINE
        held = [
            HeldJob(job_id=j, lease_id=x, state=HeldJobState.QUEUED if place else HeldJobState.RUNNING)
            for place, (j, x) in enumerate(agent.held.items())
        ]
        held += [HeldJob(job_id=j, lease_id=x, state=HeldJobState.OUTBOX) for j, x in agent.outbox.items()]
        return AgentHeartbeat(
            agent_id=agent.agent_id,
            instance_id=agent.instance_id(agent.connected_as if gone else agent.instance),
            state=state,
            sent_at=now,
            started_at=now,
            engine=ENGINE,
            jobs=() if gone else tuple(held),
            free_capacity=0 if gone else max(0, PLACES - len(agent.held)),
            speed_x_real_time=1.0,
        )

    def turns(self, job_id: str, lease_id: str, name: str) -> SpeakerTurns:
        return SpeakerTurns(
            conversation_id=self.conversation(job_id),
            job_id=job_id,
            lease_id=lease_id,
            agent_id=name,
            engine=ENGINE,
            duration_s=AUDIO_S,
            chunks=tuple(
                ChunkSpan(chunk_id=item.chunk.chunk_id, start_s=item.start_s or 0.0, duration_s=AUDIO_S)
                for item in self.ledger.jobs.chunks(job_id)
            ),
            turns=(),
            exclusive_turns=(),
            speakers=(),
        )


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}
TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=10, stateful_step_count=12, **QUIET)  # type: ignore[arg-type]


@pytest.mark.slow
class TestLeasesAtLength(Leases.TestCase):  # type: ignore[misc,valid-type] # hypothesis makes the class
    settings = settings(max_examples=150, stateful_step_count=30, **QUIET)  # type: ignore[arg-type]
