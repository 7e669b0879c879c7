"""The worker process from the inside: load the engine, then one job after another.

It owns torch and the device. It reports to its parent through one pipe, and it ends when its parent does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING

import numpy as np
import psutil
import structlog

from broker.freed_memory import keep_freed_memory
from broker.stop_signals import ignore_signals
from mac_agent.audio import DecodedChunk, JoinedChunk, Quality, decode, join_chunks, judge_quality, measure_quality
from mac_agent.bands import match_bands
from mac_agent.engines.device_memory import device_bytes
from mac_agent.engines.engine import SAMPLE_RATE_HZ, Diarization, Engine, EngineInfo, Hints
from mac_agent.errors import AudioError, EngineError
from mac_agent.recycling import WorkerMemory
from mac_agent.telephone_laws import JUDGED_BYTES, LAW_NAMES, judge_law, measure_steps
from schemas.failure import FailureCode

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

LoadEngine = Callable[[], Engine]
"""Makes the engine, in the worker. Must be picklable: a function of a module, or a ``partial`` of one."""

PR_SET_PDEATHSIG = 1  # Linux, prctl(2)
ORPHAN_EXIT_CODE = 86
EMPTY_CHUNK = "audio.empty: a chunk has a header and no samples"
REPORT_EVERY_S = 0.2
SAMPLES_BYTES = 256 * 2**20  # freed memory kept for the next chunk and the next window


@dataclass(frozen=True)
class ChunkSource:
    """Where a chunk's bytes lie and what they are said to be."""

    path: Path
    encoding: str = "auto"
    sample_rate: int | None = None
    channels: int | None = None
    start_s: float | None = None


@dataclass(frozen=True)
class WorkerJob:
    """What the worker is asked to do."""

    token: int
    """The parent's name for this run; comes back with everything said about it."""
    chunks: tuple[ChunkSource, ...]
    hints: Hints
    max_audio_s: float


@dataclass(frozen=True)
class EngineLoaded:
    """The worker is ready."""

    info: EngineInfo


@dataclass(frozen=True)
class EngineNotLoaded:
    """The engine could not be loaded; `permanent` where only a person can change that."""

    message: str
    permanent: bool


@dataclass(frozen=True)
class JobDecoded:
    """The audio is in memory: from here on the time limit is known."""

    token: int
    duration_s: float


@dataclass(frozen=True)
class JobProgress:
    """How far the engine is."""

    token: int
    stage: str
    fraction: float


@dataclass(frozen=True, eq=False)
class JobResult:
    """What came out of a job."""

    token: int
    info: EngineInfo
    duration_s: float
    placed: tuple[JoinedChunk, ...]
    diarization: Diarization
    quality: Quality
    timings_ms: Mapping[str, float]
    warnings: tuple[str, ...]
    undecoded: Mapping[int, str] = field(default_factory=dict)
    """By their index the chunks that could not be decoded, and why; in `placed` they have no length."""


@dataclass(frozen=True)
class JobFailed:
    """Why nothing came out of a job."""

    token: int
    code: FailureCode
    message: str
    chunk_index: int | None = None
    is_cancelled: bool = False


WorkerReport = EngineLoaded | EngineNotLoaded | JobDecoded | JobProgress | JobResult | JobFailed | WorkerMemory


class _Cancelled(Exception):
    """The parent wants this job no more."""


class _ChunkError(Exception):
    """An `AudioError`, and which chunk it is about."""

    def __init__(self, index: int, error: AudioError) -> None:
        super().__init__(str(error))
        self.index, self.error = index, error


