"""The worker process from the outside: start it, give it a job, take its reports, and start it again when it dies.

A crash, a hang or a full memory costs one attempt at one job. A thread per process reads its pipe, so that a
worker stopped in the middle of a report cannot stop the loop that sends the heartbeats.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import structlog

from broker.backoff import Backoff
from mac_agent.heartbeat import resident_bytes
from mac_agent.inference import (
    EngineLoaded,
    EngineNotLoaded,
    JobDecoded,
    JobFailed,
    JobProgress,
    JobResult,
    LoadEngine,
    WorkerJob,
    WorkerReport,
    serve,
)
from mac_agent.recycling import GB, RecycleLimits, WorkerMemory, why_recycle
from schemas.failure import FailureCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from mac_agent.engines.engine import EngineInfo
    from mac_agent.settings import AgentSettings

JOIN_S = 5.0
CANCEL_GRACE_S = 10.0  # a cancelled job that does not look up by then is ended with its process
# Past this a machine swaps instead of working, and the system may end any process: macOS refuses no allocation.
MEMORY_SHARE = 0.75
RESTART_PAUSE_S, RESTART_PAUSE_MAX_S = 1.0, 60.0

_log = structlog.get_logger("mac_agent.worker")


@dataclass(frozen=True)
class WorkerLimits:
    """How long the worker may take, and how much it may hold."""

    load_s: float
    floor_s: float
    """Every job, decoding included."""
    factor: float
    """Further seconds for each second of audio."""
    max_bytes: int | None = None
    """Resident memory; None is `MEMORY_SHARE` of this machine's."""


def read_limits(settings: AgentSettings) -> WorkerLimits:
    """Return what the settings allow a worker."""
    max_bytes = None if settings.max_worker_gb is None else round(settings.max_worker_gb * GB)
    return WorkerLimits(settings.load_timeout_s, settings.job_timeout_floor_s, settings.job_timeout_factor, max_bytes)


@dataclass(frozen=True)
class _Gone:
    """The pipe of a process closed: it is dead or dying."""


@dataclass
class _Run:
    """The job that the worker is running."""

    token: int
    deadline_s: float
    began_s: float
    progress: float = 0.0
    cancelled_s: float | None = None


