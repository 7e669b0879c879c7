"""What the pipeline needs of a broker, on each broker of docs/brokers.md with the MQTT version it is used with."""

import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.listener import Listener
from broker.receipts import PublishOutcome
from broker.session import Incoming, MqttSession, Will
from schemas.conversation import EventType, Verdict
from schemas.topics import TopicKind, Topics
from tests.brokers import AGENT_ID, RunningBroker, run_embedded, run_mosquitto, run_nats
from tests.faults.proxy import TcpProxy
from tests.inbox import MessageLog, eventually

TOPICS = Topics()
HEARTBEATS = TOPICS.filter(TopicKind.AGENT_HEARTBEAT)
ACK_S = 120.0
PART_BYTES = 262_144
BRIDGE_ID = Listener.bridge_id
LONGEST_ID = "A-z_0-9" + "x" * 121

Connect = Callable[..., MqttSession]
# The broker, the `mqtt_version` (`auto` takes 3 s for each connection to the embedded one), the version in use.
BROKERS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "embedded": (run_embedded, "3.1.1", "3.1.1"),
    "mosquitto-5": (run_mosquitto, "auto", "5"),
    "mosquitto-3.1.1": (run_mosquitto, "3.1.1", "3.1.1"),
    "nats": (run_nats, "auto", "3.1.1"),
}


