"""Packets far above any of ours, on a Mosquitto that takes them, reach neither the bridge nor an agent."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.conversation import Verdict
from tests.attacks.hostile import connect
from tests.brokers import RunningBroker, run_mosquitto
from tests.inbox import WAIT_S
from tests.mac_agent.agent_process import start_tone_agent
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav

MIB = 2**20
LARGEST_PACKET_BYTES = 268_435_455  # of MQTT
BOUND_BYTES = 400 * MIB  # a bridge at rest has some 120 MiB; one message of 250 MiB took it to 866

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    directory = tmp_path_factory.mktemp("broker")
    with run_mosquitto(
        directory, agent_ids=("first", "stranger"), max_packet_bytes=LARGEST_PACKET_BYTES, extra_lines="log_type none"
    ) as running:
        yield running


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def send(broker: RunningBroker, role: str, topic: str, size_bytes: int, *, retain: bool = False) -> None:
    client = connect(broker.port, broker.users[role])
    client.publish(topic, bytes(size_bytes), qos=1, retain=retain).wait_for_publish(WAIT_S)
    client.disconnect()


def assert_serves(bridge: LiveBridge, backend: Backend, conversation_id: str) -> None:
    assert backend.audio(conversation_id, make_wav(1.0)).verdict is Verdict.ACCEPTED
    assert bridge.process is not None
    assert bridge.process.poll() is None
    assert not bridge.logged("not connected"), "its connection broke"


def test_a_huge_message_reaches_nobody_and_all_go_on(broker: RunningBroker, backend: Backend, tmp_path: Path) -> None:
    with run_bridge(broker, tmp_path / "bridge", backend) as bridge:
        assert bridge.process is not None
        bridge.allow("first")
        agent = start_tone_agent(broker, tmp_path / "agent", agent_id="first")
        wait_until(lambda: backend.beats_of("first"), "the agent")
        send(broker, "backend", TOPICS.audio("huge"), 200 * MIB)
        send(broker, "agent:stranger", TOPICS.agent_heartbeat("stranger"), 100 * MIB, retain=True)
        send(broker, "bridge", TOPICS.control("first"), 100 * MIB)
        assert_serves(bridge, backend, "beside")
        seen = len(backend.beats_of("first"))
        wait_until(lambda: len(backend.beats_of("first")) > seen + 2, "more beats of the agent")
        assert peak_bytes(bridge.process.pid) < BOUND_BYTES
        assert peak_bytes(agent.process.pid) < BOUND_BYTES
        agent.end()

        assert bridge.stop() == 0
        bridge.start(backend)  # the retained one is sent to every new connection
        assert_serves(bridge, backend, "after")
        assert peak_bytes(bridge.process.pid) < BOUND_BYTES
    send(broker, "agent:stranger", TOPICS.agent_heartbeat("stranger"), 0, retain=True)


def test_over_mqtt_3_a_huge_message_is_dropped_as_it_comes(
    broker: RunningBroker, backend: Backend, tmp_path: Path
) -> None:
    """There a client cannot say what it takes."""
    with run_bridge(broker, tmp_path, backend, OMI_MQTT_VERSION="3.1.1") as bridge:
        send(broker, "backend", TOPICS.audio("huge"), 70 * MIB)
        assert_serves(bridge, backend, "old-broker")
        wait_until(lambda: bridge.logged("oversized message dropped"), "the line in the log")
        assert backend.receipts("huge") == []
