"""How long an honest backend waits for its receipts while one user of the broker floods the bridge.

A real Mosquitto, a real bridge and a process that publishes 2,000 messages a second, of each kind that the tests know.
The honest backend sends chunks of a second one after another: of a conversation that the bridge knows, and of one that
begins during the flood. A chunk without a receipt is offered again after 5 s.

    python -m benchmarks.bench_floods
    python -m benchmarks.bench_floods "events of one conversation"
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from schemas.conversation import EventType
from tests.attacks.conftest import AGENTS
from tests.attacks.hostile import flooding, slowest_receipt_s
from tests.attacks.test_floods import FLOODS
from tests.brokers import run_mosquitto
from tests.pace import paced
from tests.vps_bridge.live_bridge import Backend, run_bridge

RATE_HZ = 2_000


def measure(kind: str, directory: Path) -> tuple[float, float]:
    """Return the slowest receipt of a known and of a new conversation during a flood, in seconds."""
    role, messages = FLOODS[kind]
    with run_mosquitto(directory, agent_ids=AGENTS) as broker:
        backend = Backend(broker)
        with run_bridge(broker, directory / "data", backend) as bridge:
            bridge.allow("first", "second")
            backend.event("known", EventType.STARTED)
            backend.stop()
            with flooding(broker, role, messages, rate_hz=RATE_HZ * paced(1.0)):  # the tests flood a busy machine less
                return slowest_receipt_s(broker, "known"), slowest_receipt_s(broker, "new")


def main() -> None:
    """Print a table."""
    sys.stdout.write("| flood of 2,000 messages a second | known, slowest | new, slowest | load |\n|---|---|---|---|\n")
    for kind in sys.argv[1:] or FLOODS:
        with tempfile.TemporaryDirectory() as directory:
            known_s, new_s = measure(kind, Path(directory))
        load = os.getloadavg()[0]
        sys.stdout.write(f"| {kind} | {known_s:.2f} s | {new_s:.2f} s | {load:.0f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
