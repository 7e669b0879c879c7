"""How a session connects, loses its connection, connects again and stops."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from broker.address import parse_broker_url
from broker.errors import BrokerRefused, BrokerUnreachable, NotConnected
from broker.receipts import PublishOutcome
from broker.servers import Servers
from broker.session import Farewell, Incoming, MqttSession, Will
from broker.settings import BrokerSettings
from schemas.topics import TopicKind, Topics
from tests.brokers import AGENT_ID, REPOSITORY, free_port, run_embedded, run_mosquitto
from tests.inbox import WAIT_S, MessageLog, eventually

TOPICS = Topics()
AUDIO = TOPICS.audio("c1")
AUDIO_FILTER = TOPICS.filter(TopicKind.AUDIO)
ACK_S = 120.0


def ignore(_: Incoming) -> None:
    """For a session that subscribes to nothing."""


def test_falls_back_to_mqtt_3_where_the_broker_knows_no_5(tmp_path, connect):
    with run_embedded(tmp_path, mqtt_version="auto") as broker:
        session = connect(broker, "agent", will=Will(TOPICS.agent_heartbeat(AGENT_ID), b"offline"))
        assert session.protocol == "3.1.1"
        broker.restart()
        eventually(lambda: session.connected and session.counters.reconnects == 1)
        assert session.protocol == "3.1.1"


def test_fixed_mqtt_version_is_kept(mosquitto, connect):
    assert connect(mosquitto, "agent", settings={"mqtt_version": "3.1.1"}).protocol == "3.1.1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the exit is the test
def test_network_thread_that_dies_is_replaced(mosquitto, connect):
    inbox: MessageLog[bytes] = MessageLog()

    def fatal(message: Incoming) -> None:
        inbox.put(message.payload)
        if message.payload == b"exit":
            raise SystemExit

    bridge = connect(mosquitto, "bridge", AUDIO_FILTER, on_message=fatal)
    backend = connect(mosquitto, "backend")
    backend.publish(AUDIO, b"exit").wait(ACK_S)
    eventually(lambda: bridge.counters.reconnects == 1)
    bridge.wait_connected(ACK_S)
    backend.publish(AUDIO, b"after").wait(ACK_S)
    inbox.wait_for(lambda payload: payload == b"after")


def test_reconnects_and_subscribes_again_after_a_broker_restart(any_broker, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    connects: MessageLog[int] = MessageLog()
    bridge = connect(any_broker, "bridge", AUDIO_FILTER, on_message=inbox.put, on_connect=lambda: connects.put(1))
    backend = connect(any_broker, "backend")
    connects.wait_count(1)
    any_broker.kill()
    eventually(lambda: not bridge.connected)
    any_broker.start()
    connects.wait_count(2)
    backend.wait_connected(ACK_S)
    backend.publish(AUDIO, b"again").wait(ACK_S)
    assert inbox.wait_count(1)[0].payload == b"again"
    assert bridge.counters.reconnects == 1


def test_unanswered_receipt_is_lost_with_its_connection_and_not_sent_again(mosquitto, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    backend = connect(mosquitto, "backend")
    os.kill(mosquitto.pid, signal.SIGSTOP)  # takes the bytes and answers nothing
    receipt = backend.publish(AUDIO, b"in flight")
    assert receipt.wait(0.2) is PublishOutcome.TIMEOUT
    mosquitto.kill()
    assert receipt.wait(ACK_S) is PublishOutcome.LOST
    mosquitto.start()
    connect(mosquitto, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend.wait_connected(ACK_S)
    backend.publish(AUDIO, b"next").wait(ACK_S)
    assert inbox.wait_count(1)[0].payload == b"next"


def test_offline_publish_is_refused_and_never_sent_later(mosquitto, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    backend = connect(mosquitto, "backend")
    mosquitto.kill()
    eventually(lambda: not backend.connected)
    with pytest.raises(NotConnected, match="Offer the message again"):
        backend.publish(AUDIO, b"too early")
    mosquitto.start()
    connect(mosquitto, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend.wait_connected(ACK_S)
    backend.publish(AUDIO, b"in time").wait(ACK_S)
    assert [message.payload for message in inbox.wait_count(1)] == [b"in time"]


def test_broker_that_falls_silent_is_noticed_by_keepalive(mosquitto, connect):
    backend = connect(mosquitto, "backend", settings={"keepalive_s": 5})
    os.kill(mosquitto.pid, signal.SIGSTOP)
    eventually(lambda: not backend.connected, timeout_s=WAIT_S)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server answers there.*names another program's port"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "'SSH-2.0-OpenSSH_9.6', is no MQTT.*names another program's port"),
        (b'INFO {"server_id":"N"}\r\n', "NATS answers there in its own protocol.*names another program's port"),
        (bytes.fromhex("15030100020246"), "TLS answers there.*begins with mqtts://"),
        (b"\x00\xff", "what answers there is no MQTT.*names another program's port"),
        (b"", "connection lost.*If the broker speaks TLS there"),
    ],
    ids=["http", "ssh", "nats", "tls", "bytes", "nothing"],
)
def test_what_answers_and_is_no_broker_is_named(answer, words):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.recv(4_096)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        settings = BrokerSettings(broker_url=f"mqtt://127.0.0.1:{server.getsockname()[1]}", broker_username="u")
        session = MqttSession(settings, client_id="lost", on_message=ignore)
        session.start()
        with pytest.raises(BrokerUnreachable, match=words):
            session.wait_connected(1.0)
        session.stop()


CLIENT_WITH_WILL = """
import sys
from broker.logs import configure_logs
from broker.session import MqttSession, Will
from broker.settings import BrokerSettings
topic = sys.argv[1]
configure_logs(as_json=True)
session = MqttSession(BrokerSettings(), client_id="doomed", on_message=lambda _: None, will=Will(topic, b"offline"))
session.start()
session.wait_connected(300)
session.publish(topic, b"online", retain=True).wait(300)
print("ready", flush=True)
sys.stdin.read()
"""


def test_will_is_published_and_retained_when_a_client_is_killed(any_broker, connect):
    broker = any_broker
    topic = TOPICS.agent_heartbeat(AGENT_ID)
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT_WITH_WILL, topic],
        env={**broker.environment("agent"), "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    with client.stdin, client.stdout:
        assert client.stdout.readline() == b"ready\n"
        live: MessageLog[Incoming] = MessageLog()
        connect(broker, "bridge", TOPICS.filter(TopicKind.AGENT_HEARTBEAT), on_message=live.put)
        assert live.wait_count(1)[0].payload == b"online"
        client.kill()
        client.wait()
        assert live.wait_count(2)[1].payload == b"offline"
        late: MessageLog[Incoming] = MessageLog()
        connect(broker, "watch", TOPICS.filter(TopicKind.AGENT_HEARTBEAT), on_message=late.put)
        # A set: amqtt sends a retained message once for every client's subscription that matches.
        assert {(message.payload, message.retain) for message in late.wait_count(1)} == {(b"offline", True)}


def test_stop_says_farewell_and_leaves_no_will(mosquitto, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    heartbeat = TOPICS.agent_heartbeat(AGENT_ID)
    bridge = connect(mosquitto, "bridge", TOPICS.filter(TopicKind.AGENT_HEARTBEAT), on_message=inbox.put)
    agent = connect(mosquitto, "agent", will=Will(heartbeat, b"offline"))
    agent.stop(Farewell(heartbeat, b"stopped"), timeout_s=10.0)
    assert not agent.connected
    with pytest.raises(NotConnected):
        agent.publish(heartbeat, b"zombie")
    connect(mosquitto, "agent").publish(heartbeat, b"marker").wait(ACK_S)
    inbox.wait_for(lambda message: message.payload == b"marker")
    assert [message.payload for message in inbox.items] == [b"stopped", b"marker"]
    assert agent.last_error is None
    assert bridge.connected


def test_session_that_never_connected_stops_at_once():
    session = MqttSession(
        BrokerSettings(broker_url=f"mqtt://127.0.0.1:{free_port()}"), client_id="a", on_message=ignore
    )
    session.start()
    session.stop(timeout_s=10.0)
    assert session._thread is not None
    assert not session._thread.is_alive()


def test_wrong_password_is_named(any_broker, connect):
    with pytest.raises(BrokerRefused, match="OMI_BROKER_PASSWORD") as raised:
        connect(any_broker, "bridge", settings={"broker_password": "not-the-password"})
    assert "authorized" in raised.value.reason.lower()
    assert "not-the-password" not in str(raised.value)


def test_a_program_that_goes_on_trying_logs_which_setting_is_wrong(any_broker):
    wrong = any_broker.settings("bridge", broker_password="not-the-password")
    session = MqttSession(wrong, client_id="bridge-wrong", on_message=ignore)
    session.start()
    eventually(lambda: session.last_error is not None)
    assert "Check OMI_BROKER_USERNAME and OMI_BROKER_PASSWORD" in (session.last_error or "")
    session.stop()


def test_anonymous_is_refused(any_broker, connect):
    with pytest.raises(BrokerRefused):
        connect(any_broker, "bridge", settings={"broker_username": None, "broker_password": None})


def test_absent_broker_is_named_with_a_remedy(connect):
    session = MqttSession(
        BrokerSettings(broker_url=f"mqtt://127.0.0.1:{free_port()}"), client_id="a", on_message=ignore
    )
    session.start()
    with pytest.raises(BrokerUnreachable, match="omi-broker run") as raised:
        session.wait_connected(0.5)
    session.stop()
    assert "refused" in raised.value.reason.lower()


def test_connects_once_a_late_broker_is_there(tmp_path, mosquitto, connect):
    mosquitto.kill()
    session = connect(mosquitto, "bridge", wait=False)
    time.sleep(0.3)
    mosquitto.start()
    session.wait_connected(ACK_S)


CONNACK_5 = bytes([0x20, 0x03, 0x00, 0x00, 0x00])


DISCONNECT_TAKEN_OVER = bytes([0xE0, 0x02, 0x8E, 0x00])


def test_takeover_by_the_same_client_id_is_named():
    """Mosquitto 2.0 only closes the socket; 2.1 and others send this DISCONNECT (MQTT 5.0, 3.14)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        session = MqttSession(
            BrokerSettings(broker_url=f"mqtt://127.0.0.1:{server.getsockname()[1]}"),
            client_id="twin",
            on_message=ignore,
        )
        session.start()
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(CONNACK_5)
            session.wait_connected(ACK_S)
            connection.sendall(DISCONNECT_TAKEN_OVER)
            eventually(lambda: session.last_error is not None)
            reason = session.last_error
        session.stop()
    assert "another client connected with our client id 'twin'" in (reason or "")
    assert session.counters.takeovers == 1


