"""One chaos run: the programs, a backend, faults and checks. It is run with and without faults to compare both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx

from broker.settings import BrokerSettings
from tests.faults.backend import TRY_S, ChaosBackend
from tests.faults.injector import InjectedFaults, Injector
from tests.faults.oracle import Ends, judge_against_calm, judge_run, open_books, read_ends
from tests.faults.plan import AGENTS, LIAR, Plan
from tests.faults.programs import BACKEND, BRIDGE, DOOR_TOKEN, SETTINGS, TAP_USER, ChaosSystem, run_chaos_system
from tests.faults.snapshot import Snapshot, take_snapshot
from tests.faults.tap import Tap
from vps_bridge.ledger import Ledger

LOOK_S = 0.3
SLACK = 0.06  # share of the payloads by which sending may be ahead of the faults
BEAT_S = float(SETTINGS["OMI_HEARTBEAT_S"])


@dataclass(frozen=True)
class ChaosOutcome:
    """The outcome of a run."""

    ends: Ends
    wrong: tuple[str, ...]
    injected: InjectedFaults
    took_s: float
    tries: int
    cpu_s: Mapping[str, float]
    """Processor seconds of each program since its last start, its workers included."""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is, for a progress bar."""

    accepted: int
    ended: int
    jobs: int
    faults: int
    of_faults: int


Report = Callable[[str, RunProgress], None]
"""Called with the name of the run, `calm` or `chaos`, and how far it is."""


def run_both(
    plan: Plan, directory: Path, *, max_nap_s: float, stall_s: float, plant: str | None = None, report: Report
) -> tuple[ChaosOutcome, ChaosOutcome]:
    """Run a plan without its faults and, at the same time, with them; the second outcome has the differences too."""
    given_up = threading.Event()

    def run(plan: Plan, name: str, plant: str | None) -> ChaosOutcome:
        return run_once(
            plan,
            directory / name,
            max_nap_s=max_nap_s,
            stall_s=stall_s,
            report=lambda progress: report(name, progress),
            given_up=given_up,
            plant=plant,
        )

    with ThreadPoolExecutor(2) as pool:
        try:
            both = [pool.submit(run, plan.without_faults(), "calm", None), pool.submit(run, plan, "chaos", plant)]
            calm, chaos = (each.result() for each in both)
        finally:
            given_up.set()
    differences = judge_against_calm(plan, calm.ends, chaos.ends)
    return calm, replace(chaos, wrong=(*chaos.wrong, *differences))


def run_once(
    plan: Plan,
    directory: Path,
    *,
    max_nap_s: float,
    stall_s: float,
    report: Callable[[RunProgress], None],
    given_up: threading.Event,
    plant: str | None = None,
) -> ChaosOutcome:
    """Run a plan in an empty directory until nothing is left to do, nothing changes for `stall_s`, or `given_up`."""
    began_s = time.monotonic()
    with (
        run_chaos_system(directory, max_nap_s=max_nap_s, plant=plant) as system,
        Tap(system.broker.running, TAP_USER, plan.seed) as tap,
    ):
        _start_programs(system, tap)
        chaos_run = _ChaosRun(system, tap, plan, report, given_up)
        try:
            last = chaos_run.wait_over(stall_s)
        finally:
            chaos_run.end()
        time.sleep(3 * BEAT_S)
        beats = {name: beat for name in (*AGENTS, BRIDGE) if (beat := tap.beat_of(name)) is not None}
        cpu_s = system.cpu_s()
        backend, injected = chaos_run.backend, chaos_run.injector.injected
        injected.problems.extend(chaos_run.injector.overdue())
        for name in (*AGENTS, BRIDGE):
            if system.programs[name].is_alive:
                system.programs[name].stop()
        with open_books(system) as (ledger, store):
            ends = read_ends(plan, ledger, store)
        wrong = judge_run(plan, system, backend=backend, beats=beats, injected=injected, last=last, ends=ends)
    return ChaosOutcome(ends, tuple(wrong), injected, time.monotonic() - began_s, backend.tries, cpu_s)