@pytest.fixture(scope="module", params=BROKERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def broker(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One broker of each kind for all tests, which use their own ids."""
    run, version, _ = BROKERS[name]
    agents = {} if name == "embedded" else {"agent_ids": (AGENT_ID, "laptop")}
    with run(tmp_path_factory.mktemp("broker"), mqtt_version=version, **agents) as running:
        yield running


@pytest.fixture
def own_broker(name: str, tmp_path: Path) -> Iterator[RunningBroker]:
    """A broker for one test."""
    run, version, _ = BROKERS[name]
    with run(tmp_path, mqtt_version=version) as running:
        yield running


def new_id() -> str:
    return f"c-{uuid.uuid4().hex}"


def test_it_speaks_the_version_the_readme_says(name: str, broker: RunningBroker, connect: Connect) -> None:
    asked = "3.1.1" if name == "mosquitto-3.1.1" else "auto"
    assert connect(broker, "bridge", settings={"mqtt_version": asked}).protocol == BROKERS[name][2]


def test_a_wrong_password_is_refused_with_words(broker: RunningBroker, connect: Connect) -> None:
    from broker.errors import BrokerRefused

    stranger = connect(broker, "bridge", wait=False, settings={"broker_password": "wrong"})
    with pytest.raises(BrokerRefused, match="OMI_BROKER_PASSWORD"):
        stranger.wait_connected(ACK_S)


def test_every_message_reaches_the_filter_of_its_kind_and_no_other(broker: RunningBroker, connect: Connect) -> None:
    """With the longest valid ids, which brokers that map topics to other names must keep apart too."""
    conversation_id = LONGEST_ID
    inboxes: dict[TopicKind, MessageLog[Incoming]] = {kind: MessageLog() for kind in TopicKind}
    for kind, inbox in inboxes.items():
        session = connect(broker, "bridge", TOPICS.filter(kind), on_message=inbox.put, client_id=f"all-{kind.name}")
        assert session.refused_filters == {}
    sent = {
        TOPICS.events(conversation_id): "backend",
        TOPICS.audio(conversation_id): "backend",
        TOPICS.accepted(conversation_id): "bridge",
        TOPICS.updated(conversation_id): "bridge",
        TOPICS.parts(conversation_id, AGENT_ID): "bridge",
        TOPICS.failure(conversation_id, BRIDGE_ID): "bridge",
        TOPICS.control(AGENT_ID): "bridge",
        TOPICS.bridge_heartbeat(BRIDGE_ID): "bridge",
        TOPICS.turns(conversation_id, AGENT_ID): "agent",
        TOPICS.failure(conversation_id, AGENT_ID): "agent",
        TOPICS.want(AGENT_ID): "agent",
        TOPICS.agent_heartbeat(AGENT_ID): "agent",
    }
    speakers = {role: connect(broker, role) for role in ("bridge", "backend", "agent")}
    for topic, role in sent.items():
        assert speakers[role].publish(topic, topic.encode()).wait(ACK_S) is PublishOutcome.ACKNOWLEDGED, topic
    expected = {kind: sorted(topic for topic in sent if TOPICS.parse(topic).kind is kind) for kind in TopicKind}
    for kind, inbox in inboxes.items():
        inbox.wait_count(len(expected[kind]), ACK_S)
        assert sorted(message.topic for message in inbox.items) == expected[kind]
        assert all(message.payload.decode() == message.topic for message in inbox.items)


def test_parts_of_a_long_recording_arrive_whole_and_in_order(
    name: str, broker: RunningBroker, connect: Connect
) -> None:
    """Of 32 parts of 256 KiB, sent eight at a time, none is lost.

    The embedded broker drops what a busy client does not acknowledge within five seconds, and says nothing. There,
    eight that did not all arrive are sent again, as a bridge does that is asked for them.
    """
    inbox: MessageLog[Incoming] = MessageLog()
    conversation_id = new_id()
    connect(broker, "agent", TOPICS.filter(TopicKind.PARTS, sender_id=AGENT_ID), on_message=inbox.put)
    bridge = connect(broker, "bridge")
    parts = [bytes([number]) * PART_BYTES for number in range(32)]
    arrived: list[Incoming] = []
    for start in range(0, 32, 8):
        for tries_left in reversed(range(4 if name == "embedded" else 1)):
            before = len(inbox.items)
            receipts = [
                bridge.publish(TOPICS.parts(conversation_id, AGENT_ID), part) for part in parts[start : start + 8]
            ]
            assert {receipt.wait(ACK_S) for receipt in receipts} == {PublishOutcome.ACKNOWLEDGED}
            try:
                arrived += inbox.wait_count(before + 8, ACK_S / 4 if tries_left else ACK_S)[before:]
            except AssertionError:
                if not tries_left:
                    raise
            else:
                break
    assert [message.payload for message in arrived] == parts
    assert not any(message.retain for message in arrived)


def test_the_last_heartbeat_is_retained_and_only_a_live_one_looks_live(broker: RunningBroker, connect: Connect) -> None:
    live: MessageLog[Incoming] = MessageLog()
    bridge = connect(broker, "bridge")
    bridge.subscribe(TOPICS.filter(TopicKind.BRIDGE_HEARTBEAT), qos=0)
    mine = TOPICS.bridge_heartbeat(BRIDGE_ID)
    listener = connect(broker, "bridge", on_message=live.put, client_id="listener")
    listener.subscribe(TOPICS.filter(TopicKind.BRIDGE_HEARTBEAT), qos=0)
    listener.wait_connected(ACK_S)
    for beat in (b"first", b"second", b"third"):
        bridge.publish(mine, beat, retain=True).wait(ACK_S)
    live.wait_for(lambda message: (message.topic, message.payload) == (mine, b"third"), ACK_S)
    seen = [(message.payload, message.retain) for message in live.items if message.topic == mine]
    assert seen == [(b"first", False), (b"second", False), (b"third", False)]
    late: MessageLog[Incoming] = MessageLog()
    newcomer = connect(broker, "backend", on_message=late.put, client_id="newcomer")
    newcomer.subscribe(TOPICS.filter(TopicKind.BRIDGE_HEARTBEAT), qos=0)
    message = late.wait_for(lambda message: message.topic == mine, ACK_S)
    assert (message.payload, message.retain) == (b"third", True)


def test_a_broken_link_publishes_the_will_and_retains_it(broker: RunningBroker, connect: Connect) -> None:
    heartbeat = TOPICS.agent_heartbeat(AGENT_ID)
    inbox: MessageLog[Incoming] = MessageLog()
    connect(broker, "bridge", HEARTBEATS, on_message=inbox.put)
    with TcpProxy(broker.port) as link:
        agent = connect(broker.reached_at(link.port), "agent", will=Will(heartbeat, b"offline"))
        agent.publish(heartbeat, b"online", retain=True).wait(ACK_S)
        link.refuse()
        link.cut()
        inbox.wait_for(lambda message: (message.payload, message.retain) == (b"offline", False), ACK_S)
        late: MessageLog[Incoming] = MessageLog()
        connect(broker, "watch", HEARTBEATS, on_message=late.put, client_id="late")
        late.wait_for(lambda message: (message.payload, message.retain) == (b"offline", True), ACK_S)


@pytest.mark.slow
def test_a_link_that_silently_died_is_noticed_by_keepalive(name: str, broker: RunningBroker, connect: Connect) -> None:
    if name == "embedded":
        pytest.skip("does not apply: amqtt has no keepalive (docs/brokers.md), the age of the heartbeat tells")
    heartbeat = TOPICS.agent_heartbeat(AGENT_ID)
    inbox: MessageLog[Incoming] = MessageLog()
    connect(broker, "bridge", HEARTBEATS, on_message=inbox.put)
    with TcpProxy(broker.port) as link:
        broker_behind = broker.reached_at(link.port)
        will, options = Will(heartbeat, b"silent"), {"keepalive_s": 5}
        agent = connect(broker_behind, "agent", will=will, settings=options)
        link.freeze()
        link.refuse()
        inbox.wait_for(lambda message: (message.payload, message.retain) == (b"silent", False), 60.0)
        eventually(lambda: not agent.connected)


def test_what_a_user_has_no_right_to_say_or_hear_goes_nowhere(broker: RunningBroker, connect: Connect) -> None:
    said: MessageLog[Incoming] = MessageLog()
    heard: MessageLog[Incoming] = MessageLog()
    conversation_id = new_id()
    connect(broker, "bridge", TOPICS.filter(TopicKind.TURNS), TOPICS.filter(TopicKind.AUDIO), on_message=said.put)
    watch = connect(broker, "watch", TOPICS.audio(conversation_id), on_message=heard.put)
    backend, agent = connect(broker, "backend"), connect(broker, "agent", client_id=f"{AGENT_ID}-i1")
    forged = backend.publish(TOPICS.turns(conversation_id, AGENT_ID), b"forged").wait(ACK_S)
    if backend.protocol == "5":
        assert forged is PublishOutcome.REFUSED, "MQTT 5 must report it"
    backend.publish(TOPICS.audio(conversation_id), b"private").wait(ACK_S)
    agent.publish(TOPICS.turns(conversation_id, AGENT_ID), b"genuine").wait(ACK_S)
    said.wait_for(lambda message: message.payload == b"private", ACK_S)
    said.wait_for(lambda message: message.payload == b"genuine", ACK_S)
    assert sorted(message.payload for message in said.items) == [b"genuine", b"private"]
    assert heard.items == []
    assert watch.connected


def test_an_agent_neither_speaks_for_another_nor_hears_its_audio(
    name: str, broker: RunningBroker, connect: Connect
) -> None:
    if name == "embedded":
        pytest.skip("does not apply: all agents are one user of the embedded one, as docs/brokers.md says")
    said: MessageLog[Incoming] = MessageLog()
    heard: MessageLog[Incoming] = MessageLog()
    conversation_id = new_id()
    bridge = connect(broker, "bridge", TOPICS.filter(TopicKind.TURNS), on_message=said.put)
    laptop = connect(broker, "agent:laptop", on_message=heard.put)
    laptop.subscribe(TOPICS.parts(conversation_id, AGENT_ID))
    laptop.subscribe(TOPICS.filter(TopicKind.PARTS, sender_id="laptop"))
    laptop.wait_connected(ACK_S)
    laptop.publish(TOPICS.turns(conversation_id, AGENT_ID), b"forged").wait(ACK_S)
    laptop.publish(TOPICS.turns(conversation_id, "laptop"), b"mine").wait(ACK_S)
    bridge.publish(TOPICS.parts(conversation_id, AGENT_ID), b"theirs").wait(ACK_S)
    bridge.publish(TOPICS.parts(conversation_id, "laptop"), b"mine").wait(ACK_S)
    heard.wait_count(1, ACK_S)
    said.wait_count(1, ACK_S)
    assert [message.payload for message in (*said.items, *heard.items)] == [b"mine", b"mine"]


def test_an_onlooker_sees_states_and_never_audio(name: str, broker: RunningBroker, connect: Connect) -> None:
    seen: MessageLog[Incoming] = MessageLog()
    conversation_id = new_id()
    watch = connect(broker, "watch", f"{TOPICS.root}/#", on_message=seen.put)
    if name == "nats":
        assert list(watch.refused_filters) == [f"{TOPICS.root}/#"], "NATS has no rights narrower than a subscription"
        watch.subscribe(TOPICS.filter(TopicKind.ACCEPTED))
        watch.wait_connected(ACK_S)
    connect(broker, "backend").publish(TOPICS.audio(conversation_id), b"private").wait(ACK_S)
    connect(broker, "bridge").publish(TOPICS.accepted(conversation_id), b"receipt").wait(ACK_S)
    seen.wait_for(lambda message: message.topic == TOPICS.accepted(conversation_id), ACK_S)
    assert TOPICS.audio(conversation_id) not in [message.topic for message in seen.items]


def test_nothing_waits_in_the_broker_for_a_client_that_is_away(broker: RunningBroker, connect: Connect) -> None:
    """Sessions are clean: audio for an agent that is away is not kept, and not sent when it returns."""
    topic, conversation_id = TOPICS.filter(TopicKind.PARTS, sender_id=AGENT_ID), new_id()
    first = connect(broker, "agent", topic, client_id="studio-1")
    first.stop()
    bridge = connect(broker, "bridge")
    bridge.publish(TOPICS.parts(conversation_id, AGENT_ID), b"while away").wait(ACK_S)
    inbox: MessageLog[Incoming] = MessageLog()
    connect(broker, "agent", topic, client_id="studio-1", on_message=inbox.put)
    bridge.publish(TOPICS.parts(conversation_id, AGENT_ID), b"when back").wait(ACK_S)
    inbox.wait_count(1, ACK_S)
    assert [message.payload for message in inbox.items] == [b"when back"]


def test_a_restart_of_the_broker_is_survived_by_both_sides(broker: RunningBroker, connect: Connect) -> None:
    inbox: MessageLog[Incoming] = MessageLog()
    conversation_id = new_id()
    bridge = connect(broker, "bridge", TOPICS.filter(TopicKind.AUDIO), on_message=inbox.put)
    backend = connect(broker, "backend")
    broker.kill()
    eventually(lambda: not bridge.connected and not backend.connected, ACK_S)
    broker.start()
    bridge.wait_connected(ACK_S)
    backend.wait_connected(ACK_S)
    assert bridge.refused_filters == {}
    backend.publish(TOPICS.audio(conversation_id), b"again").wait(ACK_S)
    assert inbox.wait_count(1, ACK_S)[0].payload == b"again"


def test_a_chunk_becomes_a_labelled_conversation(own_broker: RunningBroker, tmp_path: Path) -> None:
    """The whole path with bridge and agent as processes: audio in several parts, turns, and the update."""
    pytest.importorskip("av", reason="the agent's extra is not installed")
    import numpy as np

    from schemas.conversation import TranscriptSegment
    from tests.mac_agent.agent_process import start_tone_agent
    from tests.mac_agent.sounds import as_wav, tone
    from tests.vps_bridge.live_bridge import Backend, run_bridge

    # Pauses of different lengths: audio and transcript fit each other in one way only.
    spans = ((0.5, 3.7), (4.2, 8.2), (9.0, 11.4), (12.1, 16.6), (17.3, 20.3), (21.0, 25.1), (25.6, 27.8))
    audio = np.zeros(28 * 16_000, dtype=np.float32)
    for turn, (start_s, end_s) in enumerate(spans):
        spoken = tone(300 if turn % 2 else 700, end_s - start_s)
        audio[round(start_s * 16_000) :][: len(spoken)] = spoken
    segments = tuple(
        TranscriptSegment(id=f"s{turn}", start_s=start_s, end_s=end_s, text="word", speaker="SPEAKER_00")
        for turn, (start_s, end_s) in enumerate(spans)
    )
    began = datetime(2026, 5, 4, tzinfo=UTC)
    backend = Backend(own_broker)
    with run_bridge(own_broker, tmp_path / "bridge", backend) as bridge:
        bridge.allow(AGENT_ID)
        agent = start_tone_agent(own_broker, tmp_path / "agent")
        try:
            backend.event("whole", EventType.STARTED, started_at=began)
            backend.event("whole", EventType.SEGMENTS, segments=segments)
            receipt = backend.audio("whole", as_wav(audio), captured_at=began)
            assert (receipt.verdict, receipt.bytes) == (Verdict.ACCEPTED, 28 * 32_000 + 44)
            backend.event("whole", EventType.COMPLETED, chunks=1)
            update = backend.wait_updated("whole")
        finally:
            agent.end()
            sys.stdout.write(agent.log()[-4000:])  # pytest shows it if the test failed
    labels = [label.speaker for label in update.segments]
    assert len(set(labels)) == 2
    assert labels == [labels[turn % 2] for turn in range(7)]
    backend.stop()