def test_connects_over_tls_with_an_own_ca(tmp_path: Path, mosquitto, connect, own_ca):
    with run_mosquitto(tmp_path, tls=own_ca.server, ca_file=own_ca.ca_file) as broker:
        assert broker.url.startswith("mqtts://")
        backend = connect(broker, "backend")
        assert backend.publish(AUDIO, b"x").wait(ACK_S) is PublishOutcome.NO_SUBSCRIBERS
        stranger = connect(broker, "bridge", wait=False, settings={"broker_ca_file": None})
        with pytest.raises(BrokerUnreachable, match="certificate verify failed"):
            stranger.wait_connected(2.0)


def test_of_several_servers_those_that_are_down_are_passed_over(mosquitto, connect):
    down = ",".join(f"mqtt://127.0.0.1:{free_port()}" for _ in range(2))
    inbox: MessageLog[Incoming] = MessageLog()
    urls = {"broker_url": f"{down},{mosquitto.url}"}
    bridge = connect(mosquitto, "bridge", AUDIO_FILTER, on_message=inbox.put, settings=urls)
    backend = connect(mosquitto, "backend", settings={**urls, "mqtt_qos": 0})
    backend.publish(AUDIO, b"first").wait(ACK_S)
    inbox.wait_count(1, ACK_S)
    mosquitto.kill()
    eventually(lambda: not bridge.connected and not backend.connected)
    mosquitto.start()
    bridge.wait_connected(ACK_S)
    backend.wait_connected(ACK_S)
    backend.publish(AUDIO, b"again").wait(ACK_S)
    assert [message.payload for message in inbox.wait_count(2, ACK_S)] == [b"first", b"again"]
    assert {message.qos for message in inbox.items} == {0}


