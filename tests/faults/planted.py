"""Bugs that a chaos run must find. They are put into the process of the bridge as it starts, not into the product.

`python -m tests.faults --plant settled` runs a plan whose faults make the bug matter, with the checks of every run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tests.faults.faked_clock import mend_sleep
from tests.faults.plan import FaultKind, Plan, make_plan
from tests.faults.programs import BRIDGE, PLANT_ENV, ROLE_ENV

mend_sleep()  # here, and not in `main`: the worker process imports this module too


class PlantedBug(StrEnum):
    """The bugs that can be planted."""

    SETTLED = "settled"
    """`settled` is sent once for each lease; where that message is lost, the agent offers its result for ever."""
    ATTEMPT = "attempt"
    """An attempt is counted twice."""
    LIMIT = "limit"
    """A lease has no absolute limit while its agent sends heartbeats."""


def plant_settled() -> None:
    from vps_bridge.dispatch.dispatcher import Dispatcher

    settled: set[str] = set()
    settle = Dispatcher.settle

    def settle_once(self: Dispatcher, agent_id: str, job_id: str, lease_id: str, *rest: Any, **more: Any) -> None:
        if lease_id not in settled:
            settled.add(lease_id)
            settle(self, agent_id, job_id, lease_id, *rest, **more)

    Dispatcher.settle = settle_once  # type: ignore[method-assign] # the bug


def plant_attempt() -> None:
    from sqlalchemy import update

    from vps_bridge.ledger.jobs import JobBook
    from vps_bridge.ledger.records import JobRecord
    from vps_bridge.ledger.tables import JobRow

    note_failure = JobBook.note_failure

    def note_twice(self: JobBook, job_id: str, code: str, message: str, *, counted: bool) -> JobRecord | None:
        noted = note_failure(self, job_id, code, message, counted=counted)
        if noted is None or not counted:
            return noted
        with self._database.writing() as connection:
            connection.execute(update(JobRow).where(JobRow.job_id == job_id).values(attempts=JobRow.attempts + 1))
        return replace(noted, attempts=noted.attempts + 1)

    JobBook.note_failure = note_twice  # type: ignore[method-assign] # the bug


def plant_limit() -> None:
    from vps_bridge.rules.lease import LeaseRules

    def no_limit_s(self: LeaseRules, expected_s: float) -> float:
        return float("inf")

    LeaseRules.limit_s = no_limit_s  # type: ignore[method-assign] # the bug


@dataclass(frozen=True)
class _BugPlan:
    """How to plant one bug, and the size and faults of the plan that finds it."""

    plant: Callable[[], None]
    jobs: int
    faults: int
    kinds: tuple[FaultKind, ...]


_BUG_PLANS = {
    PlantedBug.SETTLED: _BugPlan(plant_settled, 24, 10, (FaultKind.DEAF,)),
    PlantedBug.ATTEMPT: _BugPlan(plant_attempt, 12, 2, (FaultKind.KILL_WORKER,)),
    PlantedBug.LIMIT: _BugPlan(plant_limit, 24, 3, (FaultKind.HANG_WORKER,)),
}


def plan_for(plant: PlantedBug, seed: int) -> Plan:
    """A small plan that finds the bug: its faults happen to both agents alternately."""
    bug = _BUG_PLANS[plant]
    plan = make_plan(seed, jobs=bug.jobs, faults=bug.faults, conversations=3, kinds=bug.kinds)
    agents = ("studio-a", "studio-b")
    alternating = tuple(replace(fault, target=agents[fault.number % 2]) for fault in plan.faults)
    return replace(plan, faults=alternating)


def main() -> None:
    """Run the bridge with the bug, or an agent without it."""
    if os.environ[ROLE_ENV] == BRIDGE:
        from vps_bridge.commands.main import main as run_bridge

        _BUG_PLANS[PlantedBug(os.environ[PLANT_ENV])].plant()
        sys.argv[1:] = ["run"]
        run_bridge()
    else:
        import typer

        from tests.faults.null_agent import main as run_agent

        typer.run(run_agent)


if __name__ == "__main__":
    main()
