"""A minute of chaos in every test run; `make chaos JOBS=1000` is the same, longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos import ChaosOutcome, run_both
from tests.faults.plan import FaultKind, Plan, make_plan
from tests.faults.planted import PlantedBug, plan_for
from tests.pace import paced

pytestmark = pytest.mark.long

NAP_S = 0.05  # the longest time a job takes
LONG_NAP_S = 0.4  # long enough that both agents have a job whenever a fault happens
STALL_S = 90.0  # longer than the slowest recovery: the limit of a lease, and then loading an engine
CAUGHT_BY = {
    PlantedBug.SETTLED: "not everything came to its end",
    PlantedBug.ATTEMPT: "attempts",
    PlantedBug.LIMIT: "not everything came to its end",
}


def run(
    plan: Plan, directory: Path, plant: PlantedBug | None = None, *, max_nap_s: float = NAP_S
) -> tuple[ChaosOutcome, ChaosOutcome]:
    return run_both(
        plan, directory, max_nap_s=max_nap_s, stall_s=paced(STALL_S), plant=plant, report=lambda _name, _progress: None
    )


@pytest.mark.timeout(900)
def test_conversations_end_the_same_under_faults_of_many_kinds(tmp_path):
    kinds = [
        FaultKind.KILL_AGENT,
        FaultKind.KILL_BRIDGE,
        FaultKind.KILL_BROKER,
        FaultKind.KILL_WORKER,
        FaultKind.CUT,
        FaultKind.HALF_OPEN,
        FaultKind.DEAF,
        FaultKind.STOP_AGENT,
        FaultKind.DUPLICATES,
        FaultKind.OLD_MESSAGES,
        FaultKind.BAD_PARTS,
        FaultKind.CLOCK_JUMP,
        FaultKind.STRANGER,
        FaultKind.LIAR,
    ]
    plan = make_plan(1, jobs=40, faults=len(kinds), conversations=5, kinds=kinds)
    calm, chaos = run(plan, tmp_path)
    assert calm.wrong == ()
    assert chaos.wrong == ()
    assert chaos.injected.count + sum(chaos.injected.skipped.values()) == len(kinds)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("plant", PlantedBug)
def test_a_planted_bug_is_caught_and_its_plan_passes_without_it(tmp_path, plant):
    plan = plan_for(plant, seed=1)
    calm, sound = run(plan, tmp_path / "sound", max_nap_s=LONG_NAP_S)
    assert calm.wrong == ()
    assert sound.wrong == ()
    _, planted = run(plan, tmp_path / "planted", plant, max_nap_s=LONG_NAP_S)
    assert any(CAUGHT_BY[plant] in what for what in planted.wrong), planted.wrong


def test_the_same_seed_gives_the_same_plan():
    assert make_plan(7, jobs=100, faults=30) == make_plan(7, jobs=100, faults=30)
    assert make_plan(7, jobs=100, faults=30) != make_plan(8, jobs=100, faults=30)


def test_a_plan_holds_every_kind_of_fault_once_before_any_comes_twice():
    plan = make_plan(7, jobs=1_000, faults=200)
    assert {fault.kind for fault in plan.faults} == set(FaultKind) - {FaultKind.DELETION}
    assert plan.jobs == 1_000
    assert len(plan.faults) == 200
    assert sum(conversation.delete_after is not None for conversation in plan.conversations) >= 3
