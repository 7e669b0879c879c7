"""What QoS 1 costs on a cluster of three NATS servers beside QoS 0: `python -m benchmarks.bench_cluster`.

Three real servers on loopback, as `omi-broker nats` sets them up, but with disks that can be read: the last rows look
for the audio on them.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from broker.errors import BrokerError
from broker.logs import silence_logs
from broker.session import Incoming, MqttSession
from broker.settings import BrokerSettings
from schemas.topics import TopicKind, Topics
from tests.clusters import NAMES, RunningCluster, run_cluster
from tests.jetstream import Streams, files_with, leave_plain, let_look

TOPICS = Topics()
PART_BYTES = 262_144
PARTS_AT_ONCE = 8
WAIT_S = 120.0


@dataclass(frozen=True)
class QosRun:
    """One QoS."""

    qos: int
    mib_per_s: float
    small_ms: float
    """From a publish to its arrival: the median of small messages, one after the other."""
    servers_cpu_s: float
    """Processor time of all three for these."""
    disks_with_audio: int
    """Of three, on how many it could be found while it was sent."""
    kept_messages: int
    """Left in a stream after the subscriber's server was killed."""


def measure(cluster: RunningCluster, qos: int, parts: int, small: int) -> QosRun:
    """Send parts and small messages from a bridge at one server to an agent at another."""
    arrived: list[Incoming] = []
    agent = connect(cluster, "agent:first", "a", qos, arrived.append)
    bridge = connect(cluster, "bridge", "b", qos, arrived.append)
    needle, topic = secrets.token_bytes(64), TOPICS.parts("c1", "first")
    before_s = cpu_s(cluster)
    began_s, disks = time.monotonic(), set[str]()
    for _ in range(parts // PARTS_AT_ONCE):
        batch = [bridge.publish(topic, needle + secrets.token_bytes(PART_BYTES - 64)) for _ in range(PARTS_AT_ONCE)]
        for receipt in batch:
            receipt.wait(WAIT_S)
    wait_for(lambda: len(arrived) >= parts)
    took_s = time.monotonic() - began_s
    disks = {name for name in NAMES if files_with(cluster.store(name), needle)}
    latencies = []
    for _ in range(small):
        count, sent_s = len(arrived), time.monotonic()
        bridge.publish(TOPICS.control("first"), b"x" * 300)
        wait_for(lambda count=count: len(arrived) > count)  # type: ignore[misc]
        latencies.append(time.monotonic() - sent_s)
    used_s = cpu_s(cluster) - before_s
    kept = kill_under(cluster, bridge, topic, needle)
    agent.stop()
    bridge.stop()
    return QosRun(
        qos, parts * PART_BYTES / 2**20 / took_s, 1000 * statistics.median(latencies), used_s, len(disks), kept
    )


def kill_under(cluster: RunningCluster, bridge: MqttSession, topic: str, needle: bytes) -> int:
    """Kill the agent's server, send on, and count what a stream holds then."""
    cluster.kill("a")
    for _ in range(PARTS_AT_ONCE):
        try:
            bridge.publish(topic, needle).wait(5.0)
        except BrokerError:
            time.sleep(0.5)
    with Streams(cluster, "b") as streams:
        kept = sum(needle in data for stream in streams.names() for _, data in streams.messages(stream))
    cluster.start("a")
    cluster.wait_ready()
    return kept


def measure_outage(cluster: RunningCluster) -> float:
    """Kill the server that leads the stream of sessions; return after how many seconds somebody new gets in."""
    with Streams(cluster, "a") as streams:
        leader = str(streams.info("$MQTT_sess")["cluster"]["leader"])
    cluster.kill(leader)
    began_s = time.monotonic()
    while True:
        session = MqttSession(cluster.settings("watch"), client_id=secrets.token_hex(8), on_message=lambda _: None)
        session.start()
        try:
            session.wait_connected(WAIT_S)
            return time.monotonic() - began_s
        except BrokerError:
            continue
        finally:
            session.stop()


def connect(
    cluster: RunningCluster, role: str, server: str, qos: int, on_message: Callable[[Incoming], None]
) -> MqttSession:
    """Connect to one server."""
    settings: BrokerSettings = cluster.settings(role, mqtt_qos=qos, broker_url=cluster.url_of(server))
    session = MqttSession(settings, client_id=f"{server}-{secrets.token_hex(8)}", on_message=on_message)
    if role != "bridge":
        session.subscribe(TOPICS.control("first"))
        session.subscribe(TOPICS.filter(TopicKind.PARTS, sender_id="first"))
    session.start()
    session.wait_connected(WAIT_S)
    return session


def cpu_s(cluster: RunningCluster) -> float:
    """Return the processor time of all servers so far."""
    return sum(sum(psutil.Process(process.pid).cpu_times()[:2]) for process in cluster.processes.values())


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the messages did not arrive")
        time.sleep(0.0005)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", type=int, default=64, help="parts of 256 KiB")
    parser.add_argument("--small", type=int, default=200, help="small messages")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    silence_logs()

    def make_readable(config: dict[str, object]) -> None:
        let_look(config)
        leave_plain(config)

    with tempfile.TemporaryDirectory() as directory, run_cluster(Path(directory), change=make_readable) as cluster:
        runs = [measure(cluster, qos, options.parts, options.small) for qos in (1, 0)]
        outage_s = measure_outage(cluster)
    if options.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "outage_s": outage_s}, indent=2))
        return
    print("| QoS | parts of 256 KiB | a small message, median | servers' processor time | disks with audio | kept |")
    print("|---|---|---|---|---|---|")
    for run in runs:
        print(
            f"| {run.qos} | {run.mib_per_s:.1f} MiB/s | {run.small_ms:.1f} ms | {run.servers_cpu_s:.1f} s | "
            f"{run.disks_with_audio} of 3 | {run.kept_messages} |"
        )
    print(f"\nA new client gets in {outage_s:.1f} s after the leader of the sessions was killed.")


if __name__ == "__main__":
    main()