class Worker:
    """One worker process and the job it is at. Used by one thread; never blocks it for long.

    Args:
        load: makes the engine inside the worker; picklable.
        limits: how long loading and a job may take, and how much memory.
        recycle: after how much the process is started again between two jobs; None: never.
        wake: called from a thread of its own when there is something to `poll`.
    """

    def __init__(
        self,
        load: LoadEngine,
        limits: WorkerLimits,
        *,
        recycle: RecycleLimits | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._load, self._limits, self._wake = load, limits, wake
        self._recycle = recycle or RecycleLimits()
        self._jobs = 0
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._reports: queue.SimpleQueue[WorkerReport | _Gone] = queue.SimpleQueue()
        self._run: _Run | None = None
        self._max_bytes = limits.max_bytes or int(MEMORY_SHARE * psutil.virtual_memory().total)
        self._load_deadline_s = 0.0
        self._restart_s: float | None = None
        self._restart_pause = Backoff.start(RESTART_PAUSE_S, RESTART_PAUSE_MAX_S)
        self.info: EngineInfo | None = None
        """What is loaded; None while nothing is."""
        self.memory: WorkerMemory | None = None
        """What the process last said it holds."""
        self.restarts = 0
        self.recycles = 0
        self.recycled_for = ""
        """Why it was last started again between two jobs."""
        self.is_recycling = False
        """Whether it is being started again between two jobs: ready again in seconds, and nothing is wrong."""

    @property
    def is_idle(self) -> bool:
        """Whether a job can be submitted now."""
        return self.info is not None and self._run is None

    @property
    def progress(self) -> float:
        """How far the running job is, 0 to 1."""
        return self._run.progress if self._run else 0.0

    @property
    def pid(self) -> int | None:
        """The process, if one is alive."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    def start(self) -> None:
        """Start the process; `EngineLoaded` or `EngineNotLoaded` follows from `poll`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._load), name="omi-agent worker", daemon=True)
        self._process = process  # before it starts: an interrupt from here on can still end it
        process.start()
        theirs.close()
        arriving: queue.SimpleQueue[WorkerReport | _Gone] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(ours, arriving, self._wake), name="worker reports", daemon=True).start()
        self._pipe, self._reports = ours, arriving
        self._load_deadline_s = time.monotonic() + self._limits.load_s
        self._restart_s = None
        self._jobs, self.memory = 0, None

    def submit(self, job: WorkerJob) -> None:
        """Give the idle worker a job; a `JobResult` or `JobFailed` with its token follows from `poll`."""
        if not self.is_idle or self._pipe is None:
            msg = "the worker takes one job at a time, and none while its engine is not loaded"
            raise RuntimeError(msg)
        now_s = time.monotonic()
        self._run = _Run(job.token, now_s + self._limits.floor_s, now_s)
        try:
            self._pipe.send(job)
        except OSError:
            _log.warning("worker died before it got its job")  # `poll` finds its pipe closed and fails the job

    def cancel(self, token: int) -> None:
        """End the job soon, if it is this one. A `JobFailed` with `is_cancelled` follows, unless it just ended."""
        if self._run is None or self._run.token != token or self._run.cancelled_s is not None or self._pipe is None:
            return
        self._run.cancelled_s = time.monotonic()
        try:
            self._pipe.send("cancel")
        except OSError:
            _log.warning("worker died before it was cancelled")

    def poll(self) -> list[WorkerReport]:
        """Return what happened since the last call; starts a dead worker again, ends one that hangs."""
        reports: list[WorkerReport] = []
        while True:
            try:
                report = self._reports.get_nowait()
            except queue.Empty:
                break
            reports += self._handle(report)
        reports += self._enforce_limits()
        if self._restart_s is not None and time.monotonic() >= self._restart_s:
            self.restarts += 1
            self.start()
        return reports

    def stop(self) -> None:
        """End the process at once: whatever it was at can be computed again."""
        self._restart_s = None
        self._end_process()
        self.info = None
        self._run = None

    def _handle(self, report: WorkerReport | _Gone) -> list[WorkerReport]:
        match report:
            case _Gone():
                return self._handle_death()
            case EngineLoaded():
                self.info = report.info
                self._restart_pause = self._restart_pause.restarted()
                self.is_recycling = False
            case WorkerMemory():
                self.memory = report
            case EngineNotLoaded():
                pass
            case JobDecoded() if self._run is not None and self._run.token == report.token:
                limit_s = self._limits.floor_s + self._limits.factor * report.duration_s
                self._run.deadline_s = self._run.began_s + limit_s
            case JobProgress() if self._run is not None and self._run.token == report.token:
                self._run.progress = report.fraction
            case JobResult() | JobFailed() if self._run is not None and self._run.token == report.token:
                self._run = None
                self._jobs += 1
                if (
                    isinstance(report, JobFailed)
                    and report.code is FailureCode.ENGINE_FAILED
                    and not report.is_cancelled
                ):
                    self._replace()  # an exception may have left the device in any state
                else:
                    self._recycle_if_due()
            case _:
                return []
        return [report]

    def _handle_death(self) -> list[WorkerReport]:
        process = self._process
        if process is None:
            return []
        process.join(JOIN_S)
        exit_code = process.exitcode
        _log.error("worker ended", exit_code=exit_code, at_a_job=self._run is not None)
        message = f"The worker process ended with {_describe_exit(exit_code)}; it was started again."
        return self._abort(FailureCode.ENGINE_CRASHED, message)

    def _enforce_limits(self) -> list[WorkerReport]:
        now_s = time.monotonic()
        if self._process is None:
            return []
        if self.info is None and now_s > self._load_deadline_s:
            _log.error("engine not loaded in time", limit_s=self._limits.load_s)
            self._replace()
            return [EngineNotLoaded(f"not loaded within {self._limits.load_s:g} s", permanent=False)]
        run = self._run
        held_bytes = resident_bytes(self._process.pid)
        if held_bytes > self._max_bytes:
            return self._end_for_memory(held_bytes)
        if run is None:
            return []
        if run.cancelled_s is not None and now_s - run.cancelled_s > CANCEL_GRACE_S:
            return self._abort(FailureCode.ENGINE_FAILED, "cancelled")
        if now_s > run.deadline_s:
            limit_s = run.deadline_s - run.began_s
            _log.error("job passed its time limit, ending the worker", limit_s=round(limit_s, 1))
            return self._abort(
                FailureCode.ENGINE_TIMEOUT,
                f"The engine did not finish within {limit_s:.0f} s and was ended. If this machine is slow, raise "
                "OMI_JOB_TIMEOUT_FACTOR.",
            )
        return []

    def _end_for_memory(self, held_bytes: int) -> list[WorkerReport]:
        """End a worker before the machine is out of memory, and the agent with it."""
        _log.error("worker passed its memory limit, ending it", held_bytes=held_bytes, limit_bytes=self._max_bytes)
        message = (
            f"The worker held {held_bytes / GB:.1f} GB of memory, may hold {self._max_bytes / GB:.1f} GB, and was "
            "ended. Send shorter jobs to this agent, or raise OMI_MAX_WORKER_GB."
        )
        if self.info is None:
            self._replace()
            return [EngineNotLoaded(message, permanent=False)]
        return self._abort(FailureCode.ENGINE_CRASHED, message)

    def _abort(self, code: FailureCode, message: str) -> list[WorkerReport]:
        run = self._run
        self._replace()
        if run is None:
            return []
        return [JobFailed(run.token, code, message, is_cancelled=run.cancelled_s is not None)]

    def _recycle_if_due(self) -> None:
        """Start the idle process again where it has done or holds enough. Its last job was reported already."""
        reason = why_recycle(self._jobs, self.memory, self._recycle)
        if reason is None:
            return
        _log.info("worker started again between jobs", reason=reason)
        self._end_process()
        self.info = None
        self.recycles += 1
        self.recycled_for, self.is_recycling = reason, True
        self.start()

    def _replace(self) -> None:
        """End the process and plan the next; ever later while none of them lives to load its engine."""
        self.is_recycling = False
        self._end_process()
        self.info = None
        self._run = None
        self._restart_s = time.monotonic() + self._restart_pause.pause_s
        self._restart_pause = self._restart_pause.longer()

    def _end_process(self) -> None:
        process = self._process
        self._process = self._pipe = None
        self._reports = queue.SimpleQueue()
        if process is not None and process.pid is not None:
            process.kill()  # also where it is stopped (SIGSTOP); its listener ends with the pipe
            process.join(JOIN_S)


def _listen(pipe: Connection, arriving: queue.SimpleQueue[WorkerReport | _Gone], wake: Callable[[], None]) -> None:
    try:
        while True:
            arriving.put(pipe.recv())
            wake()
    except (EOFError, OSError):
        arriving.put(_Gone())
        wake()
    finally:
        pipe.close()  # here and nowhere else: a number closed under a reader may be another file by then


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code == -signal.SIGKILL:
        return f"signal {-code} (if nobody ended it, the system ran out of memory)"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
