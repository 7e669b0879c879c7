"""The memory of an agent over a thousand jobs: `python -m benchmarks.bench_thousand_jobs --help`.

A real Mosquitto and a real `omi-agent run`; the bridge's side of the contract (`tests.mac_agent.small_bridge`) offers
pieces of LibriSpeech, 2 to 6 s long and no two of one length, in five file formats. The worker is never recycled, so
that a leak shows. After every job the resident memory of the agent and of its worker is read.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import psutil
from scipy.signal import resample_poly

from benchmarks import recordings
from broker.logs import configure_logs
from demo.programs import DemoProgram, Programs
from schemas.agent import AgentState
from tests.brokers import AGENT_ID, RunningBroker, run_mosquitto
from tests.e2e.system import weights_dir, worker_pids
from tests.mac_agent.small_bridge import SmallBridge
from tests.mac_agent.sounds import as_wav, encode_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.turns import SpeakerTurns

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
SETTLED_AFTER = 50  # jobs in which memory may still grow: caches fill
FLAT_RATIO = 1.10
SHORTEST_S, LONGEST_S = 2.0, 6.0
AT_ONCE = 2  # one runs while the audio of the next one arrives
WAIT_S = 600.0
MIB = 1024**2
FORMATS = (("ogg", "libopus", 48_000), ("mp3", "libmp3lame", 44_100), ("mp4", "aac", 44_100), ("flac", "flac", 16_000))


@dataclass(frozen=True)
class Sample:
    """Memory after a job."""

    agent_mib: float
    worker_mib: float


def main() -> None:
    """Run the jobs, print the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--engine", default="embedded", choices=("embedded", "pyannote"))
    parser.add_argument("--pipeline", type=Path, help="for pyannote: a pipeline directory; without it a seeded one")
    parser.add_argument("--plot", type=Path, help="write the plot here (docs/thousand-jobs.png)")
    options = parser.parse_args()
    configure_logs(as_json=False)
    with tempfile.TemporaryDirectory() as scratch, run_mosquitto(Path(scratch)) as broker:
        began_s = time.monotonic()
        environment = prepare_agent(broker, Path(scratch), options)
        with (
            Programs(Path(scratch) / "logs") as programs,
            SmallBridge(broker.settings("bridge"), settles=True) as bridge,
        ):
            program = programs.start("omi-agent", "run", environment=environment)
            samples, seen = run_jobs(bridge, program, options.jobs)
        took_s = time.monotonic() - began_s
    report(samples, seen, took_s)
    if options.plot:
        draw(samples, seen[-1].engine.name, options.plot)


def prepare_agent(broker: RunningBroker, scratch: Path, options: argparse.Namespace) -> dict[str, str]:
    """Return the environment of an agent that never recycles its worker."""
    environment = broker.environment("agent") | {
        "OMI_AGENT_ID": AGENT_ID,
        "OMI_DATA_DIR": str(scratch / "agent"),
        "OMI_WEIGHTS_DIR": str(weights_dir()),
        "OMI_ENGINE": options.engine,
        "OMI_RECYCLE_JOBS": "0",
        "OMI_RECYCLE_GB": "0",
        "PYTHONPATH": str(ROOT),
    }
    if options.engine == "pyannote":
        directory = options.pipeline or scratch / "seeded"
        if options.pipeline is None:
            subprocess.run([sys.executable, "-m", "benchmarks.local_pipeline", directory], check=True, cwd=ROOT)
        trust = [sys.executable, "-c", "from mac_agent.commands.main import main; main()", "trust", str(directory)]
        subprocess.run(trust, check=True, cwd=ROOT, env=environment)
        environment["OMI_PIPELINE_DIR"] = str(directory)
    return environment


