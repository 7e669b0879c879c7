"""A worker that has done or holds enough is started again between two jobs: none fails, nobody notices but the log."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil

from mac_agent.engines.device_memory import device_bytes
from mac_agent.inference import JobFailed
from mac_agent.recycling import GB, RecycleLimits, WorkerMemory, why_recycle
from mac_agent.worker import Worker
from tests.inbox import eventually
from tests.mac_agent.live_worker import is_done_well, job, next_report, ready
from tests.mac_agent.sounds import as_wav, tone


def memory(rss_gb: float, device_gb: float = 0.0) -> WorkerMemory:
    return WorkerMemory(round(rss_gb * GB), round(device_gb * GB))


def test_nothing_is_recycled_where_both_limits_are_off():
    assert why_recycle(10**6, memory(900, 900), RecycleLimits()) is None


def test_jobs_are_counted_whatever_the_memory():
    assert why_recycle(2, None, RecycleLimits(jobs=3)) is None
    assert why_recycle(3, None, RecycleLimits(jobs=3)) == "3 jobs done"


def test_a_device_is_judged_by_its_drivers_memory_and_the_cpu_by_the_resident_size():
    limits = RecycleLimits(bytes=6 * GB)
    assert why_recycle(1, memory(5.9), limits) is None
    assert why_recycle(1, memory(6.1), limits) == "6.1 GB of resident memory after 1 jobs, 6.0 GB allowed"
    assert why_recycle(1, memory(9.0, device_gb=1.0), limits) is None
    assert (
        why_recycle(7, memory(1.4, device_gb=18.0), limits) == "18.0 GB of device memory after 7 jobs, 6.0 GB allowed"
    )


def test_a_worker_on_the_cpu_holds_nothing_on_a_device():
    assert device_bytes("cpu") == device_bytes("cpu (mps refused)") == 0


# ------------------------------------------------------------------------------------- a real worker process


def process_that_does(worker: Worker, token: int, path: Path) -> int:
    """The process that did the job."""
    ready(worker)
    pid = worker.pid
    assert pid is not None
    assert is_done_well(worker, token, path)
    return pid


def test_after_so_many_jobs_another_process_does_the_next_and_none_fails(start_worker, speech):
    worker = start_worker(recycle=RecycleLimits(jobs=2))
    pids = [process_that_does(worker, token, speech) for token in range(1, 6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert (worker.recycles, worker.restarts) == (2, 0)
    assert not psutil.pid_exists(pids[0])
    assert worker.recycled_for == "2 jobs done"


def test_a_process_that_keeps_too_much_is_replaced_with_its_memory(start_worker, speech, behaviour):
    worker = start_worker(recycle=RecycleLimits(bytes=GB // 2))
    first = process_that_does(worker, 1, speech)
    assert worker.memory is not None
    assert 0 < worker.memory.rss_bytes < GB // 2
    behaviour.write_text("once keep 600")
    assert process_that_does(worker, 2, speech) == first
    assert worker.recycles == 1
    assert "resident memory after 2 jobs" in worker.recycled_for
    assert process_that_does(worker, 3, speech) != first
    assert worker.recycles == 1
    assert worker.memory.rss_bytes < GB // 2


def test_without_limits_one_process_does_all(start_worker, speech, behaviour):
    behaviour.write_text("keep 50")
    worker = start_worker(recycle=RecycleLimits())
    assert len({process_that_does(worker, token, speech) for token in range(1, 8)}) == 1


def test_audio_that_cannot_be_decoded_counts_as_a_job(start_worker, speech, tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"not audio")
    worker = start_worker(recycle=RecycleLimits(jobs=1))
    ready(worker)
    worker.submit(job(1, bad))
    next_report(worker, JobFailed)
    assert worker.recycles == 1
    process_that_does(worker, 2, speech)


def test_a_worker_killed_while_it_is_being_replaced_comes_back(start_worker, speech):
    worker = start_worker(recycle=RecycleLimits(jobs=1))
    process_that_does(worker, 1, speech)
    assert worker.is_recycling
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    process_that_does(worker, 2, speech)
    assert (worker.restarts, worker.recycles) == (1, 2)


# ------------------------------------------------------------------------------------------ a real agent


def test_an_agent_goes_on_taking_jobs_and_stays_online_while_its_worker_is_replaced(
    mosquitto, start_agent, small_bridge
):
    bridge = small_bridge(mosquitto, settles=True)
    agent = start_agent(mosquitto, heartbeat_s=0.1, recycle_jobs=1, max_jobs=3)
    bridge.wait_online()
    seen = len(bridge.beats.items)
    for number in range(1, 4):
        bridge.offer(f"job-{number}", as_wav(tone(300, 2)))
    for number in range(1, 4):
        bridge.wait_turns(f"job-{number}")
    bridge.wait_beat(lambda beat: "3 times" in beat.message.notes.get("worker", ""))
    eventually(lambda: json_lines(agent.log_file, "worker started again between jobs") == 3)
    beats = [beat.message for beat in bridge.beats.items[seen:] if not beat.retained]
    assert {beat.state.value for beat in beats} == {"online"}
    assert all(beat.free_capacity == 3 - len([job for job in beat.jobs if job.state != "outbox"]) for beat in beats)
    assert any("is being started again" in beat.notes.get("worker", "") for beat in beats)
    assert bridge.failures.items == []
    assert {beat.memory.device_bytes for beat in beats} == {0}
    assert json_lines(agent.log_file, "worker ended") == 0


def json_lines(log_file: Path, event: str) -> int:
    lines = [line for line in log_file.read_text().splitlines() if line.startswith("{")]
    return sum(json.loads(line)["event"] == event for line in lines)
