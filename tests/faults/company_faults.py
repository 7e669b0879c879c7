"""The faults of a chaos run with several bridges: drawn from a seed, and injected two at a time at most."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from tests.clusters import NAMES, RunningCluster
from tests.faults.company import RunningCompany
from tests.faults.programs import Program
from tests.pace import paced

STALL_S = 12.0  # after this long without progress the next fault comes anyway
STEP_S = 0.05
START_WAIT_S = 60.0
AT_ONCE = 2
FIRST, LAST = 0.02, 0.93  # shares of the progress: work is left after the last fault
OPENED, BEGUN = b'"event": "bridge_opened"', b'"event": "owners"'  # what a bridge logs once it serves


class CompanyFault(StrEnum):
    """The kinds of faults; the values are shown in the report."""

    KILL_BRIDGE = "kill -9 bridge"
    KILL_ALL = "kill -9 all bridges"
    TERM_BRIDGE = "restart bridge"
    STOP_BRIDGE = "SIGSTOP bridge past takeover"
    KILL_SERVER = "kill -9 PostgreSQL"
    ABORT_SERVER = "restart PostgreSQL, immediate"
    TERM_SERVER = "restart PostgreSQL, fast"
    CUT_SERVER = "PostgreSQL ends its connections"
    KILL_AGENT = "kill -9 agent"
    KILL_BROKER = "kill -9 broker"
    TERM_BROKER = "restart broker"


_WEIGHTS = {
    CompanyFault.KILL_BRIDGE: 6,
    CompanyFault.KILL_ALL: 1,
    CompanyFault.TERM_BRIDGE: 3,
    CompanyFault.STOP_BRIDGE: 4,
    CompanyFault.KILL_SERVER: 2,
    CompanyFault.ABORT_SERVER: 2,
    CompanyFault.TERM_SERVER: 2,
    CompanyFault.CUT_SERVER: 3,
    CompanyFault.KILL_AGENT: 4,
    CompanyFault.KILL_BROKER: 2,
    CompanyFault.TERM_BROKER: 2,
}
SERVER = (
    CompanyFault.KILL_SERVER,
    CompanyFault.ABORT_SERVER,
    CompanyFault.TERM_SERVER,
    CompanyFault.CUT_SERVER,
)


@dataclass(frozen=True)
class PlannedFault:
    """One fault: at which share of the progress, to which of those it can concern, and how long it lasts."""

    at: float
    kind: CompanyFault
    of: int
    hold_s: float


def draw_faults(seed: int, count: int) -> tuple[PlannedFault, ...]:
    """Return the faults of a run: each kind once as far as `count` allows, then by weight."""
    draw = random.Random(f"company {seed} {count}")
    once = list(_WEIGHTS)
    draw.shuffle(once)
    kinds = once[:count] + draw.choices(once, [_WEIGHTS[kind] for kind in once], k=max(0, count - len(once)))
    draw.shuffle(kinds)
    places = sorted(draw.uniform(FIRST, LAST) for _ in kinds)
    return tuple(
        PlannedFault(at, kind, draw.randrange(60), round(_draw_hold_s(draw, kind), 2))
        for at, kind in zip(places, kinds, strict=True)
    )


def _draw_hold_s(draw: random.Random, kind: CompanyFault) -> float:
    """Two beats of a second are missed within 2.2 s: what hangs is taken for dead, what is killed sometimes."""
    return draw.uniform(3.0, 6.0) if kind is CompanyFault.STOP_BRIDGE else draw.uniform(0.0, 4.0)


@dataclass
class CompanyInjector:
    """Injects faults in its own thread, from `start` until all were injected and are over."""

    company: RunningCompany
    faults: Sequence[PlannedFault]
    progress: Callable[[], float]
    by_kind: Counter[CompanyFault] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    fired: int = 0

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="injector", daemon=True)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._locks: dict[str, threading.Lock] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        under_way: list[Future[None]] = []
        for fault in self.faults:
            self._wait_for(fault, under_way)
            if self._stopping.is_set():
                break
            under_way.append(self._pool.submit(self._inject, fault))
            self.fired += 1
        self._pool.shutdown()

    def _wait_for(self, fault: PlannedFault, under_way: Sequence[Future[None]]) -> None:
        last, changed_s = self.progress(), time.monotonic()
        while not self._stopping.wait(STEP_S):
            if sum(not each.done() for each in under_way) >= AT_ONCE:
                continue
            now = self.progress()
            if now != last:
                last, changed_s = now, time.monotonic()
            if now >= fault.at or time.monotonic() - changed_s > STALL_S:
                return

    def _inject(self, fault: PlannedFault) -> None:
        try:
            with self._alone(fault):
                self._do(fault)
            self.by_kind[fault.kind] += 1
        except Exception as error:  # noqa: BLE001 - an error of the test itself is reported like a wrong result
            self.problems.append(f"{fault}: {error!r}")

    def _alone(self, fault: PlannedFault) -> contextlib.AbstractContextManager[object]:
        """One fault at a time for the server, for the broker, for all bridges and for all agents."""
        part = "server" if fault.kind in SERVER else fault.kind.value.split()[-1].removesuffix("s")
        return self._locks.setdefault("bridge" if part == "takeover" else part, threading.Lock())

    def _do(self, fault: PlannedFault) -> None:
        bridges, agents = list(self.company.bridges.values()), list(self.company.agents.values())
        bridge, agent = bridges[fault.of % len(bridges)], agents[fault.of % len(agents)]
        match fault.kind:
            case CompanyFault.KILL_BRIDGE:
                _replace([bridge], fault.hold_s)
            case CompanyFault.KILL_ALL:
                _replace(bridges, fault.hold_s)
            case CompanyFault.TERM_BRIDGE:
                wait_begun(bridge)
                bridge.stop()
                time.sleep(fault.hold_s)
                bridge.start()
            case CompanyFault.STOP_BRIDGE:
                bridge.signal(signal.SIGSTOP)
                time.sleep(fault.hold_s)
                bridge.signal(signal.SIGCONT)
            case CompanyFault.KILL_AGENT:
                _replace([agent], fault.hold_s / 4)
            case CompanyFault.KILL_BROKER | CompanyFault.TERM_BROKER:
                self._replace_broker(fault, is_killed=fault.kind is CompanyFault.KILL_BROKER)
            case _:
                self._replace_server(fault)

    def _replace_server(self, fault: PlannedFault) -> None:
        postgres = self.company.postgres
        if fault.kind is CompanyFault.CUT_SERVER:
            with postgres.superuser() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    "AND application_name LIKE 'omi-%%'"
                )
            return
        if fault.kind is CompanyFault.KILL_SERVER:
            postgres.kill()
        else:
            postgres.stop(signal.SIGQUIT if fault.kind is CompanyFault.ABORT_SERVER else signal.SIGINT)
        time.sleep(fault.hold_s)
        postgres.start()

    def _replace_broker(self, fault: PlannedFault, *, is_killed: bool) -> None:
        broker = self.company.broker
        if isinstance(broker, RunningCluster):
            name = NAMES[fault.of % len(NAMES)]
            broker.wait_ready(timeout_s=paced(START_WAIT_S))  # two of three must be there: a cluster bears one loss
            (broker.kill if is_killed else broker.stop)(name)
            time.sleep(fault.hold_s)
            broker.start(name)
            return
        (broker.kill if is_killed else broker.stop)()
        time.sleep(fault.hold_s / 2)
        broker.start()


def _replace(programs: Sequence[Program], hold_s: float) -> None:
    for program in programs:
        program.kill()
    time.sleep(hold_s)
    for program in programs:
        program.start()


def wait_begun(bridge: Program) -> None:
    """Wait until a bridge serves: while Python still loads it, SIGTERM ends it at once."""
    deadline_s = time.monotonic() + paced(START_WAIT_S)
    while not has_begun(bridge) and time.monotonic() < deadline_s:
        time.sleep(STEP_S)


def has_begun(bridge: Program) -> bool:
    """Whether its latest run has opened its files and then logged who owns what."""
    with bridge.log_file.open("rb") as log:
        log.seek(bridge.log_from)
        _, _, since = log.read().partition(OPENED)
    return BEGUN in since
