"""Messages of a session: publishing, receiving, the answers of the broker, the callbacks."""

import io
import json
import os
import signal
import threading

import pytest
import structlog

from broker.errors import PayloadTooLarge
from broker.receipts import PublishOutcome, Receipt
from broker.session import Incoming
from schemas.topics import TopicKind, Topics
from tests.brokers import AGENT_ID, run_mosquitto
from tests.inbox import MessageLog, eventually

TOPICS = Topics()
AUDIO = TOPICS.audio("c1")
AUDIO_FILTER = TOPICS.filter(TopicKind.AUDIO)
ACK_S = 120.0


def test_message_reaches_subscriber_unchanged(any_broker, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    connect(any_broker, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend = connect(any_broker, "backend")
    payload = bytes(range(256)) * 1000
    assert backend.publish(AUDIO, payload).wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
    [message] = inbox.wait_count(1)
    assert (message.topic, message.payload, message.retain) == (AUDIO, payload, False)


def test_who_publishes_much_waits_until_the_broker_has_answered_most_of_it(mosquitto, connect):
    backend = connect(mosquitto, "backend")
    os.kill(mosquitto.pid, signal.SIGSTOP)
    try:
        receipts = [backend.publish(AUDIO, b"x") for _ in range(50)]
        backend.wait_acknowledged(10, timeout_s=0.1)
        assert all(receipt.outcome is None for receipt in receipts), (
            "a broker that does not answer holds nobody for ever"
        )
    finally:
        os.kill(mosquitto.pid, signal.SIGCONT)
    backend.wait_acknowledged(10, timeout_s=ACK_S)
    eventually(lambda: sum(receipt.outcome is None for receipt in receipts) <= 10)


def test_content_type_arrives_on_mqtt_5(mosquitto, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    bridge = connect(mosquitto, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend = connect(mosquitto, "backend")
    backend.publish(AUDIO, b"x", content_type="audio/flac", user_properties={"schema": "audio"}).wait(ACK_S)
    assert inbox.wait_count(1)[0].content_type == "audio/flac"
    assert bridge.protocol == "5"


def test_message_properties_are_left_out_on_mqtt_3(embedded, connect):
    inbox: MessageLog[Incoming] = MessageLog()
    connect(embedded, "bridge", AUDIO_FILTER, on_message=inbox.put)
    backend = connect(embedded, "backend")
    receipt = backend.publish(AUDIO, b"x", content_type="audio/flac", user_properties={"a": "b"})
    assert receipt.wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
    assert inbox.wait_count(1)[0].content_type is None


def test_publish_without_right_is_refused(mosquitto, connect):
    watch = connect(mosquitto, "watch")
    receipt = watch.publish(TOPICS.turns("c1", AGENT_ID), b"forged")
    assert receipt.wait(ACK_S) is PublishOutcome.REFUSED
    assert "authorized" in receipt.reason.lower()


def test_what_the_broker_refuses_is_logged_once_with_what_to_type(mosquitto, connect):
    """A bridge under an id that was not provisioned beat for nobody, and said nothing."""
    bridge = connect(mosquitto, "bridge")
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            for topic in (TOPICS.bridge_heartbeat("another"), TOPICS.failure("c1", "another")):
                assert bridge.publish(topic, b"{}").wait(ACK_S) is PublishOutcome.REFUSED
    told = [line for line in lines if line["event"] == "publish refused"]
    assert [line["topic"] for line in told] == [TOPICS.bridge_heartbeat("another"), TOPICS.failure("c1", "another")]
    assert all("--bridge-id OMI_BRIDGE_ID" in line["remedy"] for line in told)
    assert all("authorized" in line["reason"].lower() for line in told)


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
    """On MQTT 3.1.1 no broker announces a limit, and ours has one all the same."""
    limit = announced or 50_000
    version = "auto" if announced else "3.1.1"
    with run_mosquitto(tmp_path, max_packet_bytes=announced) as broker:
        inbox: MessageLog[Incoming] = MessageLog()
        connect(broker, "bridge", AUDIO_FILTER, on_message=inbox.put)
        backend = connect(broker, "backend", settings={"assumed_max_packet_bytes": 50_000, "mqtt_version": version})
        assert backend.max_packet_bytes == limit
        with pytest.raises(PayloadTooLarge, match="in parts") as raised:
            backend.publish(AUDIO, bytes(limit), content_type="audio/wav")
        assert raised.value.size_bytes == limit
        largest = bytes(raised.value.limit_bytes)
        assert backend.publish(AUDIO, largest, content_type="audio/wav").wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
        assert inbox.wait_count(1)[0].payload == largest
        assert backend.counters.reconnects == 0


def test_oversized_message_that_only_the_broker_knew_of_is_not_sent_for_ever(tmp_path, mosquitto, connect):
    """Mosquitto does not announce `message_size_limit`; paho alone would resend such a message on every connect."""
    with (
        run_mosquitto(tmp_path, extra_lines="message_size_limit 10000") as broker,
        structlog.testing.capture_logs() as logs,
    ):
        inbox: MessageLog[Incoming] = MessageLog()
        connect(broker, "bridge", AUDIO_FILTER, on_message=inbox.put)
        backend = connect(broker, "backend")
        assert backend.publish(AUDIO, bytes(20_000)).wait(ACK_S) in {PublishOutcome.LOST, PublishOutcome.REFUSED}
        backend.wait_connected(ACK_S)
        assert backend.publish(AUDIO, b"small").wait(ACK_S) is PublishOutcome.ACKNOWLEDGED
        assert [message.payload for message in inbox.wait_count(1)] == [b"small"]
        reasons = [str(entry["reason"]) for entry in logs if entry["event"] == "not connected"]
        assert any("message_size_limit" in reason for reason in reasons), "which setting cut the connection"


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

    logged = io.StringIO()  # to a logger of our own, as structlog's cached loggers keep the output of an earlier test
    processors: list[structlog.types.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    own_log = structlog.wrap_logger(structlog.PrintLogger(logged), processors=processors)
    monkeypatch.setattr("broker.callback_guard._log", own_log)
    connect(mosquitto, "bridge", AUDIO_FILTER, on_message=fragile)
    connect(mosquitto, "backend").publish(AUDIO, b"the words they spoke").wait(ACK_S)
    eventually(lambda: "ValueError" in logged.getvalue())
    assert AUDIO in logged.getvalue()
    assert "the words they spoke" not in logged.getvalue()


def test_handler_may_publish_and_hold_a_lock_that_publishers_hold(mosquitto, connect):
    """A publisher that holds the handler's own lock must not cause a deadlock with the network thread."""
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


def test_messages_leaked_on_topics_nobody_asked_for_are_dropped(embedded, connect):
    """amqtt sends a new client the retained messages of other clients' subscriptions."""
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