def serve(pipe: Connection, load: LoadEngine) -> None:
    """Be the worker process: load, then work until the parent closes the pipe or dies."""
    prepare_process()
    keep_freed_memory(SAMPLES_BYTES)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout may be a command's answer
    try:
        engine = load()
    except EngineError as error:
        pipe.send(EngineNotLoaded(str(error), permanent=True))
        return
    except Exception as error:  # noqa: BLE001 - whatever an engine raises is reported to the parent
        pipe.send(EngineNotLoaded(f"{type(error).__name__}: {error}"[:500], permanent=False))
        return
    pipe.send(EngineLoaded(engine.info))
    pipe.send(measure_memory(engine))
    with contextlib.suppress(EOFError):
        while True:
            job = pipe.recv()
            if isinstance(job, WorkerJob):  # anything else is a cancellation that came too late
                ended = _run(engine, job, pipe)
                pipe.send(measure_memory(engine))  # before the end of the job: the parent decides by it what comes next
                pipe.send(ended)


def measure_memory(engine: Engine) -> WorkerMemory:
    """Return what this process and its device hold now."""
    return WorkerMemory(int(psutil.Process().memory_info().rss), device_bytes(engine.info.device))


def prepare_process() -> None:
    """Set this process up to end with its parent, to ignore what ends programs, and to write no core dump."""
    # A core dump would hold audio.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ignore_signals()
    parent = parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_exit_with, args=(parent.sentinel,), name="parent watch", daemon=True).start()


def _exit_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(ORPHAN_EXIT_CODE)


