"""Injects the faults of a plan into a running system, and measures how soon its programs are online again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.faults.plan import AGENTS, LIAR, STRANGER, Fault, FaultKind, Plan
from tests.faults.programs import BRIDGE, ChaosSystem, Program, worker_pids
from tests.faults.tap import Tap
from tests.pace import paced

STALL_S = 12.0  # after this long without progress the next fault comes anyway: the last one may be what blocks the run
STEP_S = 0.05
WORKER_WAIT_S = 30.0
START_WAIT_S = 30.0
VISITOR = AGENTS[2]
STRANGER_COPIES = 100  # of each message it forges


@dataclass(frozen=True)
class Recovery:
    """A fault, and how long after its end all programs it concerned had sent a heartbeat again."""

    fault: Fault
    took_s: float


@dataclass
class InjectedFaults:
    """What was injected so far."""

    by_kind: Counter[FaultKind] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)
    killed_workers: int = 0
    hung_workers: int = 0
    repeated: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.by_kind.values())


class Injector:
    """Injects faults in its own thread, from `start` until the plan is done.

    Args:
        system: the system that gets the faults.
        tap: repeats messages and receives heartbeats.
        plan: the faults and when they happen.
        progress: returns how far the run is, 0 to 1.
    """

    def __init__(self, system: ChaosSystem, tap: Tap, plan: Plan, progress: Callable[[], float]) -> None:
        self._system, self._tap, self._plan, self._progress = system, tap, plan, progress
        self._stopping = threading.Event()
        self._pending: list[tuple[Fault, float, tuple[str, ...]]] = []
        self._hung: list[int] = []
        self._noting = threading.Lock()  # the run and the faults both note what is over
        self._thread = threading.Thread(target=self._run, name="injector", daemon=True)
        self._do: dict[FaultKind, Callable[[Fault], None]] = {
            FaultKind.KILL_AGENT: self._kill,
            FaultKind.KILL_BRIDGE: self._kill,
            FaultKind.TERM_AGENT: self._restart,
            FaultKind.TERM_BRIDGE: self._restart,
            FaultKind.STOP_AGENT: self._pause,
            FaultKind.STOP_BRIDGE: self._pause,
            FaultKind.KILL_BROKER: self._replace_broker,
            FaultKind.TERM_BROKER: self._replace_broker,
            FaultKind.KILL_WORKER: self._kill_worker,
            FaultKind.STOP_WORKER: self._pause_worker,
            FaultKind.HANG_WORKER: self._pause_worker,
            FaultKind.DUPLICATES: self._repeat,
            FaultKind.OLD_MESSAGES: self._repeat,
            FaultKind.REORDERED: self._repeat,
            FaultKind.BAD_PARTS: self._repeat,
            FaultKind.STRANGER: self._repeat,
            FaultKind.LIAR: self._repeat,
            FaultKind.CLOCK_JUMP: self._set_clock,
            FaultKind.VISITOR: self._visit,
        }
        self.injected = InjectedFaults()
        self.fired = 0
        """How many faults of the plan were injected or skipped."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        for pid in self._hung:  # a worker suspended before it began to watch its parent would outlive the agent
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @property
    def is_done(self) -> bool:
        """Whether every fault was injected, and every program was online again after it."""
        return not self._thread.is_alive() and not self._pending

    def wait_begun(self, program: Program) -> None:
        """Wait until a program is online: while Python still loads it, SIGTERM ends it at once."""
        with contextlib.suppress(AssertionError):
            self._tap.wait_online(program.name, program.started_s, paced(START_WAIT_S))

    def note_recoveries(self) -> None:
        """Note the faults that are over: every program they concerned has been online since."""
        with self._noting:
            for waiting in list(self._pending):
                fault, healed_s, names = waiting
                beats = [self._tap.beat_of(name) for name in names]
                heard_s = [beat.heard_s for beat in beats if beat is not None and beat.is_online]
                if len(heard_s) == len(names) and min(heard_s, default=healed_s) >= healed_s:
                    self._pending.remove(waiting)
                    self.injected.recoveries.append(Recovery(fault, max(heard_s, default=healed_s) - healed_s))

    def overdue(self) -> list[str]:
        """Return a line for each fault after which some program was not online again."""
        return [f"{fault.kind} {fault.target}: {', '.join(names)} not heard since" for fault, _, names in self._pending]

    def _run(self) -> None:
        for fault in self._plan.faults:
            self._wait_for(fault)
            if self._stopping.is_set():
                return
            if fault.kind is FaultKind.CLOCK_JUMP and not self._system.has_clocks:
                self.injected.skipped["clock jump: libfaketime is not installed (apt install faketime)"] += 1
            else:
                try:
                    self._do.get(fault.kind, self._spoil_link)(fault)
                except Exception as error:  # noqa: BLE001 - an error of the test itself is reported like a wrong result
                    self.injected.problems.append(f"fault {fault.number} ({fault.kind} {fault.target}): {error!r}")
                self.injected.by_kind[fault.kind] += 1
            self.fired += 1

    def _wait_for(self, fault: Fault) -> None:
        last, changed_s = self._progress(), time.monotonic()
        while not self._stopping.wait(STEP_S):
            now = self._progress()
            if now != last:
                last, changed_s = now, time.monotonic()
            if now >= fault.at or time.monotonic() - changed_s > STALL_S:
                return

    def _heals(self, fault: Fault, *names: str) -> None:
        self._pending.append((fault, time.monotonic(), names))

    def _program(self, fault: Fault) -> Program:
        return self._system.programs[fault.target or BRIDGE]

    # --------------------------------------------------------------------------------------- programs

    def _kill(self, fault: Fault) -> None:
        program = self._program(fault)
        program.kill()
        time.sleep(fault.hold_s)
        self._heals(fault, program.name)
        program.start()

    def _restart(self, fault: Fault) -> None:
        program = self._program(fault)
        self.wait_begun(program)
        program.stop()
        time.sleep(fault.hold_s)
        self._heals(fault, program.name)
        program.start()

    def _pause(self, fault: Fault) -> None:
        program = self._program(fault)
        program.signal(signal.SIGSTOP)
        time.sleep(fault.hold_s)
        self._heals(fault, program.name)
        program.signal(signal.SIGCONT)

    def _replace_broker(self, fault: Fault) -> None:
        broker = self._system.broker
        if fault.kind is FaultKind.KILL_BROKER:
            broker.running.kill()
        else:
            broker.running.stop()
        time.sleep(fault.hold_s)
        broker.come_back(persistent=bool(fault.amount))
        self._heals(fault, BRIDGE, *AGENTS[:2])

    def _kill_worker(self, fault: Fault) -> None:
        for pid in self._workers(fault):
            os.kill(pid, signal.SIGKILL)
            self.injected.killed_workers += 1
        self._heals(fault, fault.target)

    def _pause_worker(self, fault: Fault) -> None:
        pids = self._workers(fault)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if fault.kind is FaultKind.STOP_WORKER:
            time.sleep(fault.hold_s)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        else:
            self._hung += pids
            self.injected.hung_workers += len(pids)
        self._heals(fault, fault.target)

    def _workers(self, fault: Fault) -> list[int]:
        """Return the agent's worker, after waiting for it if it is just being started."""
        deadline_s = time.monotonic() + WORKER_WAIT_S
        while time.monotonic() < deadline_s:
            pids = worker_pids(self._program(fault).pid)
            if pids:
                return pids
            time.sleep(STEP_S)
        return []

    def _visit(self, fault: Fault) -> None:
        """Start the third agent if it does not run; else end it, by SIGTERM or SIGKILL."""
        visitor = self._system.programs[VISITOR]
        if not visitor.is_alive:
            self._heals(fault, VISITOR)
            visitor.start()
            return
        self.wait_begun(visitor)
        self.note_recoveries()  # so that its start has been seen before it ends
        if fault.number % 2:
            visitor.kill()
        else:
            visitor.stop()

    # ------------------------------------------------------------------------------ links, messages, clocks

    def _spoil_link(self, fault: Fault) -> None:
        link = self._system.links[fault.target]
        match fault.kind:
            case FaultKind.CUT:
                link.cut()
            case FaultKind.HALF_OPEN:
                link.freeze()
            case FaultKind.HOLD:
                link.hold()
                time.sleep(fault.hold_s)
                link.release()
            case FaultKind.DEAF | FaultKind.MUTE:
                (link.deafen if fault.kind is FaultKind.DEAF else link.mute)()
                time.sleep(fault.hold_s)
                link.cut()
            case FaultKind.REFUSE:
                link.refuse()
                link.cut()
                time.sleep(fault.hold_s)
                link.refuse(on=False)
            case _:
                link.delay(fault.amount)
                time.sleep(fault.hold_s)
                link.delay(0.0)
        self._heals(fault, *((fault.target,) if fault.target in self._system.programs else ()))

    def _repeat(self, fault: Fault) -> None:
        count = round(fault.amount)
        senders: dict[FaultKind, Callable[[int], int]] = {
            FaultKind.DUPLICATES: self._tap.send_duplicates,
            FaultKind.OLD_MESSAGES: self._tap.send_old,
            FaultKind.REORDERED: self._tap.send_reordered,
            FaultKind.BAD_PARTS: self._tap.send_damaged,
            FaultKind.STRANGER: partial(self._tap.send_forged, STRANGER, copies=STRANGER_COPIES),
            FaultKind.LIAR: partial(self._tap.send_forged, LIAR),
        }
        self.injected.repeated += senders[fault.kind](count)
        self._heals(fault, BRIDGE)

    def _set_clock(self, fault: Fault) -> None:
        self._program(fault).set_clock(fault.amount)
        self._heals(fault, fault.target)