def run_jobs(bridge: SmallBridge, program: DemoProgram, count: int) -> tuple[list[Sample], list[SpeakerTurns]]:
    """Feed the agent and read its memory after each job.

    Raises:
        RuntimeError: a job failed, or the worker is another process than at the start.
    """
    bridge.beats.wait_for(lambda beat: beat.message.state is AgentState.ONLINE and not beat.retained, WAIT_S)
    (worker_pid,) = worker_pids(program.pid)
    agent, worker = psutil.Process(program.pid), psutil.Process(worker_pid)
    clips = make_clips()
    samples: list[Sample] = []
    seen: list[SpeakerTurns] = []
    for number in range(min(AT_ONCE, count)):
        bridge.offer(f"job-{number}", next(clips))
    for number in range(count):
        program.check()
        seen.append(bridge.wait_turns(f"job-{number}", WAIT_S))
        samples.append(Sample(agent.memory_info().rss / MIB, worker.memory_info().rss / MIB))
        if bridge.failures.items or worker_pids(program.pid) != [worker_pid]:
            msg = f"after job {number}: {bridge.failures.items or 'the worker was started again'}"
            raise RuntimeError(msg)
        if number + AT_ONCE < count:
            bridge.offer(f"job-{number + AT_ONCE}", next(clips))
        if (number + 1) % 50 == 0:
            now = samples[-1]
            print(f"{number + 1}: agent {now.agent_mib:.1f} MiB, worker {now.worker_mib:.1f} MiB", file=sys.stderr)
    return samples, seen


def make_clips() -> Iterator[bytes]:
    """Yield pieces of real utterances for ever, as files; lengths, voices and places come from a fixed seed."""
    random = np.random.default_rng(1000)
    speech = [np.concatenate(recordings.utterances(voice)) for voice in recordings.voices()]
    for kind in cycle((None, *FORMATS)):
        voice = speech[random.integers(len(speech))]
        length = int(random.uniform(SHORTEST_S, LONGEST_S) * recordings.SAMPLE_RATE_HZ)
        start = int(random.integers(len(voice) - length))
        clip = voice[start : start + length]
        if kind is None:
            yield as_wav(clip)
        else:
            container, codec, rate_hz = kind
            resampled = resample_poly(clip, rate_hz, recordings.SAMPLE_RATE_HZ)
            yield encode_file(resampled, container, codec, rate_hz=rate_hz)


def report(samples: list[Sample], seen: list[SpeakerTurns], took_s: float) -> None:
    """Print the memory over the jobs, as Markdown."""
    engine = seen[-1].engine
    audio_s = sum(turns.duration_s for turns in seen)
    with_turns = sum(bool(turns.turns) for turns in seen)
    ran = f"engine {engine.name} ({engine.mode}, {engine.device})"
    print(f"{platform.platform(terse=True)}, {os.cpu_count()} cores, {ran}")
    print(f"{len(samples)} jobs, {with_turns} of them with turns, {audio_s:.0f} s of audio in {took_s:.0f} s\n")
    marks = [mark for mark in (1, 10, SETTLED_AFTER, 100, 200, 500, 1000) if mark <= len(samples)]
    done = " | ".join(str(mark) for mark in marks)
    print(f"| resident MiB after job | {done} | most after {SETTLED_AFTER} | over job {SETTLED_AFTER} |")
    print("|---" * (len(marks) + 3) + "|")
    for name in ("agent", "worker"):
        values = [getattr(sample, f"{name}_mib") for sample in samples]
        settled = values[min(SETTLED_AFTER, len(values)) - 1]
        most = max(values[SETTLED_AFTER:], default=settled)
        verdict = "flat" if most <= FLAT_RATIO * settled else "NOT FLAT"
        cells = [f"{values[mark - 1]:.1f}" for mark in marks]
        print(f"| {name} | {' | '.join(cells)} | {most:.1f} | {100 * (most / settled - 1):+.1f} %, {verdict} |")


def draw(samples: list[Sample], engine: str, path: Path) -> None:
    """Draw both curves, each with the band it must stay in after the first fifty jobs."""
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(9, 5.5), layout="constrained")
    for axis, name in zip(axes, ("worker", "agent"), strict=True):
        values = [getattr(sample, f"{name}_mib") for sample in samples]
        settled = values[min(SETTLED_AFTER, len(values)) - 1]
        axis.plot(range(1, len(values) + 1), values, linewidth=1.2)
        axis.axhline(settled, color="0.6", linewidth=0.8)
        axis.axhline(FLAT_RATIO * settled, color="tab:red", linestyle="--", linewidth=0.8)
        axis.text(
            len(values), FLAT_RATIO * settled, "+10 % of job 50 ", va="bottom", ha="right", color="tab:red", size=8
        )
        axis.axvline(SETTLED_AFTER, color="0.6", linestyle=":", linewidth=0.8)
        axis.set_ylim(0, 1.25 * max(*values, FLAT_RATIO * settled))
        axis.set_ylabel(f"{name}, resident MiB")
    axes[0].set_title(f"{len(samples)} jobs in one agent, engine {engine}, the worker never recycled")
    axes[1].set_xlabel("jobs done")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