def _run(engine: Engine, job: WorkerJob, pipe: Connection) -> JobResult | JobFailed:
    try:
        return run_job(
            engine, job, _reporter(engine, job, pipe), lambda duration_s: pipe.send(JobDecoded(job.token, duration_s))
        )
    except _Cancelled:
        return JobFailed(job.token, FailureCode.ENGINE_FAILED, "cancelled", is_cancelled=True)
    except _ChunkError as error:
        return JobFailed(job.token, error.error.code, str(error), chunk_index=error.index)
    except AudioError as error:
        return JobFailed(job.token, error.code, str(error))
    except EOFError:
        raise  # the parent is gone
    except MemoryError:
        return JobFailed(job.token, FailureCode.ENGINE_FAILED, _OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - one job's failure, whatever it is, ends that job only
        if "OutOfMemory" in type(error).__name__ or "out of memory" in str(error):
            return JobFailed(job.token, FailureCode.ENGINE_FAILED, _OUT_OF_MEMORY)
        at = _where(error)
        return JobFailed(
            job.token,
            FailureCode.ENGINE_FAILED,
            f"The engine raised {type(error).__name__} at {at}. If it happens again with other audio, report it.",
        )


# macOS empties ~/Library/Caches when the disk is nearly full. The bridge still has the audio: no attempt is counted.
_NOT_READABLE = "The audio cannot be read from this agent's disk any more and is asked for again. Make room on the disk"
_OUT_OF_MEMORY = "The engine ran out of memory. Close other programs, or send shorter jobs to this agent."


def _where(error: BaseException) -> str:
    """Name the innermost line; the error's own text may quote what no log may hold."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return f"{os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}" if frame else "?"  # noqa: PTH119


def _reporter(engine: Engine, job: WorkerJob, pipe: Connection) -> Callable[[str, float], None]:
    last_s = time.monotonic()  # that the job runs, the parent knows

    def report(stage: str, fraction: float) -> None:
        nonlocal last_s
        if pipe.poll():
            pipe.recv()
            raise _Cancelled
        now_s = time.monotonic()
        if now_s - last_s >= REPORT_EVERY_S or fraction >= 1.0:
            last_s = now_s
            pipe.send(JobProgress(job.token, stage, min(max(fraction, 0.0), 1.0)))
            pipe.send(measure_memory(engine))

    return report


def run_job(
    engine: Engine,
    job: WorkerJob,
    report: Callable[[str, float], None],
    note_decoded: Callable[[float], None],
) -> JobResult:
    """Decode the chunks, join them, diarize.

    Raises:
        _ChunkError: a chunk cannot be used.
        AudioError: all of them together cannot.
    """
    began_s = time.perf_counter()
    laws = _correct_laws(job.chunks)
    decoded, undecoded = _decode_all(job, laws, report)
    all_warnings = [warning for chunk in decoded for warning in chunk.warnings]
    all_warnings += [
        f"audio.header_wrong: it says {LAW_NAMES[named]}, the samples are {LAW_NAMES[law]}"
        for named, law in laws.items()
    ]
    all_warnings += match_bands(decoded)
    step = max(chunk.step for chunk in decoded)
    # Held here alone, so that `join_chunks` can let go of each.
    chunks = [(decoded.pop(0).waveform, source.start_s) for source in job.chunks]
    waveform, placed, warnings = join_chunks(chunks, max_s=job.max_audio_s)
    quality = measure_quality(waveform)
    decode_ms = 1000 * (time.perf_counter() - began_s)
    duration_s = waveform.size / SAMPLE_RATE_HZ
    note_decoded(duration_s)
    diarization = engine.diarize(waveform, job.hints, report)
    return JobResult(
        token=job.token,
        info=engine.info,
        duration_s=duration_s,
        placed=placed,
        diarization=diarization,
        quality=quality,
        timings_ms={"decode": decode_ms, **diarization.timings_ms, "total": 1000 * (time.perf_counter() - began_s)},
        warnings=tuple(dict.fromkeys([*all_warnings, *warnings, *judge_quality(quality, step), *diarization.warnings])),
        undecoded=undecoded,
    )


def _correct_laws(chunks: Sequence[ChunkSource]) -> dict[str, str]:
    """Return by the law that was named the one that samples are of, where it is the other.

    All chunks of a job are judged together: one voice under both laws would be two.
    """
    steps: dict[str, Counter[str]] = {law: Counter() for law in LAW_NAMES}
    for source in chunks:
        if source.encoding in steps:
            with contextlib.suppress(OSError), source.path.open("rb") as stream:  # told where it is decoded
                steps[source.encoding].update(measure_steps(stream.read(JUDGED_BYTES), source.channels or 1))
    return {named: law for named, found in steps.items() if (law := judge_law(named, found)) != named}


def _decode_all(
    job: WorkerJob, laws: Mapping[str, str], report: Callable[[str, float], None]
) -> tuple[list[DecodedChunk], Mapping[int, str]]:
    """Return all chunks as samples, and which could not be decoded. Raises `_ChunkError` where none could."""
    decoded: list[DecodedChunk] = []
    empty: _ChunkError | None = None
    undecoded: dict[int, _ChunkError] = {}
    left_s = job.max_audio_s
    for index, source in enumerate(job.chunks):
        report("decode", 0.0)
        try:
            with source.path.open("rb") as stream:
                chunk = decode(
                    stream,
                    encoding=laws.get(source.encoding, source.encoding),
                    sample_rate=source.sample_rate,
                    channels=source.channels,
                    max_s=left_s,
                    limit_s=job.max_audio_s,
                )
        except AudioError as error:
            failed = _ChunkError(index, error)
            if error.code is FailureCode.AUDIO_EMPTY:  # a recorder that was stopped at once: nothing of it is lost
                empty = empty or failed
            elif error.code is FailureCode.AUDIO_UNDECODABLE:
                undecoded[index] = failed
            else:
                raise failed from error
            chunk = DecodedChunk(np.zeros(0, dtype=np.float32), (EMPTY_CHUNK,) if index not in undecoded else ())
        except OSError as error:
            gone = AudioError(FailureCode.PAYLOAD_INCOMPLETE, f"{_NOT_READABLE} ({error.strerror})")
            raise _ChunkError(index, gone) from error
        left_s -= chunk.duration_s
        decoded.append(chunk)
    first = next(iter(undecoded.values()), empty)
    if first is not None and not any(chunk.waveform.size for chunk in decoded):
        raise first
    return decoded, {index: str(error) for index, error in undecoded.items()}
