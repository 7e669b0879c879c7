"""`python -m tests.faults.company_run --payloads 1000 --faults 200 --seed 1`: chaos with several bridges on one ledger.

Conversations are sent by the product's own client and HTTP doors while bridges, PostgreSQL, broker and agents are
killed, hung and restarted. What is left is judged as after every chaos run: each payload in one job with one result,
every planned turn once, the same voice on the same segments, no write twice, nothing left to do.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import structlog
import typer

from broker.settings import BrokerSettings
from tests.faults.backend import TRY_S, ChaosBackend
from tests.faults.company import BRIDGES, MOSQUITTO, RunningCompany, place_in_bucket, run_company
from tests.faults.company_faults import CompanyFault, CompanyInjector, PlannedFault, draw_faults, wait_begun
from tests.faults.oracle import judge_conversations, read_ends
from tests.faults.plan import Plan, make_plan
from tests.faults.snapshot import Snapshot
from tests.pace import paced
from vps_bridge.ledger import Ledger

LOOK_S = 0.5
SLACK = 0.06  # share of the payloads by which sending may be ahead of the faults
NAP_S = 0.2  # the longest time a job takes
STALL_S = 120.0
FIRST_WRONG = 30


@dataclass(frozen=True)
class CompanyOutcome:
    """What became of a run."""

    plan: Plan
    bridges: int
    broker: str
    payloads: int
    """Accepted, and not deleted again."""
    lost: int
    doubled: int
    wrong: tuple[str, ...]
    by_kind: Counter[CompanyFault]
    ended_alone: tuple[str, ...]
    """Programs that ended by themselves; a service manager starts them again, as this run did."""
    took_s: float
    tries: int
    longest_receipt_s: float
    longest_labels_s: float
    """From the receipt of a conversation's end to its first final update."""
    orphans: int
    """Objects in the bucket that no chunk of the ledger has: each bridge deletes them when they are old."""


@dataclass
class _CompanyRun:
    company: RunningCompany
    plan: Plan
    door: httpx.Client
    faults: Sequence[PlannedFault]
    last: Snapshot | None = None

    def __post_init__(self) -> None:
        settings = self.company.broker.settings("backend", BrokerSettings)
        directory = self.company.directory / "backend"
        self.backend = ChaosBackend(settings, self.door, self.plan, directory, self._may_send)
        self.injector = CompanyInjector(self.company, self.faults, self.progress)

    def _may_send(self, number: int) -> bool:
        """Sending waits for the faults, so that the last faults still find work."""
        return not self.faults or (number / self.plan.jobs - SLACK) * len(self.faults) <= self.injector.fired

    def progress(self) -> float:
        gone = sum(self.backend.deleted.values())
        ended = self.last.done + self.last.failed if self.last else 0
        return (len(self.backend.accepted) + 2 * gone + ended) / (2 * self.plan.jobs)

    def wait_over(self, stall_s: float, report: Callable[[str], None]) -> None:
        """Send and inject faults until all is done, or nothing has changed for `stall_s`."""
        changed_s, told_s = time.monotonic(), 0.0
        before: tuple[Snapshot | None, int, int, bool] | None = None
        while time.monotonic() - changed_s < stall_s:
            time.sleep(LOOK_S)
            for program in self.company.programs:
                program.revive()
            self.last = self._look() or self.last
            now = self.last, self.injector.fired, len(self.backend.accepted), self.injector.is_done
            if now != before:
                changed_s, before = time.monotonic(), now
            if time.monotonic() - told_s > 10.0:
                told_s = time.monotonic()
                report(f"{self.progress():.0%}, {self.injector.fired} faults, {self.last}")
            is_over = self.last is not None and self.last.is_quiet and not self.last.arriving_files
            if self.backend.is_done and self.injector.is_done and is_over:
                return

    def _look(self) -> Snapshot | None:
        try:
            return self.company.snapshot()
        except Exception:  # noqa: BLE001 - the server is away: that is what the run is about
            return None


def run_once(
    directory: Path,
    *,
    seed: int,
    payloads: int,
    faults: int,
    bridges: int = 2,
    broker: str = MOSQUITTO,
    stall_s: float = STALL_S,
    report: Callable[[str], None] = lambda _line: None,
) -> CompanyOutcome:
    """Run a seed's plan in an empty directory, and judge what is left."""
    plan, began_s = make_plan(seed, jobs=payloads, faults=0), time.monotonic()
    with run_company(directory, bridge_ids=BRIDGES[:bridges], broker=broker, max_nap_s=NAP_S) as company:
        _start(company)
        with company.door(TRY_S) as door:
            run = _CompanyRun(company, plan, door, draw_faults(seed, faults))
            run.backend.start()
            run.injector.start()
            try:
                run.wait_over(paced(stall_s), report)
            finally:
                run.injector.stop()
                run.backend.stop()
        return _judge(run, broker, time.monotonic() - began_s)


def _start(company: RunningCompany) -> None:
    for bridge in company.bridges.values():
        bridge.start()
    for bridge in company.bridges.values():
        wait_begun(bridge)
    with company.books() as (ledger, _):
        for agent_id, agent in company.agents.items():
            ledger.agents.set_allowed(agent_id, allowed=True)
            agent.start()


