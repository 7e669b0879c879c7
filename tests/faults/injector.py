"""Does to a running stage what the plan says, and measures how soon life is seen again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.plan import AGENTS, Fault, FaultKind, Plan
from tests.faults.programs import BRIDGE, Program, Stage, worker_pids
from tests.faults.tap import Tap

STALL_S = 12.0  # without progress the next fault comes anyway: it may be what the last one left behind
STEP_S = 0.05
WORKER_WAIT_S = 10.0
START_WAIT_S = 30.0
VISITOR = AGENTS[2]


@dataclass(frozen=True)
class Recovery:
    """A fault after which life was seen again, this many seconds after its cause was gone."""

    fault: Fault
    took_s: float


@dataclass
class Injected:
    """What was done so far."""

    by_kind: Counter[FaultKind] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)
    killed_workers: int = 0
    said_again: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.by_kind.values())


class Injector:
    """Runs in a thread of its own from `start` until the plan is done.

    Args:
        stage: what it happens to.
        tap: through which messages are repeated, and life is seen.
        plan: what happens, and when.
        progress: how far the run is, 0 to 1.
    """

    def __init__(self, stage: Stage, tap: Tap, plan: Plan, progress: Callable[[], float]) -> None:
        self._stage, self._tap, self._plan, self._progress = stage, tap, plan, progress
        self._stopping = threading.Event()
        self._pending: list[tuple[Fault, float, tuple[str, ...]]] = []
        self._hung: list[int] = []
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
            FaultKind.CLOCK_JUMP: self._set_clock,
            FaultKind.VISITOR: self._visit,
        }
        self.injected = Injected()
        self.fired = 0
        """How many faults of the plan are done, or were skipped."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        for pid in self._hung:  # one that was stopped before it could tie itself to its parent outlives it
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @property
    def is_done(self) -> bool:
        """Whether every fault has been, and life was seen after each."""
        return not self._thread.is_alive() and not self._pending

    def wait_begun(self, program: Program) -> None:
        """Wait until a program is heard: while it is still being loaded, SIGTERM just ends it."""
        with contextlib.suppress(AssertionError):
            self._tap.wait_online(program.name, program.started_s, START_WAIT_S)

    def note_recoveries(self) -> None:
        """Look which faults are over: every program they touched has said that it is alive since."""
        for waiting in list(self._pending):
            fault, healed_s, names = waiting
            beats = [self._tap.beat_of(name) for name in names]
            heard_s = [beat.heard_s for beat in beats if beat is not None and beat.is_online]
            if len(heard_s) == len(names) and min(heard_s, default=healed_s) >= healed_s:
                self._pending.remove(waiting)
                self.injected.recoveries.append(Recovery(fault, max(heard_s, default=healed_s) - healed_s))

    def overdue(self) -> list[str]:
        """What has not come back."""
        return [f"{fault.kind} {fault.target}: {', '.join(names)} not heard since" for fault, _, names in self._pending]

    def _run(self) -> None:
        for fault in self._plan.faults:
            self._wait_for(fault)
            if self._stopping.is_set():
                return
            if fault.kind is FaultKind.CLOCK_JUMP and not self._stage.has_clocks:
                self.injected.skipped["clock jump: libfaketime is not installed (apt install faketime)"] += 1
            else:
                try:
                    self._do.get(fault.kind, self._spoil_link)(fault)
                except Exception as error:  # noqa: BLE001 - the judge must hear of a harness that fails
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
        return self._stage.programs[fault.target or BRIDGE]

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
        broker = self._stage.broker
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
        self._heals(fault, fault.target)

    def _workers(self, fault: Fault) -> list[int]:
        """The agent's worker, waited for where it is just being started."""
        deadline_s = time.monotonic() + WORKER_WAIT_S
        while time.monotonic() < deadline_s:
            pids = worker_pids(self._program(fault).pid)
            if pids:
                return pids
            time.sleep(STEP_S)
        return []

    def _visit(self, fault: Fault) -> None:
        """The third agent comes where it is away; where it is there, it goes, in good order or not."""
        visitor = self._stage.programs[VISITOR]
        if not visitor.is_alive:
            self._heals(fault, VISITOR)
            visitor.start()
            return
        self.wait_begun(visitor)  # its coming must have been heard before it goes
        if fault.number % 2:
            visitor.kill()
        else:
            visitor.stop()

    # ------------------------------------------------------------------------------ links, messages, clocks

    def _spoil_link(self, fault: Fault) -> None:
        link = self._stage.links[fault.target]
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
        self._heals(fault, *((fault.target,) if fault.target in self._stage.programs else ()))

    def _repeat(self, fault: Fault) -> None:
        count = round(fault.amount)
        say = {
            FaultKind.DUPLICATES: self._tap.say_duplicates,
            FaultKind.OLD_MESSAGES: self._tap.say_old,
            FaultKind.REORDERED: self._tap.say_reordered,
            FaultKind.BAD_PARTS: self._tap.say_damaged,
        }[fault.kind]
        self.injected.said_again += say(count)
        self._heals(fault, BRIDGE)

    def _set_clock(self, fault: Fault) -> None:
        self._program(fault).set_clock(fault.amount)
        self._heals(fault, fault.target)
