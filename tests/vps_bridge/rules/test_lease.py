"""The lease rules: pure, so every rule is checked over all times and all orders of beats."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.failure import FailureCode, policy_of
from vps_bridge.rules.lease import (
    AHEAD_JOBS,
    AHEAD_S,
    SLOWEST_SPEED_X,
    AgentCapacity,
    AgentPresence,
    LeaseAction,
    LeaseEnd,
    LeaseRules,
    LeaseView,
    ReadyJob,
    avoid_failed,
    expected_s,
    is_exhausted,
    judge_lease,
    match_jobs,
)

RULES = LeaseRules()
SECONDS = st.floats(0, 10_000)


@given(granted_s=SECONDS, expected_s=st.floats(0, 600), over_s=st.floats(0.001, 1_000), unlisted=st.integers(0, 9))
def test_no_lease_lives_past_the_absolute_limit_however_its_agent_beats(granted_s, expected_s, over_s, unlisted):
    now_s = granted_s + 10 * expected_s + 600 + over_s
    verdict = judge_lease(LeaseView(granted_s, expected_s, unlisted), AgentPresence(now_s), now_s, RULES)
    assert (verdict.action, verdict.end) == (LeaseAction.REVOKE, LeaseEnd.OVER_LIMIT)
    assert not LeaseEnd.OVER_LIMIT.may_return


@given(expected_s=st.floats(0, 600), worked_share=st.floats(0, 1), over_s=st.floats(0.001, 1_000))
def test_a_lease_over_its_limit_is_a_failed_attempt_only_where_its_job_ran_for_most_of_it(
    expected_s, worked_share, over_s
):
    limit_s = 10 * expected_s + 600
    now_s = limit_s + over_s
    lease = LeaseView(0.0, expected_s, worked_s=worked_share * limit_s)
    verdict = judge_lease(lease, AgentPresence(now_s), now_s, RULES)
    assert verdict.end is LeaseEnd.OVER_LIMIT
    assert (verdict.action is LeaseAction.FAIL_ATTEMPT) == (worked_share * limit_s > limit_s / 2)
    soon = judge_lease(lease, AgentPresence(limit_s), limit_s, RULES)
    assert soon.action is LeaseAction.KEEP


def test_an_agent_cannot_lengthen_its_leases_by_claiming_to_be_slow():
    assert expected_s(60.0, 1e-9) == expected_s(60.0, SLOWEST_SPEED_X) == 600.0
    assert expected_s(60.0, 0.0) == 60.0, "it has not measured itself yet"


@given(granted_s=SECONDS, silent_s=st.floats(0, 500), heard=st.booleans())
def test_a_lease_lives_while_its_agent_was_heard_within_the_stale_time(granted_s, silent_s, heard):
    agent = AgentPresence(granted_s) if heard else None
    verdict = judge_lease(LeaseView(granted_s, 60.0), agent, granted_s + silent_s, RULES)
    silent_s = (granted_s + silent_s) - granted_s  # as the clock can tell it
    assert (verdict.action is LeaseAction.REVOKE) == (silent_s > RULES.stale_s)
    assert verdict.end in (None, LeaseEnd.AGENT_STALE)
    assert LeaseEnd.AGENT_STALE.may_return


@given(offline_s=st.floats(0, 29), later_s=st.floats(0, 60))
def test_a_will_ends_a_lease_only_beyond_the_grace(offline_s, later_s):
    rules = replace(RULES, stale_s=1_000.0)
    agent = AgentPresence(0.0, offline_s=offline_s)
    now_s = offline_s + later_s
    verdict = judge_lease(LeaseView(0.0, 60.0), agent, now_s, rules)
    assert (verdict.action is LeaseAction.REVOKE) == (now_s - offline_s > rules.grace_s)


def test_an_agent_that_stops_loses_what_it_does_not_list_and_keeps_what_it_does():
    stopped = AgentPresence(1.0, stopped=True)
    assert judge_lease(LeaseView(0.0, 60.0, 1), stopped, 1.0, RULES).action is LeaseAction.REVOKE
    assert judge_lease(LeaseView(0.0, 60.0, 0), stopped, 1.0, RULES).action is LeaseAction.KEEP


@given(unlisted=st.integers(0, 10))
def test_a_job_that_two_beats_do_not_list_is_offered_again_unless_its_agent_drains(unlisted):
    lease = LeaseView(0.0, 60.0, unlisted)
    online = judge_lease(lease, AgentPresence(1.0), 1.0, RULES).action
    draining = judge_lease(lease, AgentPresence(1.0, draining=True), 1.0, RULES).action
    assert online is (LeaseAction.OFFER_AGAIN if unlisted >= 2 else LeaseAction.KEEP)
    assert draining is (LeaseAction.REVOKE if unlisted >= 2 else LeaseAction.KEEP)


def test_only_what_audio_or_engine_did_counts_as_an_attempt():
    counted = {code for code in FailureCode if policy_of(code).counts_as_attempt}
    assert FailureCode.LEASE_LOST not in counted
    assert {FailureCode.ENGINE_CRASHED, FailureCode.ENGINE_TIMEOUT, FailureCode.AUDIO_UNDECODABLE} <= counted
    assert not any(code.startswith(("payload.", "ingest.", "lease.", "schema.", "disk.")) for code in counted)
    assert not policy_of("a.code_of_tomorrow").counts_as_attempt


@given(attempts=st.integers(0, 9), deaths=st.integers(0, 9), hopeless=st.booleans())
def test_a_job_is_given_up_after_its_attempts_or_five_deaths_or_when_hopeless(attempts, deaths, hopeless):
    exhausted = is_exhausted(attempts=attempts, deaths=deaths, is_hopeless=hopeless, rules=RULES)
    assert exhausted == (attempts >= 3 or deaths >= 5 or hopeless)


class LeaseLife(RuleBasedStateMachine):
    """One lease through beats, silence, wills and returns: it never outlives what the rules promise."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = self.granted_s = self.heard_s = 0.0
        self.offline_s: float | None = None
        self.unlisted = 0
        self.leased = True

    @rule(seconds=st.floats(0.1, 25))
    def time_passes(self, seconds):
        self.now_s += seconds
        verdict = judge_lease(
            LeaseView(self.granted_s, 1.0, self.unlisted),
            AgentPresence(self.heard_s, self.offline_s),
            self.now_s,
            replace(RULES, limit_floor_s=100.0),
        )
        self.leased = self.leased and verdict.action is not LeaseAction.REVOKE

    @rule(listed=st.booleans())
    def beat(self, listed):
        self.heard_s, self.offline_s = self.now_s, None
        self.unlisted = 0 if listed else self.unlisted + 1

    @precondition(lambda self: self.offline_s is None)
    @rule()
    def will(self):
        self.offline_s = self.now_s

    @precondition(lambda self: not self.leased)
    @rule()
    def returned(self):
        """What a give-back does: a fresh deadline, from a beat that was just heard."""
        self.granted_s = self.heard_s = self.now_s
        self.offline_s, self.unlisted, self.leased = None, 0, True

    @invariant()
    def lives_within_its_times(self):
        if self.leased:
            last_sign_s = max(self.heard_s, self.granted_s)
            assert self.now_s - last_sign_s <= RULES.stale_s
            assert self.now_s - self.granted_s <= 10 * 1.0 + 100.0
            assert self.offline_s is None or self.now_s - self.offline_s <= RULES.grace_s