def _judge(run: _CompanyRun, broker: str, took_s: float) -> CompanyOutcome:
    company, plan, backend = run.company, run.plan, run.backend
    ended_alone = tuple(end for program in company.programs for end in program.unwanted_ends)
    wrong = [*backend.problems, *run.injector.problems, *_end_all(company)]
    if run.last is None or not run.last.is_quiet:
        wrong.append(f"not everything came to its end: {run.last}")
    with company.books() as (ledger, store):
        wrong += judge_conversations(plan, ledger, store, backend=backend, ends=read_ends(plan, ledger, store))
        left = company.bucket.audio()
        wrong += _judge_bucket(plan, ledger, left)
        items = [item for job in ledger.jobs.all() for item in ledger.jobs.chunks(job.job_id)]
        orphans = {"-".join(key.split("/")[-2:]) for key, _ in left} - ledger.chunks.spool_names()
    jobs = Counter(item.chunk.chunk_id for item in items if item.fresh)
    ends_s = [backend.final_s.get(name, math.inf) - end_s for name, end_s in backend.completed_s.items()]
    return CompanyOutcome(
        plan=plan,
        bridges=len(company.bridges),
        broker=broker,
        payloads=len(backend.accepted),
        lost=sum(chunk_id not in jobs for chunk_id in backend.accepted),
        doubled=sum(count - 1 for count in jobs.values()),
        wrong=tuple(wrong),
        by_kind=run.injector.by_kind,
        ended_alone=ended_alone,
        took_s=took_s,
        tries=backend.tries,
        longest_receipt_s=backend.longest_receipt_s,
        longest_labels_s=max(ends_s, default=0.0),
        orphans=len(orphans),
    )


def _end_all(company: RunningCompany) -> list[str]:
    """End all programs in order; return what did not go as it should."""
    for bridge in company.bridges.values():
        wait_begun(bridge)
    for program in company.programs:
        program.unwanted_ends.clear()
        if program.is_alive:
            program.stop()
    return [end for program in company.programs for end in program.unwanted_ends]


def _judge_bucket(plan: Plan, ledger: Ledger, left: Sequence[tuple[str, str]]) -> list[str]:
    """Check that no version of any object holds audio of a deleted conversation."""
    deleted = [each.conversation_id for each in plan.conversations if each.delete_after is not None]
    places = {name: place_in_bucket(ledger, name) for name in deleted}
    return [f"{name}: {key} is in the bucket" for name, place in places.items() for key, _ in left if place in key]


def describe(outcome: CompanyOutcome) -> str:
    """Return the report in Markdown."""
    plan, faults = outcome.plan, outcome.by_kind
    deleted = sum(conversation.delete_after is not None for conversation in plan.conversations)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}"
    lines = [
        f"### Seed {plan.seed}, {outcome.bridges} bridges, {outcome.broker}: {'FAILED' if outcome.wrong else 'PASSED'}",
        "",
        f"{datetime.now(UTC):%F %H:%M} UTC, {machine}",
        "",
        f"- {plan.jobs} payloads in {len(plan.conversations)} conversations, {deleted} of them deleted in the middle",
        f"- {faults.total()} faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items())),
        f"- lost {outcome.lost}, doubled {outcome.doubled}, {len(outcome.wrong)} things wrong",
        f"- {outcome.took_s:.0f} s, {outcome.tries} sendings by the backend",
        f"- longest to a receipt, repetitions included: {outcome.longest_receipt_s:.1f} s",
        f"- longest from the receipt of a conversation's end to its final labels: {outcome.longest_labels_s:.1f} s",
        f"- ended by themselves and started again: {len(outcome.ended_alone)}",
        f"- objects left in the bucket that no chunk has, to be deleted when they are old: {outcome.orphans}",
    ]
    return "\n".join(lines)


def main(
    payloads: Annotated[int, typer.Option(help="Each becomes one job.", min=2)] = 1_000,
    faults: Annotated[int, typer.Option(help="How many.", min=0)] = 200,
    seed: Annotated[int, typer.Option(help="The same seed gives the same plan.")] = 1,
    bridges: Annotated[int, typer.Option(min=1, max=len(BRIDGES))] = 2,
    broker: Annotated[str, typer.Option(help="mosquitto, or nats: a cluster of three.")] = MOSQUITTO,
    record: Annotated[Path | None, typer.Option(help="Append the report to this file.")] = None,
) -> None:
    """Run it, print the report, and keep all logs where something is wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    directory = Path(tempfile.mkdtemp(prefix="omi-company-"))
    typer.echo(f"logs in {directory}")
    outcome = run_once(
        directory / "run",
        seed=seed,
        payloads=payloads,
        faults=faults,
        bridges=bridges,
        broker=broker,
        report=typer.echo,
    )
    text = describe(outcome)
    typer.echo(text)
    if record is not None:
        with record.open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")
    for what in (*outcome.ended_alone, *outcome.wrong)[:FIRST_WRONG]:
        typer.echo(f"  - {what}")
    if outcome.wrong:
        raise typer.Exit(1)
    shutil.rmtree(directory)


if __name__ == "__main__":
    typer.run(main)
