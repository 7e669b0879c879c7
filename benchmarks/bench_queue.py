"""Ten thousand queued payloads: the memory of bridge and agent, and what a job costs at each length of the queue.

    python -m benchmarks.bench_queue                       10,000 conversations of one small chunk
    python -m benchmarks.bench_queue --jobs 1000 --json
    python -m benchmarks.bench_queue --conversations 20    few conversations with many chunks

The payloads are queued while no agent runs; then one agent with an engine that answers at once does all jobs. Bridge,
agent and Mosquitto are real processes with the defaults a user has. The resident memory and the processor time of
bridge and agent are read as jobs are done, and `omi-bridge jobs` is timed while the queue is full.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks.delivery import RunningPipeline, cpu_seconds, find_mosquitto, make_wav, rss_mib, run_pipeline
from broker.logs import silence_logs
from tests.brokers import run_mosquitto

REPORT = Path(__file__).with_name("queue.md")
CHUNK_S = 0.5
AT_ONCE = 64
FIRST_MARK = 100
SAMPLES = 10


@dataclass(frozen=True)
class Mark:
    """Measurements when `done` jobs were done; processor and wall time are per job since the mark before."""

    done: int
    wall_ms: float
    bridge_cpu_ms: float
    agent_cpu_ms: float
    bridge_mib: float
    agent_mib: float
    worker_mib: float


@dataclass(frozen=True)
class QueueMeasurement:
    """One run."""

    jobs: int
    conversations: int
    queued_per_second: float
    bridge_mib_queued: tuple[float, float]
    """Resident memory of the bridge with the first hundred queued, and with all."""
    listing_s: float
    """Of the whole process `omi-bridge jobs`, with the queue full."""
    help_s: float
    """Of the same process when it only prints its help, which is the time that Python takes to start."""
    marks: tuple[Mark, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--conversations", type=int, help="default: one for each payload")
    parser.add_argument("--json", action="store_true", help="numbers for a program instead of a table")
    options = parser.parse_args()
    silence_logs()
    if find_mosquitto() is None:
        sys.exit("mosquitto is not installed: apt-get install mosquitto, or brew install mosquitto")
    with (
        tempfile.TemporaryDirectory() as scratch,
        Progress(console=Console(stderr=True), transient=True) as progress,
        run_mosquitto(Path(scratch)) as broker,
        run_pipeline(broker, Path(scratch) / "data") as pipeline,
    ):
        outcome = run(pipeline, options.jobs, options.conversations or options.jobs, progress)
    report = render(outcome)
    print(json.dumps(asdict(outcome), indent=2) if options.json else report)
    if options.jobs >= 10_000 and options.conversations is None:
        machine = f"{platform.platform(terse=True)}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
        head = (
            f"# A long queue\n\nWritten by `make bench-queue` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; do not edit."
        )
        REPORT.write_text(f"{head}\n{machine}; Python {platform.python_version()}.\n\n{report}", encoding="utf-8")


def run(pipeline: RunningPipeline, jobs: int, conversations: int, progress: Progress) -> QueueMeasurement:
    """Queue all payloads, measure, let the agent do all jobs."""
    # One job for each chunk, as neither the length of jobs nor pauses are measured here.
    bridge = pipeline.start_bridge(OMI_MIN_JOB_S="0.2", OMI_MAX_JOB_S="0.4", OMI_OVERLAP_S="0", OMI_PAUSE_S="1")
    pipeline.allow_agent()
    task = progress.add_task("queueing", total=jobs)
    began_s, queued_mib = time.monotonic(), [0.0, 0.0]
    audio = make_wav(CHUNK_S)
    for place in range(jobs):
        name = f"q-{place % conversations}"
        if place >= AT_ONCE:
            wait_chunk(pipeline, place - AT_ONCE)
        pipeline.backend.send(name, audio, chunk_id=f"c-{place}", sequence=place, final=place >= jobs - conversations)
        if place == FIRST_MARK:
            queued_mib[0] = rss_mib(bridge.pid)
        progress.advance(task)
    for place in range(max(0, jobs - AT_ONCE), jobs):
        wait_chunk(pipeline, place)
    queued_s, queued_mib[1] = time.monotonic() - began_s, rss_mib(bridge.pid)
    listing_s, help_s = time_command(pipeline, "jobs"), time_command(pipeline, "jobs", "--help")
    agent = pipeline.start_agent()
    marks = drain(pipeline, {"bridge": bridge.pid, "agent": agent.pid}, jobs, progress)
    return QueueMeasurement(
        jobs, conversations, jobs / queued_s, (queued_mib[0], queued_mib[1]), listing_s, help_s, tuple(marks)
    )


def wait_chunk(pipeline: RunningPipeline, place: int) -> None:
    """Wait for the receipt of a chunk."""
    pipeline.backend.wait(lambda: f"c-{place}" in pipeline.backend.accepted_chunks, f"the receipt of chunk {place}")


def drain(pipeline: RunningPipeline, pids: dict[str, int], jobs: int, progress: Progress) -> list[Mark]:
    """Wait for the jobs to end, by the agent's own count, and measure what was used in between."""
    wanted = [FIRST_MARK, *(round(jobs * part / SAMPLES) for part in range(1, SAMPLES + 1))]
    task = progress.add_task("draining", total=jobs)
    marks: list[Mark] = []
    before, before_s, before_done = cpu_seconds(pids), time.monotonic(), 0
    for mark in sorted(set(wanted)):
        done = wait_done(pipeline, mark, lambda count: progress.update(task, completed=count))
        now, now_s = cpu_seconds(pids), time.monotonic()
        each = max(1, done - before_done)
        workers = [child.memory_info().rss / 2**20 for child in psutil.Process(pids["agent"]).children()]
        marks.append(
            Mark(
                done,
                1000 * (now_s - before_s) / each,
                1000 * (now["bridge"] - before["bridge"]) / each,
                1000 * (now["agent"] - before["agent"]) / each,
                rss_mib(pids["bridge"]),
                rss_mib(pids["agent"]),
                max(workers, default=0.0),
            )
        )
        before, before_s, before_done = now, now_s, done
    return marks