TestLeaseLife = LeaseLife.TestCase

MODELS = (("a", "1"), ("b", "1"))
JOBS = st.lists(st.tuples(st.sampled_from(["c1", "c2", "c3"]), st.sampled_from([None, *MODELS])), max_size=12).map(
    lambda drawn: [
        # a conversation is pinned to one model, so all its jobs say the same
        ReadyJob(f"j{place}", name, place, next(pin for other, pin in drawn if other == name), audio_s=place * 7 % 90)
        for place, (name, _) in enumerate(drawn)
    ]
)
AGENTS = st.lists(
    st.tuples(
        st.integers(-1, 8), st.floats(0, 1_000), st.sampled_from(MODELS), st.integers(0, 4), st.floats(0, 2 * AHEAD_S)
    ),
    max_size=4,
).map(lambda drawn: [AgentCapacity(f"w{place}", *facts) for place, facts in enumerate(drawn)])
LEASED = st.dictionaries(st.sampled_from(["c1", "c2", "c3"]), st.integers(0, 3))


@given(jobs=JOBS, agents=AGENTS, leased=LEASED)
def test_matching_respects_places_and_pinned_models_and_wastes_nothing(jobs, agents, leased):
    pairs = match_jobs(jobs, agents, leased)
    by_id, by_agent = {job.job_id: job for job in jobs}, {agent.agent_id: agent for agent in agents}
    assert len({job_id for job_id, _ in pairs}) == len(pairs)
    used = [agent_id for _, agent_id in pairs]
    assert all(used.count(agent_id) <= max(0, agent.free) for agent_id, agent in by_agent.items())
    models: dict[str, set[tuple[str, str]]] = {}
    for job_id, agent_id in pairs:
        job = by_id[job_id]
        models.setdefault(job.conversation_id, {job.embedding} if job.embedding else set())
        models[job.conversation_id].add(by_agent[agent_id].embedding)
    assert all(len(found) == 1 for found in models.values()), "one conversation, one model"
    left = [job for job in jobs if job.job_id not in {job_id for job_id, _ in pairs}]
    for agent in agents:
        for job_id, agent_id in pairs:
            if agent_id == agent.agent_id:
                assert agent.is_free, "given more than it needs"
                agent = agent.take(by_id[job_id].audio_s)  # noqa: PLW2901 - the same agent, with one more job
        if agent.is_free:
            pins = {job.conversation_id: models.get(job.conversation_id, {job.embedding}) for job in left}
            assert all(agent.embedding not in pin and None not in pin for pin in pins.values()), "idle beside work"


