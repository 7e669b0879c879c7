import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog

from broker.errors import BrokerRefused, BrokerUnreachable, NotConnected, PayloadTooLarge
from broker.receipts import PublishOutcome, Receipt
from broker.session import Farewell, Incoming, MqttSession, Will
from broker.settings import BrokerSettings
from schemas.topics import TopicKind, Topics
from tests.brokers import AGENT_ID, REPOSITORY, free_port, run_embedded, run_mosquitto
from tests.inbox import MessageLog, eventually

TOPICS = Topics()
AUDIO = TOPICS.audio("c1")
AUDIO_FILTER = TOPICS.filter(TopicKind.AUDIO)
ACK_S = 20.0


def ignore(_: Incoming) -> None:
    """For a session that listens to nothing."""


def test_message_reaches_subscriber_unchanged(any_broker, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    connect(any_broker, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend = connect(any_broker, "backend")
    payload = bytes(range(256)) * 1000
    assert backend.publish(AUDIO, payload).wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
    [message] = inbox.wait_count(1)
    assert (message.topic, message.payload, message.retain) == (AUDIO, payload, False)


def test_content_type_arrives_on_mqtt_5(mosquitto, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    bridge = connect(mosquitto, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend = connect(mosquitto, "backend")
    backend.publish(AUDIO, b"x", content_type="audio/flac", user_properties={"schema": "audio"}, expiry_s=60).wait(
        ACK_S
    )
    assert inbox.wait_count(1)[0].content_type == "audio/flac"
    assert bridge.protocol == "5"


def test_message_properties_are_left_out_on_mqtt_3(embedded, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    connect(embedded, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend = connect(embedded, "backend")
    receipt = backend.publish(AUDIO, b"x", content_type="audio/flac", user_properties={"a": "b"}, expiry_s=9)
    assert receipt.wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
    assert inbox.wait_count(1)[0].content_type is None


def test_falls_back_to_mqtt_3_where_the_broker_knows_no_5(tmp_path, connect):
    with run_embedded(tmp_path, mqtt_version="auto") as broker:
        session = connect(broker, "agent", will=Will(TOPICS.agent_heartbeat(AGENT_ID), b"offline"))
        assert session.protocol == "3.1.1"
        broker.restart()
        eventually(lambda: session.connected and session.counters.reconnects == 1)
        assert session.protocol == "3.1.1"


def test_fixed_mqtt_version_is_kept(mosquitto, connect):
    assert connect(mosquitto, "agent", settings={"mqtt_version": "3.1.1"}).protocol == "3.1.1"


def test_publish_without_right_is_refused(mosquitto, connect):
    watch = connect(mosquitto, "watch")
    receipt = watch.publish(TOPICS.turns("c1", AGENT_ID), b"forged")
    assert receipt.wait(ACK_S) is PublishOutcome.REFUSED
    assert "authorized" in receipt.reason.lower()


def test_agent_cannot_speak_or_listen_for_another(tmp_path, mosquitto, connect):
    with run_mosquitto(tmp_path, agent_ids=("studio", "laptop")) as broker:
        inbox: MessageLog[Incoming] = MessageLog()
        laptop = connect(broker, "agent:laptop", "omi/v1/#", on_message=inbox.put)
        bridge = connect(broker, "bridge")
        assert laptop.publish(TOPICS.turns("c1", "studio"), b"x").wait(ACK_S) is PublishOutcome.REFUSED
        assert laptop.publish(TOPICS.agent_heartbeat("studio"), b"x").wait(ACK_S) is PublishOutcome.REFUSED
        bridge.publish(TOPICS.parts("c1", "studio"), b"audio").wait(ACK_S)
        bridge.publish(TOPICS.parts("c1", "laptop"), b"audio").wait(ACK_S)
        inbox.wait_for(lambda message: message.topic == TOPICS.parts("c1", "laptop"))
        assert [message.topic for message in inbox.items] == [TOPICS.parts("c1", "laptop")]


def test_refused_subscription_is_visible(embedded, connect):
    session = connect(embedded, "backend", AUDIO_FILTER, TOPICS.filter(TopicKind.ACCEPTED))
    assert list(session.refused_filters) == [AUDIO_FILTER]


def test_embedded_broker_keeps_audio_from_onlookers(embedded, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    watch = connect(embedded, "watch", "omi/v1/#", on_message=inbox.put)
    assert watch.refused_filters == {}
    connect(embedded, "bridge", AUDIO_FILTER)
    backend = connect(embedded, "backend")
    bridge = connect(embedded, "bridge")
    backend.publish(AUDIO, b"private").wait(ACK_S)
    bridge.publish(TOPICS.accepted("c1"), b"{}").wait(ACK_S)
    inbox.wait_for(lambda message: message.topic == TOPICS.accepted("c1"))
    assert AUDIO not in [message.topic for message in inbox.items]


def test_publish_says_when_nobody_listens(mosquitto, connect):
    backend = connect(mosquitto, "backend")
    assert backend.publish(AUDIO, b"x").wait(ACK_S) is PublishOutcome.NO_SUBSCRIBERS


@pytest.mark.parametrize("announced", [None, 100_000])
def test_oversized_message_is_refused_before_it_is_sent_and_blocks_nothing(tmp_path, mosquitto, connect, announced):
    limit = announced or 50_000
    with run_mosquitto(tmp_path, max_packet_bytes=announced) as broker:
        inbox: MessageLog[Incoming] = MessageLog()
        connect(broker, "bridge", AUDIO_FILTER, on_message=inbox.put)
        backend = connect(broker, "backend", settings={"assumed_max_packet_bytes": 50_000})
        assert backend.max_packet_bytes == limit
        with pytest.raises(PayloadTooLarge, match="in parts") as raised:
            backend.publish(AUDIO, bytes(limit), content_type="audio/wav")
        assert raised.value.size_bytes == limit
        largest = bytes(raised.value.limit_bytes)
        assert backend.publish(AUDIO, largest, content_type="audio/wav").wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
        assert inbox.wait_count(1)[0].payload == largest
        assert backend.counters.reconnects == 0


def test_oversized_message_that_only_the_broker_knew_of_is_not_sent_for_ever(tmp_path, mosquitto, connect):
    """`message_size_limit` is announced to nobody; paho alone would resend such a message on every connect."""
    with run_mosquitto(tmp_path, extra_lines="message_size_limit 10000") as broker:
        inbox: MessageLog[Incoming] = MessageLog()
        connect(broker, "bridge", AUDIO_FILTER, on_message=inbox.put)
        backend = connect(broker, "backend")
        assert backend.publish(AUDIO, bytes(20_000)).wait(ACK_S) in {PublishOutcome.LOST, PublishOutcome.REFUSED}
        backend.wait_connected(ACK_S)
        assert backend.publish(AUDIO, b"small").wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
        assert [message.payload for message in inbox.wait_count(1)] == [b"small"]


def test_handler_that_raises_stops_nothing(any_broker, connect):
    inbox: MessageLog[bytes] = MessageLog()

    def fragile(message: Incoming) -> None:
        inbox.put(message.payload)
        if message.payload == b"bad":
            raise ValueError("a secret of the payload")

    bridge = connect(any_broker, "bridge", AUDIO_FILTER, on_message=fragile)
    backend = connect(any_broker, "backend")
    for payload in (b"bad", b"good", b"bad", b"last"):
        backend.publish(AUDIO, payload)
    assert inbox.wait_count(4)[-1] == b"last"
    assert bridge.counters.handler_errors == 2
    assert bridge.counters.reconnects == 0


def test_log_of_a_failed_handler_names_topic_and_not_the_words(mosquitto, connect, monkeypatch):
    def fragile(message: Incoming) -> None:
        raise ValueError(message.payload.decode())

    logged = io.StringIO()  # a logger of our own: where those of other tests write to was settled at their first use
    processors: list[structlog.types.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    own_log = structlog.wrap_logger(structlog.PrintLogger(logged), processors=processors)
    monkeypatch.setattr("broker.session._log", own_log)
    connect(mosquitto, "bridge", AUDIO_FILTER, on_message=fragile)
    connect(mosquitto, "backend").publish(AUDIO, b"the words they spoke").wait(ACK_S)
    eventually(lambda: "ValueError" in logged.getvalue())
    assert AUDIO in logged.getvalue()
    assert "the words they spoke" not in logged.getvalue()


def test_handler_may_publish_and_hold_a_lock_that_publishers_hold(mosquitto, connect):
    """A publisher that holds the handler's own lock must not lock up the network thread."""
    inbox: MessageLog[bytes] = MessageLog()
    lock = threading.Lock()
    ready = threading.Event()

    def store_and_answer(message: Incoming) -> None:
        ready.wait(ACK_S)
        with lock:
            inbox.put(message.payload)
            bridge.publish(TOPICS.accepted("c1"), b"{}")

    accepted: MessageLog[Incoming] = MessageLog()
    bridge = connect(mosquitto, "bridge", AUDIO_FILTER, on_message=store_and_answer)
    backend = connect(mosquitto, "backend", TOPICS.filter(TopicKind.ACCEPTED), on_message=accepted.put)
    for _ in range(200):
        backend.publish(AUDIO, b"x" * 1000)
    ready.set()
    for _ in range(200):
        with lock:
            bridge.publish(TOPICS.control(AGENT_ID), b"{}")
    inbox.wait_count(200)
    accepted.wait_count(200)


def test_handler_that_waits_for_a_receipt_is_told_off(mosquitto, connect):
    failures: MessageLog[Exception] = MessageLog()

    def waits(_: Incoming) -> None:
        try:
            bridge.publish(TOPICS.accepted("c1"), b"{}").wait(ACK_S)
        except RuntimeError as error:
            failures.put(error)

    bridge = connect(mosquitto, "bridge", AUDIO_FILTER, on_message=waits)
    connect(mosquitto, "backend").publish(AUDIO, b"x")
    assert "must not wait" in str(failures.wait_count(1)[0])


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
    eventually(lambda: bridge.counters.reconnects == 1 and not bridge._unanswered_filters)
    backend.publish(AUDIO, b"after").wait(ACK_S)
    inbox.wait_for(lambda payload: payload == b"after")


def test_reconnects_and_subscribes_again_after_a_broker_restart(any_broker, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    connects: MessageLog[int] = MessageLog()
    losses: MessageLog[str] = MessageLog()
    bridge = connect(
        any_broker,
        "bridge",
        AUDIO_FILTER,
        on_message=inbox.put,
        on_connect=lambda: connects.put(1),
        on_disconnect=losses.put,
    )
    backend = connect(any_broker, "backend")
    connects.wait_count(1)
    any_broker.kill()
    losses.wait_count(1)
    assert not bridge.connected
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
    losses: MessageLog[str] = MessageLog()
    backend = connect(mosquitto, "backend", on_disconnect=losses.put)
    mosquitto.kill()
    losses.wait_count(1)
    with pytest.raises(NotConnected, match="Offer the message again"):
        backend.publish(AUDIO, b"too early")
    mosquitto.start()
    connect(mosquitto, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend.wait_connected(ACK_S)
    backend.publish(AUDIO, b"in time").wait(ACK_S)
    assert [message.payload for message in inbox.wait_count(1)] == [b"in time"]


def test_broker_that_falls_silent_is_noticed_by_keepalive(mosquitto, connect):
    losses: MessageLog[str] = MessageLog()
    connect(mosquitto, "backend", on_disconnect=losses.put, settings={"keepalive_s": 5})
    os.kill(mosquitto.pid, signal.SIGSTOP)
    assert losses.wait_count(1, timeout_s=30)


CLIENT_WITH_WILL = """
import sys
from broker.logs import configure_logs
from broker.session import MqttSession, Will
from broker.settings import BrokerSettings
topic = sys.argv[1]
configure_logs(as_json=True)
session = MqttSession(BrokerSettings(), client_id="doomed", on_message=lambda _: None, will=Will(topic, b"offline"))
session.start()
session.wait_connected(20)
session.publish(topic, b"online", retain=True).wait(20)
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
        connect(broker, "backend", TOPICS.filter(TopicKind.AGENT_HEARTBEAT), on_message=late.put)
        # A set: amqtt sends a retained message once for every client's subscription that matches.
        assert {(message.payload, message.retain) for message in late.wait_count(1)} == {(b"offline", True)}


def test_stop_says_farewell_and_leaves_no_will(mosquitto, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    heartbeat = TOPICS.agent_heartbeat(AGENT_ID)
    bridge = connect(mosquitto, "bridge", TOPICS.filter(TopicKind.AGENT_HEARTBEAT), on_message=inbox.put)
    losses: MessageLog[str] = MessageLog()
    agent = connect(mosquitto, "agent", will=Will(heartbeat, b"offline"), on_disconnect=losses.put)
    agent.stop(Farewell(heartbeat, b"stopped"), timeout_s=10.0)
    assert not agent.connected
    with pytest.raises(NotConnected):
        agent.publish(heartbeat, b"zombie")
    connect(mosquitto, "agent").publish(heartbeat, b"marker").wait(ACK_S)
    inbox.wait_for(lambda message: message.payload == b"marker")
    assert [message.payload for message in inbox.items] == [b"stopped", b"marker"]
    assert losses.items == []
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


def test_messages_leaked_on_topics_nobody_asked_for_are_dropped(embedded, connect):
    """amqtt hands a new client the retained messages of other clients' subscriptions."""
    heartbeat = TOPICS.agent_heartbeat(AGENT_ID)
    connect(embedded, "bridge", TOPICS.filter(TopicKind.AGENT_HEARTBEAT))
    agent = connect(embedded, "agent")
    agent.publish(heartbeat, b"{}", retain=True).wait(ACK_S)
    inbox: MessageLog[Incoming] = MessageLog()
    newcomer = connect(embedded, "backend", TOPICS.filter(TopicKind.UPDATED), on_message=inbox.put)
    eventually(lambda: newcomer.counters.unsubscribed_topic_drops == 1)
    assert inbox.items == []


def test_filter_added_while_connected_is_served(mosquitto, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    bridge = connect(mosquitto, "bridge", on_message=inbox.put)
    bridge.subscribe(AUDIO_FILTER)
    bridge.wait_connected(ACK_S)
    connect(mosquitto, "backend").publish(AUDIO, b"x").wait(ACK_S)
    inbox.wait_count(1)


CONNACK_5 = bytes([0x20, 0x03, 0x00, 0x00, 0x00])
DISCONNECT_TAKEN_OVER = bytes([0xE0, 0x02, 0x8E, 0x00])


def test_takeover_by_the_same_client_id_is_named():
    """Mosquitto 2.0 only closes the socket; 2.1 and others send this DISCONNECT (MQTT 5.0, 3.14)."""
    losses: MessageLog[str] = MessageLog()
    with socket.create_server(("127.0.0.1", 0)) as server:
        session = MqttSession(
            BrokerSettings(broker_url=f"mqtt://127.0.0.1:{server.getsockname()[1]}"),
            client_id="twin",
            on_message=ignore,
            on_disconnect=losses.put,
        )
        session.start()
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(CONNACK_5)
            session.wait_connected(ACK_S)
            connection.sendall(DISCONNECT_TAKEN_OVER)
            reason = losses.wait_count(1)[0]
        session.stop()
    assert "another client connected with our client id 'twin'" in reason
    assert session.counters.takeovers == 1


def test_many_messages_of_many_threads_arrive_whole(any_broker, connect):
    inbox: MessageLog[bytes] = MessageLog()
    connect(any_broker, "bridge", AUDIO_FILTER, on_message=lambda message: inbox.put(message.payload))
    backend = connect(any_broker, "backend")
    receipts: list[Receipt] = []

    def publish_some(name: int) -> None:
        receipts.extend(
            backend.publish(AUDIO, json.dumps([name, number]).encode() + b" " * 20_000) for number in range(50)
        )

    threads = [threading.Thread(target=publish_some, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {receipt.wait(ACK_S) for receipt in receipts} == {PublishOutcome.ACKNOWLEDGED}
    arrived = {tuple(json.loads(payload)) for payload in inbox.wait_count(200)}
    assert arrived == {(name, number) for name in range(4) for number in range(50)}


def test_connects_over_tls_with_an_own_ca(tmp_path: Path, mosquitto, connect, own_ca):
    with run_mosquitto(tmp_path, tls=own_ca.server, ca_file=own_ca.ca_file) as broker:
        assert broker.url.startswith("mqtts://")
        backend = connect(broker, "backend")
        assert backend.publish(AUDIO, b"x").wait(ACK_S) is PublishOutcome.NO_SUBSCRIBERS
        stranger = connect(broker, "bridge", wait=False, settings={"broker_ca_file": None})
        with pytest.raises(BrokerUnreachable, match="certificate verify failed"):
            stranger.wait_connected(2.0)
