"""How fairly a bridge shares a backlog among many agents, and how soon it is done: `python -m benchmarks.bench_fleet`.

A real Mosquitto and a real bridge; agents whose engines only take their time, each at its own speed, in one process
(`tests/fleet.py`). The clock runs from the moment the agents are allowed, with the backlog waiting, to the last result.

The ideal is the backlog's audio over the sum of all speeds: no schedule is faster. Nobody reaches it, since jobs are
whole and the last ones end at different times.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import soundfile

from broker.logs import configure_logs, silence_logs
from schemas.bridge import BridgeHeartbeat
from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType
from tests.brokers import run_mosquitto
from tests.fleet import Fleet
from tests.vps_bridge.live_bridge import TOPICS, Backend, audio_payload, run_bridge, wait_until

RATE_HZ = 16_000
WAIT_S = 1_200.0
MIN_AUDIO_S, MAX_AUDIO_S = 30, 120
SPEEDS_X = (3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0)
"""Of agents, in times real time: a tenth of what Macs reach, so that two cores carry the bridge and fifty of them."""


@dataclass(frozen=True)
class FleetRun:
    """One backlog, finished."""

    agents: int
    jobs: int
    audio_s: float
    took_s: float
    ideal_s: float
    half_over_ideal: float
    """When half of the audio was worked through, over the ideal for half."""
    share_error_mean: float
    """Of each agent's share of the first half, against its share of the speed: mean of |audio / speed - 1|."""
    share_error_worst: float
    bridge_cpu_s: float
    dispatch_ms: float


def flac_of_silence(seconds: float) -> bytes:
    """Return so much silence in a few kilobytes: the bridge only reads how long it is."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(round(seconds * RATE_HZ), dtype=np.int16), RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def draw_speeds(agents: int, seed: int) -> dict[str, float]:
    """Return the speed of each agent by its id: a few kinds of Macs, mixed."""
    draw = random.Random(seed)  # noqa: S311 - the same each time
    return {f"mac-{number:02}": draw.choice(SPEEDS_X) for number in range(agents)}


def fill(backend: Backend, jobs: int, seed: int) -> float:
    """Publish a conversation for each job; return the seconds of audio in all of them."""
    draw = random.Random(seed)  # noqa: S311 - the same each time
    files = {seconds: flac_of_silence(seconds) for seconds in range(MIN_AUDIO_S, MAX_AUDIO_S + 1, 10)}
    audio_s = 0.0
    for number in range(jobs):
        seconds = draw.choice(sorted(files))
        audio_s += seconds
        name = f"talk-{number}"
        payload = audio_payload(name, files[seconds], chunk_id="c1", duration_s=float(seconds))
        backend.publish(TOPICS.audio(name), payload)
        event = ConversationEvent(event_id=f"end-{number}", type=EventType.COMPLETED, chunks=1)
        backend.session.publish(TOPICS.events(name), encode(event)).wait(WAIT_S)
    return audio_s


def finish_backlog(agents: int, jobs: int, seed: int, directory: Path) -> FleetRun:
    """Let a fleet finish a backlog."""
    speeds = draw_speeds(agents, seed)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(run_mosquitto(directory, agent_ids=tuple(speeds)))
        backend = Backend(broker)
        stack.callback(backend.stop)
        bridge = stack.enter_context(run_bridge(broker, directory / "bridge", backend, OMI_PAUSE_S="0.5"))
        audio_s = fill(backend, jobs, seed)
        wait_until(lambda: len(bridge.logged("job_ready")) >= jobs, "the backlog", WAIT_S)
        fleet = stack.enter_context(Fleet(broker.settings, speeds))
        ready = tuple(sorted(speeds))
        wait_until(lambda: backend.seen(BridgeHeartbeat)[-1].agents_waiting == ready, "the agents", WAIT_S)
        assert bridge.process is not None
        process = psutil.Process(bridge.process.pid)
        before_s, began_s = sum(process.cpu_times()[:2]), time.monotonic()
        bridge.allow(*speeds)
        at_half: dict[str, float] = {}
        while len({name for agent in fleet.agents.values() for name in agent.settled}) < jobs:
            assert fleet.problems == [], fleet.problems
            assert time.monotonic() < began_s + WAIT_S, "the backlog is not done"
            time.sleep(0.05)
            worked_s = {name: agent.worked_s(time.monotonic()) for name, agent in fleet.agents.items()}
            if not at_half and sum(worked_s.values()) >= audio_s / 2:
                at_half, half_s = worked_s, time.monotonic() - began_s
        took_s, cpu_s = time.monotonic() - began_s, sum(process.cpu_times()[:2]) - before_s
    ideal_s = audio_s / sum(speeds.values())
    errors = share_errors(at_half, speeds)
    return FleetRun(
        agents=agents,
        jobs=jobs,
        audio_s=audio_s,
        took_s=took_s,
        ideal_s=ideal_s,
        half_over_ideal=half_s / (ideal_s / 2),
        share_error_mean=sum(errors) / len(errors),
        share_error_worst=max(errors),
        bridge_cpu_s=cpu_s,
        dispatch_ms=1000 * cpu_s / jobs,
    )


def share_errors(done_s: Mapping[str, float], speeds: Mapping[str, float]) -> list[float]:
    """Return for each agent how far its share of the audio is from its share of the speed, as a part of the latter."""
    all_s, all_x = sum(done_s.values()), sum(speeds.values())
    return [abs(done_s[name] / all_s / (speed / all_x) - 1) for name, speed in speeds.items()]


def main() -> None:
    """Print a line for each size of the fleet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--agents", type=int, nargs="+", default=[5, 20, 50], help="sizes of the fleet")
    parser.add_argument("--jobs-each", type=int, default=8, help="conversations for each agent, one job each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    silence_logs()
    configure_logs(as_json=True)
    runs = []
    for agents in options.agents:
        with tempfile.TemporaryDirectory() as directory:
            runs.append(finish_backlog(agents, agents * options.jobs_each, options.seed, Path(directory)))
    if options.json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
        return
    print("| agents | jobs | audio | ideal | took | over ideal | half of it | audio off speed: mean, worst | bridge |")
    print("|---|---|---|---|---|---|---|---|---|")
    for run in runs:
        print(
            f"| {run.agents} | {run.jobs} | {run.audio_s:,.0f} s | {run.ideal_s:.1f} s | {run.took_s:.1f} s | "
            f"{run.took_s / run.ideal_s:.2f} | {run.half_over_ideal:.2f} | "
            f"{run.share_error_mean:.0%}, {run.share_error_worst:.0%} | {run.dispatch_ms:.1f} ms a job |"
        )


if __name__ == "__main__":
    main()