def _start_programs(system: ChaosSystem, tap: Tap) -> None:
    """Start the bridge, allow the agents, start two of them, and wait until all are online."""
    began_s = time.monotonic()
    system.bridge.start()
    tap.wait_online(BRIDGE, began_s)
    ledger = Ledger(system.bridge_root, exclusive=False)
    for agent_id in (*AGENTS, LIAR):
        ledger.agents.set_allowed(agent_id, allowed=True)
    ledger.close()
    for agent_id in AGENTS[:2]:
        system.programs[agent_id].start()
    for agent_id in AGENTS[:2]:
        tap.wait_online(agent_id, began_s)


class _ChaosRun:
    """A run in progress. Sending waits for the faults, so that the last faults still find work."""

    def __init__(
        self,
        system: ChaosSystem,
        tap: Tap,
        plan: Plan,
        report: Callable[[RunProgress], None],
        given_up: threading.Event,
    ) -> None:
        self._system, self._plan, self._report, self._given_up = system, plan, report, given_up
        self._last: Snapshot | None = None
        link = system.links[BACKEND]
        settings: BrokerSettings = system.broker.running.settings(
            BACKEND, broker_url=f"mqtt://127.0.0.1:{link.port}", keepalive_s=int(SETTINGS["OMI_KEEPALIVE_S"])
        )
        headers = {"Authorization": f"Bearer {DOOR_TOKEN}"}
        self._door = httpx.Client(base_url=system.door_url, headers=headers, timeout=TRY_S, trust_env=False)
        self.backend = ChaosBackend(settings, self._door, plan, system.directory / "backend", self._may_send)
        self.injector = Injector(system, tap, plan, self._progress)

    def wait_over(self, stall_s: float) -> Snapshot | None:
        """Send and inject faults; return the last snapshot once all is done or nothing has changed for `stall_s`."""
        self.backend.start()
        self.injector.start()
        changed_s, before = time.monotonic(), None
        while time.monotonic() - changed_s < stall_s and not self._given_up.is_set():
            time.sleep(LOOK_S)
            self._system.revive()
            self.injector.note_recoveries()
            snapshot = take_snapshot(self._system)
            self._last = snapshot or self._last
            now = (snapshot, self.injector.fired, len(self.backend.accepted), self.injector.is_done)
            if now != before:
                changed_s, before = time.monotonic(), now
            self._report(self._run_progress())
            if self.injector.is_done:
                self._bring_back_visitor()
            if self.backend.is_done and self.injector.is_done and self._is_over(snapshot):
                break
        return self._last

    def end(self) -> None:
        self.injector.stop()
        self.backend.stop()
        self._door.close()

    def _bring_back_visitor(self) -> None:
        """Start the third agent again if it was killed: only its next start empties its inbox."""
        visitor = self._system.programs[AGENTS[2]]
        if visitor.started_s and not visitor.is_alive:
            visitor.start()
            self.injector.wait_begun(visitor)

    def _is_over(self, snapshot: Snapshot | None) -> bool:
        if snapshot is None or not snapshot.is_quiet:
            return False
        return snapshot.spool_files + snapshot.arriving_files <= self._plan.poisoned

    def _run_progress(self) -> RunProgress:
        gone = sum(self.backend.deleted.values())
        accepted = len(self.backend.accepted) + gone
        return RunProgress(accepted, self._ended(), self._plan.jobs, self.injector.fired, len(self._plan.faults))

    def _ended(self) -> int:
        return (self._last.done + self._last.failed if self._last else 0) + sum(self.backend.deleted.values())

    def _progress(self) -> float:
        gone = sum(self.backend.deleted.values())
        return (len(self.backend.accepted) + gone + self._ended()) / (2 * self._plan.jobs)

    def _may_send(self, number: int) -> bool:
        faults = self._plan.faults
        if not faults:
            return True
        share = number / self._plan.jobs - SLACK
        return share * len(faults) <= self.injector.fired


def new_seed() -> int:
    """The seed of a run that was given none."""
    return int(datetime.now(UTC).timestamp())