@given(jobs=JOBS, agents=AGENTS, leased=LEASED)
def test_within_a_conversation_the_oldest_job_goes_first(jobs, agents, leased):
    given_out = {job_id for job_id, _ in match_jobs(jobs, agents, leased)}
    for name in ("c1", "c2", "c3"):
        mine = [job.job_id in given_out for job in jobs if job.conversation_id == name]
        assert mine == sorted(mine, reverse=True)


@given(counts=st.lists(st.integers(1, 8), min_size=2, max_size=4), free=st.integers(1, 12))
def test_places_are_shared_evenly_between_conversations(counts, free):
    jobs = [
        ReadyJob(f"{name}-{n}", f"c{name}", name * 100 + n, None, 0.0)
        for name, count in enumerate(counts)
        for n in range(count)
    ]
    pairs = match_jobs(jobs, [AgentCapacity("w", free, 1.0, MODELS[0])], {})
    got = [sum(job_id.startswith(f"{name}-") for job_id, _ in pairs) for name in range(len(counts))]
    short = [given for given, count in zip(got, counts, strict=True) if given < count]
    assert not short or max(got) - min(short) <= 1


def test_the_fastest_free_agent_is_taken():
    agents = [AgentCapacity("slow", 3, 2.0, MODELS[0]), AgentCapacity("fast", 1, 30.0, MODELS[0])]
    jobs = [ReadyJob("j1", "c1", 1, None, 30.0), ReadyJob("j2", "c2", 2, None, 30.0)]
    assert match_jobs(jobs, agents, {}) == [("j1", "fast"), ("j2", "slow")]


def holders(jobs_s: list[float], agents: list[AgentCapacity]) -> list[str]:
    jobs = [ReadyJob(f"j{place}", f"c{place}", place, None, audio_s) for place, audio_s in enumerate(jobs_s)]
    return [agent_id for _, agent_id in match_jobs(jobs, agents, {})]


def test_an_agent_holds_one_long_job_beside_the_one_it_works_on_and_leaves_the_rest_to_others():
    fast, slow = AgentCapacity("fast", 8, 30.0, MODELS[0]), AgentCapacity("slow", 8, 2.0, MODELS[0])
    assert holders([90.0] * 6, [fast]) == ["fast"] * AHEAD_JOBS
    assert holders([90.0] * 6, [fast, slow]) == ["fast"] * AHEAD_JOBS + ["slow"] * AHEAD_JOBS
    assert holders([90.0], [replace(fast, held=1, held_s=3.0), slow]) == ["fast"]
    assert holders([90.0], [replace(fast, held=2, held_s=6.0), slow]) == ["slow"]


