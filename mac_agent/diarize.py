"""Diarize files without a broker, with the worker process, decoder and engine that the agent uses for a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mac_agent.engines.engine import Hints
from mac_agent.errors import EngineError
from mac_agent.inference import (
    ChunkSource,
    EngineNotLoaded,
    JobDecoded,
    JobFailed,
    JobProgress,
    JobResult,
    LoadEngine,
    WorkerJob,
    WorkerReport,
)
from mac_agent.worker import Worker, WorkerLimits

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.failure import FailureCode

POLL_S = 0.05


class DiarizeFailed(Exception):
    """The file could not be diarized; the message names the remedy."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def diarize_file(
    path: Path,
    load: LoadEngine,
    *,
    hints: Hints,
    limits: WorkerLimits,
    max_audio_s: float,
    report: Callable[[str, float], None],
) -> JobResult:
    """Diarize an audio file in a worker process.

    Args:
        path: an audio file in any format that the agent accepts as a chunk.
        load: loads the engine; called in the worker process.
        hints: the expected number of speakers.
        limits: time and memory limits of the worker.
        max_audio_s: longer audio is refused.
        report: called with (stage, fraction 0..1).

    Raises:
        EngineError: the engine could not be loaded.
        DiarizeFailed: the audio cannot be decoded, or the engine failed; `code` names the cause.
        OSError: the file cannot be read.
    """
    [result] = diarize_files([path], load, hints=hints, limits=limits, max_audio_s=max_audio_s, report=report)
    return result


def diarize_files(
    paths: Sequence[Path],
    load: LoadEngine,
    *,
    hints: Hints,
    limits: WorkerLimits,
    max_audio_s: float,
    report: Callable[[str, float], None],
) -> Iterator[JobResult]:
    """Diarize files one after the other in one worker process, up to the first that fails; see `diarize_file`."""
    for path in paths:
        with path.open("rb"):  # an unreadable file is reported here, because the worker's error does not name the file
            pass
    worker = Worker(load, limits)
    try:
        worker.start()
        report("load engine", 0.0)
        for token, path in enumerate(paths, start=1):
            yield _run(worker, WorkerJob(token, (ChunkSource(path),), hints, max_audio_s), report)
    finally:
        worker.stop()


def _run(worker: Worker, job: WorkerJob, report: Callable[[str, float], None]) -> JobResult:
    submitted = False
    while True:
        for worker_report in worker.poll():
            result = _handle(worker_report, report)
            if result is not None:
                return result
        if worker.is_idle and not submitted:
            submitted = True
            report("decode", 0.0)
            worker.submit(job)
        time.sleep(POLL_S)


def _handle(worker_report: WorkerReport, report: Callable[[str, float], None]) -> JobResult | None:
    """Return the result if this report is one; raise its error if it is a failure; else show the progress."""
    match worker_report:
        case JobResult():
            return worker_report
        case EngineNotLoaded():
            raise EngineError(worker_report.message)
        case JobFailed():
            raise DiarizeFailed(worker_report.code, worker_report.message)
        case JobDecoded():
            report(f"diarize {worker_report.duration_s:.0f} s", 0.0)
        case JobProgress():
            report(worker_report.stage, worker_report.fraction)
    return None
