"""A real worker process with the tone engine, and how to wait for its reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mac_agent.engines.engine import Hints
from mac_agent.inference import ChunkSource, EngineLoaded, JobFailed, JobResult, WorkerJob
from mac_agent.worker import Worker
from tests.inbox import WAIT_S


def do_nothing() -> None:
    """What is done between two polls by default."""


def next_report(worker: Worker, *kinds: type, while_waiting: Callable[[], None] = do_nothing):
    """The next report of one of the kinds."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for report in worker.poll():
            if isinstance(report, kinds):
                return report
        while_waiting()
        time.sleep(0.01)
    raise AssertionError(f"no {kinds} within {WAIT_S} s")


def ready(worker: Worker) -> None:
    while not worker.is_idle:
        next_report(worker, EngineLoaded)


def job(token: int, *paths: Path, max_audio_s: float = 600.0, starts=None) -> WorkerJob:
    starts = starts or [None] * len(paths)
    sources = tuple(ChunkSource(path, start_s=start) for path, start in zip(paths, starts, strict=True))
    return WorkerJob(token, sources, Hints(), max_audio_s)


def is_done_well(worker: Worker, token: int, path: Path) -> bool:
    ready(worker)
    worker.submit(job(token, path))
    report = next_report(worker, JobResult, JobFailed)
    return isinstance(report, JobResult) and report.token == token and bool(report.diarization.turns)