def test_an_agent_that_ends_jobs_sooner_than_the_next_can_come_holds_as_many_as_it_has_places():
    quick = AgentCapacity("quick", 8, 3_000.0, MODELS[0])
    assert holders([30.0] * 10, [quick]) == ["quick"] * 8
    jobs = round(AHEAD_S / (60.0 / 600.0))
    assert holders([60.0] * 10, [replace(quick, speed_x_real_time=600.0)]) == ["quick"] * jobs, "half a second of them"
    assert holders([30.0] * 10, [replace(quick, speed_x_real_time=0.0)]) == ["quick"] * 2, (
        "it has not measured itself yet"
    )


def test_a_job_goes_to_whom_ends_it_soonest():
    fast, slow = (
        AgentCapacity("fast", 8, 20.0, MODELS[0], held=1, held_s=9.0),
        AgentCapacity("slow", 8, 12.0, MODELS[0]),
    )
    assert holders([60.0], [fast, slow]) == ["slow"], "in 5 s, not in 12"
    assert holders([60.0], [replace(fast, held_s=1.0), slow]) == ["fast"], "in 4 s, not in 5"


def test_a_job_is_left_for_another_agent_that_could_do_it_by_whoever_failed_at_it():
    job = ReadyJob("j", "c", 1, MODELS[0], 60.0)
    broken, busy = AgentCapacity("broken", 8, 30.0, MODELS[0]), AgentCapacity("busy", 0, 5.0, MODELS[0], held=2)
    failed = frozenset({"broken"})
    spared = avoid_failed(job, failed, [broken, busy])
    assert match_jobs([spared], [broken, busy], {}) == []
    assert match_jobs([spared], [broken, replace(busy, free=1, held=0)], {}) == [("j", "busy")]
    for others in ([], [replace(busy, embedding=MODELS[1])]):
        alone = avoid_failed(job, failed, [broken, *others])
        assert match_jobs([alone], [broken, *others], {}) == [("j", "broken")], "nobody else could do it"
    assert avoid_failed(replace(job, only_agent="broken"), failed, [broken, busy]).shuns == frozenset()
    assert avoid_failed(job, frozenset({"broken", "busy"}), [broken, busy]).shuns == frozenset(), "all have failed"


def test_at_the_end_of_a_backlog_nothing_is_laid_behind_a_job_of_a_slow_agent():
    """Two jobs of 120 s would keep one of 3 x real time busy for 80 s, when all others have long been done."""
    slow = AgentCapacity("slow", 7, 3.0, MODELS[0], held=1, held_s=40.0)
    busy = AgentCapacity("busy", 6, 20.0, MODELS[0], held=2, held_s=12.0)
    idle = AgentCapacity("idle", 8, 3.0, MODELS[0])
    last = [ReadyJob("j", "c", 1, None, 120.0)]
    assert match_jobs(last, [slow, busy], {}) == [("j", "slow")], "others may wait behind it"
    assert match_jobs(last, [slow, busy], {}, are_all=True) == []
    assert match_jobs(last, [slow, busy, idle], {}, are_all=True) == [("j", "idle")], "it begins at once"
    assert match_jobs(last, [slow, replace(busy, held_s=90.0)], {}, are_all=True) == [("j", "slow")]
    assert match_jobs(last, [slow, replace(busy, free=0)], {}, are_all=True) == [("j", "slow")], "it takes no more"
    pinned = [replace(last[0], embedding=MODELS[0])]
    other = replace(busy, embedding=MODELS[1])
    assert match_jobs(pinned, [slow, other], {}, are_all=True) == [("j", "slow")], "it has another model"


@given(jobs=JOBS, agents=AGENTS, leased=LEASED)
def test_an_idle_agent_that_may_have_a_job_never_stands_beside_it(jobs, agents, leased):
    """Whatever busy agents promise: none of them may keep its word."""
    pairs = match_jobs(jobs, agents, leased, are_all=True)
    given_out = {job_id for job_id, _ in pairs}
    idle = [
        agent for agent in agents if agent.free > 0 and not agent.held and agent.agent_id not in dict(pairs).values()
    ]
    heads: dict[str, ReadyJob] = {}
    for job in jobs:
        if job.job_id not in given_out:
            heads.setdefault(job.conversation_id, job)
    by_agent = {agent.agent_id: agent for agent in agents}
    pins = {job.conversation_id: by_agent[dict(pairs)[job.job_id]].embedding for job in jobs if job.job_id in given_out}
    for job in heads.values():
        pin = pins.get(job.conversation_id, job.embedding)
        assert all(pin not in (None, agent.embedding) for agent in idle)