def wait_done(pipeline: RunningPipeline, count: int, report: Callable[[int], None]) -> int:
    """Wait until the agent reports `count` jobs done; fails where none is done for two minutes."""
    last_s, last = time.monotonic(), 0
    while (done := pipeline.backend.jobs_done) < count:
        if done != last:
            last_s, last = time.monotonic(), done
        assert time.monotonic() - last_s < 120, f"no job was done for two minutes: {done} of {count}"
        report(done)
        time.sleep(0.05)
    return done


def time_command(pipeline: RunningPipeline, *arguments: str) -> float:
    """Return the seconds that `omi-bridge …` takes."""
    environment = pipeline.environment("bridge")
    began_s = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", *arguments],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.monotonic() - began_s


def render(outcome: QueueMeasurement) -> str:
    """The table, in Markdown."""
    first, second, last = outcome.marks[0], outcome.marks[1], outcome.marks[-1]
    held = outcome.bridge_mib_queued
    words = f"""\
{outcome.jobs} payloads of {CHUNK_S} s in {outcome.conversations} conversations, queued with no agent at
{outcome.queued_per_second:.0f} a second: the bridge had {held[0]:.0f} MiB after the first {FIRST_MARK} and
{held[1]:.0f} MiB with all. `omi-bridge jobs` took {outcome.listing_s:.2f} s then, its `--help` {outcome.help_s:.2f} s.

| jobs done | wall ms a job | bridge CPU ms a job | agent CPU ms a job | bridge MiB | agent MiB | worker MiB |
|---|---|---|---|---|---|---|
"""
    rows = [
        f"| {mark.done} | {mark.wall_ms:.1f} | {mark.bridge_cpu_ms:.1f} | {mark.agent_cpu_ms:.1f} | "
        f"{mark.bridge_mib:.0f} | {mark.agent_mib:.0f} | {mark.worker_mib:.0f} |\n"
        for mark in outcome.marks
    ]
    bridge, agent = last.bridge_mib / first.bridge_mib - 1, last.agent_mib / first.agent_mib - 1
    verdict = f"""
- memory from job {first.done} to job {last.done}: bridge {bridge:+.0%}, agent {agent:+.0%} (aim: within 10 %).
- bridge CPU a job at the end to that at job {second.done}: {last.bridge_cpu_ms / second.bridge_cpu_ms:.2f} (flat is 1).
"""
    return words + "".join(rows) + verdict


if __name__ == "__main__":
    main()
