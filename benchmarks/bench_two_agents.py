"""How long a backlog takes one agent and how long two: `python -m benchmarks.bench_two_agents --help`.

A real Mosquitto, a real bridge, real agents whose engine sleeps for a fixed time in each job: what is measured is how
well the bridge keeps them busy, not how fast this machine diarizes. The clock runs from the moment the agents are
allowed, with their engines loaded and the whole backlog waiting, to the last conversation's update.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from broker.logs import configure_logs, silence_logs
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import ConversationUpdated, EventType
from tests.brokers import run_mosquitto
from tests.faults.tone_calls import begin_call, call_audio
from tests.mac_agent.agent_process import start_tone_agent
from tests.vps_bridge.live_bridge import TOPICS, Backend, audio_payload, run_bridge, wait_until

AGENTS = ("first", "second")
PITCHES = (300, 700)
AIM_RATIO = 0.6
WAIT_S = 600.0


@dataclass(frozen=True)
class BacklogRun:
    """One backlog, finished."""

    agents: int
    took_s: float
    jobs_by_agent: dict[str, int]


def finish_backlog(agent_ids: tuple[str, ...], jobs: int, sleep_s: float, directory: Path) -> BacklogRun:
    """Let these agents finish a backlog of so many conversations, one job each."""
    audio, names = call_audio(PITCHES), [f"call-{number}" for number in range(jobs)]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(run_mosquitto(directory, agent_ids=AGENTS))
        backend = Backend(broker)
        stack.callback(backend.stop)
        bridge = stack.enter_context(run_bridge(broker, directory / "bridge", backend))
        for name in names:
            begin_call(backend, name, PITCHES)
            backend.publish(TOPICS.audio(name), audio_payload(name, audio, chunk_id="c1"))
            backend.event(name, EventType.COMPLETED, chunks=1)
        wait_until(lambda: len(bridge.logged("job_ready")) == jobs, "the backlog", WAIT_S)
        for agent_id in agent_ids:
            agent = start_tone_agent(broker, directory / agent_id, agent_id=agent_id, behaviour=f"wait {sleep_s}")
            stack.callback(agent.end)
            wait_until(lambda agent=agent: "engine loaded" in agent.log(), "the engine", WAIT_S)  # type: ignore[misc]
        ready = tuple(sorted(agent_ids))
        wait_until(lambda: backend.seen(BridgeHeartbeat)[-1].agents_waiting == ready, "the agents", WAIT_S)
        began_s = time.monotonic()
        bridge.allow(*agent_ids)

        def is_done() -> bool:
            return {u.conversation_id for u in backend.seen(ConversationUpdated) if u.state == "final"} == set(names)

        wait_until(is_done, "the last update", WAIT_S)
        took_s = time.monotonic() - began_s
        done = Counter(str(line["agent"]) for line in bridge.logged("turns", verdict="stored"))
    return BacklogRun(len(agent_ids), took_s, dict(done))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=24, help="conversations in the backlog, one job each")
    parser.add_argument("--sleep-s", type=float, default=2.0, help="how long the engine takes for a job")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    silence_logs()
    configure_logs(as_json=True)
    with tempfile.TemporaryDirectory() as directory:
        runs = [
            finish_backlog(AGENTS[:count], options.jobs, options.sleep_s, Path(directory) / str(count))
            for count in (1, 2)
        ]
    ratio = runs[1].took_s / runs[0].took_s
    if options.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "ratio": round(ratio, 3), "aim": AIM_RATIO}))
        return
    for run in runs:
        shares = ", ".join(f"{name} {count}" for name, count in sorted(run.jobs_by_agent.items()))
        busy = options.jobs * options.sleep_s / run.agents / run.took_s
        print(f"{run.agents} agent(s): {run.took_s:6.1f} s for {options.jobs} jobs ({shares}); engines busy {busy:.0%}")
    print(f"two take {ratio:.0%} of the time of one (aim: at most {AIM_RATIO:.0%})")


if __name__ == "__main__":
    main()
