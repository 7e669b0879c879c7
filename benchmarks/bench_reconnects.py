"""How many agents connect within one second after a broker restart: `python -m benchmarks.bench_reconnects`.

Fifty real sessions on a real Mosquitto, which is killed and comes back.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import structlog

from tests.brokers import run_mosquitto
from tests.fleet import Fleet

SETTLE_S = 12.0  # longer than a connection has to last to be a good one
WAIT_S = 120.0


def come_back(agents: int, spread: float, down_s: float, directory: Path) -> list[float]:
    """Return after how many seconds of the broker's return each agent was connected again."""
    speeds = {f"mac-{number:02}": 10.0 for number in range(agents)}
    with (
        run_mosquitto(directory, agent_ids=tuple(speeds)) as broker,
        Fleet(
            lambda role: broker.settings(role, reconnect_min_s=0.5, reconnect_max_s=30.0, reconnect_spread=spread),
            speeds,
        ) as fleet,
    ):
        time.sleep(SETTLE_S)
        broker.kill()
        time.sleep(down_s)
        broker.start()
        back_s = time.monotonic()
        while any(len(agent.connects) < 2 for agent in fleet.agents.values()):
            if time.monotonic() > back_s + WAIT_S:
                raise TimeoutError("some agents did not come back")
            time.sleep(0.1)
        return sorted(agent.connects[1] - back_s for agent in fleet.agents.values())


def busiest_second(connects_s: list[float]) -> int:
    """Return the most connects that lie within one second."""
    return max(sum(start <= other < start + 1.0 for other in connects_s) for start in connects_s)


def main() -> None:
    """Print a line for each outage and spread."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--agents", type=int, default=50)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print("| reconnect_spread | broker away | most connects in one second | all back after |")
    print("|---|---|---|---|")
    for spread in (1.0, 6.0):
        for down_s in (0.5, 10.0):
            with tempfile.TemporaryDirectory() as directory:
                connects_s = come_back(options.agents, spread, down_s, Path(directory))
            print(f"| {spread:g} | {down_s:g} s | {busiest_second(connects_s)} | {connects_s[-1]:.1f} s |")


if __name__ == "__main__":
    main()
