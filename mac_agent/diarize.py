"""One file, no broker: the same worker, decoder and engine as a job of the agent."""

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
        path: any file the agent would take as a chunk.
        load: makes the engine in the worker.
        hints: what is believed about the number of speakers.
        limits: how long it may take, and how much memory.
        max_audio_s: longest audio.
        report: called with (stage, fraction 0..1).

    Raises:
        EngineError: the engine could not be loaded.
        DiarizeFailed: the audio or the engine failed; `code` says which.
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
    """Diarize files one after the other in one worker process; see `diarize_file`. Ends at the first that fails."""
    for path in paths:
        with path.open("rb"):  # the worker's own error would not say which file
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
        for word in worker.poll():
            result = _take(word, report)
            if result is not None:
                return result
        if worker.is_idle and not submitted:
            submitted = True
            report("decode", 0.0)
            worker.submit(job)
        time.sleep(POLL_S)


def _take(word: WorkerReport, report: Callable[[str, float], None]) -> JobResult | None:
    match word:
        case JobResult():
            return word
        case EngineNotLoaded():
            raise EngineError(word.message)
        case JobFailed():
            raise DiarizeFailed(word.code, word.message)
        case JobDecoded():
            report(f"diarize {word.duration_s:.0f} s", 0.0)
        case JobProgress():
            report(word.stage, word.fraction)
    return None
