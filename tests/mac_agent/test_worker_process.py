from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from mac_agent.inference import (
    EngineLoaded,
    EngineNotLoaded,
    JobFailed,
    JobResult,
)
from mac_agent.worker import Worker, WorkerLimits
from schemas.failure import FailureCode
from tests.inbox import eventually
from tests.mac_agent.live_worker import is_done_well, job, next_report, ready
from tests.mac_agent.sounds import as_wav, tone
from tests.mac_agent.tone_engine import load_tone_engine
from tests.pace import paced

ROOT = Path(__file__).parents[2]


def test_chunks_are_diarized_on_one_timeline(start_worker, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(as_wav(tone(300, 2)))
    second.write_bytes(as_wav(tone(700, 2, rate_hz=44_100), rate_hz=44_100))
    worker = start_worker()
    ready(worker)
    worker.submit(job(7, first, second, starts=[0.0, 5.0]))
    result = next_report(worker, JobResult)
    assert result.token == 7
    assert result.duration_s == pytest.approx(7.0, abs=0.01)
    assert [(span.start_s, round(span.duration_s, 2)) for span in result.placed] == [(0.0, 2.0), (5.0, 2.0)]
    spoken = [(round(t.start_s, 1), round(t.end_s, 1), t.speaker) for t in result.diarization.turns]
    assert spoken == [(0.0, 2.0, "TONE_300"), (5.0, 7.0, "TONE_700")]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_costs_one_attempt_and_the_next_job_runs(start_worker, behaviour, speech, kill):
    behaviour.write_text("once wait 30")
    worker = start_worker()
    ready(worker)
    worker.submit(job(1, speech))
    eventually(lambda: behaviour.read_text() == "")
    os.kill(worker.pid, kill)
    failure = next_report(worker, JobFailed)
    assert (failure.token, failure.code, failure.is_cancelled) == (1, FailureCode.ENGINE_CRASHED, False)
    assert f"signal {kill.value}" in failure.message
    assert is_done_well(worker, 2, speech)


def test_an_idle_worker_that_is_killed_comes_back(start_worker, speech):
    worker = start_worker()
    ready(worker)
    os.kill(worker.pid, signal.SIGKILL)
    next_report(worker, EngineLoaded)
    assert is_done_well(worker, 1, speech)


@pytest.mark.parametrize("hang", ["stop", "spin 600"])
def test_a_worker_that_hangs_is_ended_at_its_time_limit(start_worker, behaviour, speech, hang):
    behaviour.write_text(f"once {hang}")
    worker = start_worker(floor_s=paced(1.5), factor=0.1)
    ready(worker)
    pid = worker.pid
    worker.submit(job(1, speech))
    failure = next_report(worker, JobFailed)
    assert failure.code is FailureCode.ENGINE_TIMEOUT
    assert not psutil.pid_exists(pid)
    assert is_done_well(worker, 2, speech)


def test_longer_audio_gets_more_time(start_worker, behaviour, tmp_path):
    behaviour.write_text("wait 2")
    long = tmp_path / "long"
    long.write_bytes(as_wav(tone(300, 60)))
    worker = start_worker(floor_s=1.0, factor=1.0)
    assert is_done_well(worker, 1, long)


@pytest.mark.parametrize(("behaviour_text", "words"), [("raise", "ValueError"), ("memory", "out of memory")])
def test_an_exception_is_a_failure_without_the_words_of_the_exception(
    start_worker, behaviour, speech, behaviour_text, words
):
    behaviour.write_text(f"once {behaviour_text}")
    worker = start_worker()
    ready(worker)
    worker.submit(job(1, speech))
    failure = next_report(worker, JobFailed)
    assert failure.code is FailureCode.ENGINE_FAILED
    assert words in failure.message
    assert "conversation" not in failure.message
    assert is_done_well(worker, 2, speech)


def test_audio_that_cannot_be_decoded_names_its_chunk_and_keeps_the_worker(start_worker, speech, tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"not audio")
    worker = start_worker()
    ready(worker)
    pid = worker.pid
    worker.submit(job(1, bad))
    failure = next_report(worker, JobFailed)
    assert (failure.code, failure.chunk_index) == (FailureCode.AUDIO_UNDECODABLE, 0)
    worker.submit(job(2, speech, bad))
    assert set(next_report(worker, JobResult).undecoded) == {1}
    assert is_done_well(worker, 3, speech)
    assert worker.pid == pid


def test_a_job_longer_than_allowed_is_refused_over_all_its_chunks(start_worker, speech):
    worker = start_worker()
    ready(worker)
    worker.submit(job(1, speech, speech, max_audio_s=3.0))
    assert next_report(worker, JobFailed).code is FailureCode.AUDIO_TOO_LONG


def test_a_cancelled_job_ends_soon_and_the_worker_stays(start_worker, behaviour, speech):
    behaviour.write_text("once wait 600")
    worker = start_worker()
    ready(worker)
    pid = worker.pid
    worker.submit(job(1, speech))
    eventually(lambda: behaviour.read_text() == "")
    worker.cancel(1)
    assert next_report(worker, JobFailed).is_cancelled
    assert is_done_well(worker, 2, speech)
    assert worker.pid == pid


def test_a_cancellation_that_comes_too_late_does_not_hit_the_next_job(start_worker, behaviour, speech):
    worker = start_worker()
    assert is_done_well(worker, 1, speech)
    worker.cancel(1)
    assert is_done_well(worker, 2, speech)


def test_an_engine_that_cannot_be_loaded_says_what_to_do(start_worker, behaviour):
    behaviour.write_text("cannot-load")
    report = next_report(start_worker(), EngineNotLoaded)
    assert report.permanent
    assert "OMI_DEVICE" in report.message


def test_stop_leaves_no_process(start_worker, behaviour, speech):
    behaviour.write_text("spin 600")
    worker = start_worker()
    ready(worker)
    worker.submit(job(1, speech))
    pid = worker.pid
    worker.stop()
    assert not psutil.pid_exists(pid)


# A program that starts a worker, gives it a job or none, prints its pid, and waits to be killed.
PARENT = """
import sys, time
from functools import partial
from pathlib import Path
from mac_agent.engines.engine import Hints
from mac_agent.inference import ChunkSource, WorkerJob
from mac_agent.worker import WorkerLimits, Worker
from tests.mac_agent.tone_engine import load_tone_engine

if __name__ == "__main__":
    worker = Worker(partial(load_tone_engine, Path({behaviour!r})), WorkerLimits(60, 600, 1))
    worker.start()
    while not worker.is_idle:
        worker.poll()
        time.sleep(0.01)
    if {at_work!r}:
        worker.submit(WorkerJob(1, (ChunkSource(Path({speech!r})),), Hints(), 600))
        time.sleep(1)
    print(worker.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kernel_helps", [True, False], ids=["as on Linux", "as on a Mac"])
@pytest.mark.parametrize("at_work", ["", "wait 600", "spin 600"])
def test_the_worker_ends_when_its_parent_is_killed(tmp_path, behaviour, speech, at_work, kernel_helps):
    behaviour.write_text(at_work)
    parent_script = tmp_path / "parent.py"
    parent_script.write_text(PARENT.format(behaviour=str(behaviour), speech=str(speech), at_work=at_work))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not kernel_helps and sys.platform == "linux":
        environment["OMI_TEST_NO_PDEATHSIG"] = "1"
    parent = subprocess.Popen(
        [sys.executable, parent_script], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert parent.stdout is not None
    try:
        worker_pid = int(parent.stdout.readline())
        assert psutil.pid_exists(worker_pid)
        parent.kill()
        parent.wait()
        eventually(lambda: not _runs(worker_pid))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie (an orphan is reaped by whoever adopted it)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_start_that_is_interrupted_leaves_no_process_that_cannot_be_ended(behaviour, monkeypatch):
    """Ctrl-C while the process is being started; one left over keeps Python from exiting."""

    def interrupt(**_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mac_agent.worker.threading.Thread", interrupt)
    worker = Worker(partial(load_tone_engine, behaviour), WorkerLimits(60.0, 60.0, 10.0))
    with pytest.raises(KeyboardInterrupt):
        worker.start()
    pid = worker.pid
    assert pid is not None
    worker.stop()
    eventually(lambda: not psutil.pid_exists(pid))
