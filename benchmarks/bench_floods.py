"""How long an honest backend waits for receipts and labels while a user of the broker floods the bridge, and after.

A real Mosquitto, a real bridge and a process that publishes 2,000 messages a second, of each kind that the tests know.
The honest backend sends chunks of a second one after another: of a conversation that the bridge knows, of one that
begins during the flood, and of one that begins after it. A chunk without a receipt is offered again after 5 s. The one
agent answers some ten jobs a second. Labels: from the end of a conversation until its job is done, at most 300 s.

    python -m benchmarks.bench_floods
    python -m benchmarks.bench_floods "events of one conversation"
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from broker.session import MqttSession
from schemas.bridge import BridgeHeartbeat
from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType
from tests.attacks.conftest import AGENTS
from tests.attacks.hostile import HONEST_CHUNKS, flooding, slowest_receipt_s
from tests.attacks.test_floods import FLOODS
from tests.brokers import RunningBroker, run_mosquitto
from tests.inbox import WAIT_S
from tests.pace import paced
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.live_bridge import TOPICS, Backend, run_bridge

RATE_HZ = 2_000
FLOOD_S = 15.0


@dataclass(frozen=True)
class Waits:
    """What an honest backend waited for: the slowest receipts, and labels from the end of a conversation on."""

    known_s: float
    new_s: float
    labels_s: float
    jobs_left: int
    labels_after_s: float


def measure(kind: str, directory: Path) -> Waits:
    """Flood the bridge for 15 s or longer, beside a conversation that it knows, and send another one afterwards."""
    role, messages = FLOODS[kind]
    with run_mosquitto(directory, agent_ids=AGENTS) as broker:
        backend = Backend(broker)
        with run_bridge(broker, directory / "data", backend) as bridge, AnsweringAgent(broker, "first") as agent:
            bridge.allow("first", "second")
            backend.event("known", EventType.STARTED)
            backend.stop()
            with flooding(broker, role, messages, rate_hz=RATE_HZ * paced(1.0)):  # the tests flood a busy machine less
                end_s = time.monotonic() + FLOOD_S
                known_s = slowest_receipt_s(broker, "known")
                labels_s = wait_labels_s(broker, agent, "known")
                new_s = slowest_receipt_s(broker, "new")
                time.sleep(max(0.0, end_s - time.monotonic()))
            onlooker = Backend(broker)
            time.sleep(paced(3.0))  # a heartbeat later
            jobs_left = onlooker.seen(BridgeHeartbeat)[-1].queue.jobs_ready
            onlooker.stop()
            slowest_receipt_s(broker, "after")
            return Waits(known_s, new_s, labels_s, jobs_left, wait_labels_s(broker, agent, "after"))


def wait_labels_s(broker: RunningBroker, agent: AnsweringAgent, conversation_id: str) -> float:
    """End a conversation and return how long its job took to be done; infinite if longer than 300 s."""
    session = MqttSession(broker.settings("backend"), client_id=f"ends-{conversation_id}", on_message=lambda _: None)
    session.start()
    session.wait_connected(WAIT_S)
    event = ConversationEvent(event_id="end", type=EventType.COMPLETED, chunks=HONEST_CHUNKS)
    began_s = time.monotonic()
    session.publish(TOPICS.events(conversation_id), encode(event)).wait(WAIT_S)
    session.stop()
    try:
        offer = agent.wait_offer(conversation_id, timeout_s=WAIT_S)
    except AssertionError:
        return float("inf")
    agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id)
    return time.monotonic() - began_s


def main() -> None:
    """Print a table."""
    sys.stdout.write(
        "| flood of 2,000 messages a second | known, slowest receipt | new, slowest receipt | known, its labels | "
        "jobs left by the flood | after it, labels | load |\n|---|---|---|---|---|---|---|\n"
    )
    for kind in sys.argv[1:] or FLOODS:
        with tempfile.TemporaryDirectory() as directory:
            waits = measure(kind, Path(directory))
        sys.stdout.write(
            f"| {kind} | {waits.known_s:.2f} s | {waits.new_s:.2f} s | {waits.labels_s:.1f} s | {waits.jobs_left} "
            f"| {waits.labels_after_s:.1f} s | {os.getloadavg()[0]:.0f} |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