def test_clients_of_a_cluster_begin_at_different_servers():
    addresses = [parse_broker_url(f"mqtt://server-{number}").address for number in range(3)]
    firsts = {Servers(addresses, 1.0, 8.0).current for _ in range(100)}
    assert firsts == set(addresses)


def test_every_server_has_its_turn_before_the_pause_grows():
    addresses = [parse_broker_url(f"mqtt://server-{number}").address for number in range(3)]
    servers = Servers(addresses, 1.0, 8.0)
    tried, pauses = [], []
    for _ in range(6):
        tried.append(servers.current)
        pauses.append(servers.turn_to_next())
    assert set(tried[:3]) == set(tried[3:]) == set(addresses)
    assert max(pauses[:3]) <= 1.0 <= min(pauses[3:])
    servers.spread_next(1.0)
    assert servers.turn_to_next() <= 1.0


def test_clients_that_lost_a_good_connection_together_come_back_one_by_one():
    address = parse_broker_url("mqtt://server").address
    firsts = []
    for _ in range(500):
        servers = Servers([address], 0.5, 8.0)
        servers.spread_next(6.0)
        firsts.append(servers.turn_to_next())
        assert servers.turn_to_next() <= 1.0
    assert max(firsts) <= 3.0
    assert max(sum(start <= first < start + 1.0 for first in firsts) for start in (0.0, 0.5, 1.0, 2.0)) < 0.5 * len(
        firsts
    )
