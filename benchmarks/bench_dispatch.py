"""What a heartbeat and a dispatch cost the bridge with many agents: `python -m benchmarks.bench_dispatch`.

The dispatcher on a real ledger, without a broker: processor time, with two leases for each agent.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from schemas.agent import AgentHeartbeat, AgentState, HeldJob, HeldJobState
from tests.vps_bridge.dispatch.lease_model import ENGINE, SimulatedWire, bridge_settings
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger

NOW_S = 1e9
TIMES = 20
JOB_S, SPEED_X = 60.0, 10.0


def make_beat(agent_id: str, free: int, jobs: tuple[HeldJob, ...] = ()) -> AgentHeartbeat:
    """Return a heartbeat of an agent that is up."""
    now = datetime.now(UTC)
    return AgentHeartbeat(
        agent_id=agent_id,
        instance_id=f"{agent_id}-i",
        state=AgentState.ONLINE,
        sent_at=now,
        started_at=now,
        engine=ENGINE,
        free_capacity=free,
        jobs=jobs,
        speed_x_real_time=SPEED_X,
    )


def mean_ms(work: Callable[[], object], times: int) -> float:
    """Return the processor time of one call, in milliseconds."""
    began_s = time.process_time()
    for _ in range(times):
        work()
    return 1000 * (time.process_time() - began_s) / times


def measure(agents: int, directory: Path) -> tuple[int, float, float]:
    """Return how many leases there are, and the milliseconds of a heartbeat and of a dispatch that grants nothing."""
    settings = bridge_settings(directory)
    ledger = Ledger(settings.root, exclusive=True)
    for number in range(2 * agents):
        add_waiting_job(ledger, f"c{number}", f"k{number}", audio_s=JOB_S, final=True)
    dispatcher = Dispatcher(settings, ledger, Spool(directory / "spool"), SimulatedWire())  # type: ignore[arg-type]
    names = [f"mac-{number}" for number in range(agents)]
    for name in names:
        ledger.agents.set_allowed(name, allowed=True)
        dispatcher.take_heartbeat(make_beat(name, 8), NOW_S)
    while len(ledger.leases.current()) < 2 * agents:
        dispatcher.tick(NOW_S)
    held: dict[str, tuple[HeldJob, ...]] = {}
    for lease in ledger.leases.current():
        job = HeldJob(job_id=lease.job_id, lease_id=lease.lease_id, state=HeldJobState.RUNNING)
        held[lease.agent_id] = (*held.get(lease.agent_id, ()), job)
    beats = [make_beat(name, 6, held[name]) for name in names]

    def all_beat() -> None:
        for beat in beats:
            dispatcher.take_heartbeat(beat, NOW_S + 1)

    beat_ms = mean_ms(all_beat, TIMES) / agents
    dispatch_ms = mean_ms(lambda: dispatcher.tick(NOW_S + 1), TIMES)
    leases = len(ledger.leases.current())
    ledger.close()
    return leases, beat_ms, dispatch_ms


def main() -> None:
    """Print a line for each size of the fleet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--agents", type=int, nargs="+", default=[5, 50, 200])
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print("| agents | leases | a heartbeat | a dispatch with nothing to grant |")
    print("|---|---|---|---|")
    for agents in options.agents:
        with tempfile.TemporaryDirectory() as directory:
            leases, beat_ms, dispatch_ms = measure(agents, Path(directory))
        print(f"| {agents} | {leases} | {beat_ms:.2f} ms | {dispatch_ms:.2f} ms |")


if __name__ == "__main__":
    main()
