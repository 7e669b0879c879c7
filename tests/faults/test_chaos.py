"""A minute of chaos in every test run; `make chaos JOBS=1000` is the same, longer."""

from __future__ import annotations

from tests.faults.chaos import run_both
from tests.faults.plan import FaultKind, make_plan

STALL_S = 90.0


def test_conversations_end_the_same_when_everything_is_killed(tmp_path):
    kills = [FaultKind.KILL_AGENT, FaultKind.KILL_BRIDGE, FaultKind.KILL_BROKER]
    plan = make_plan(1, jobs=20, faults=6, conversations=2, kinds=kills)
    calm, chaos = run_both(plan, tmp_path, max_nap_s=0.1, stall_s=STALL_S, report=lambda _sight: None)
    assert calm.wrong == ()
    assert chaos.wrong == ()
    assert chaos.injected.count == 6


def test_the_same_seed_gives_the_same_plan():
    assert make_plan(7, jobs=100, faults=30) == make_plan(7, jobs=100, faults=30)
    assert make_plan(7, jobs=100, faults=30) != make_plan(8, jobs=100, faults=30)


def test_a_plan_holds_every_kind_of_fault_once_before_any_comes_twice():
    plan = make_plan(7, jobs=1_000, faults=200)
    assert {fault.kind for fault in plan.faults} == set(FaultKind) - {FaultKind.DELETION}
    assert plan.jobs == 1_000
    assert len(plan.faults) == 200
    assert sum(conversation.delete_after is not None for conversation in plan.conversations) >= 3
