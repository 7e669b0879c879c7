"""Who may say and hear what on a cluster of NATS servers: every user on every topic, both ways, as on a Mosquitto."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from broker.session import Incoming, MqttSession, Will
from schemas.topics import TopicKind
from tests.broker.test_mosquitto_rights import READS, TARGETS, TOPICS, USERS, WRITES, is_message
from tests.clusters import NAMES, RunningCluster, run_cluster
from tests.inbox import MessageLog, eventually

ACK_S = 120.0
ASK_AGAIN_S = 5.0
Connect = Callable[..., MqttSession]
PROBE = "failure bridge"  # the bridge may say it, and hears it


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with run_cluster(tmp_path_factory.mktemp("rights"), tls=True) as running:
        yield running


def at(cluster: RunningCluster, user: str) -> dict[str, Any]:
    """Each user is at another server than the ones it speaks with."""
    return {"broker_url": cluster.url_of(NAMES[USERS.index(user) % len(NAMES)])}


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("user", USERS)
def test_a_user_may_publish_what_it_needs_and_nothing_else(
    user: str, qos: int, cluster: RunningCluster, connect: Connect
) -> None:
    """MQTT 3.1.1 has no word for a refusal: what the bridge hears, which may hear everything, tells."""
    heard: MessageLog[Incoming] = MessageLog()
    mark = f"{user} {qos}".encode()
    bridge = connect(cluster, "bridge", f"{TOPICS.root}/#", on_message=heard.put, settings={"mqtt_qos": 0})
    session = connect(cluster, user, settings={"mqtt_qos": qos, **at(cluster, user)})
    for topic in TARGETS.values():
        session.publish(topic, mark).wait(ACK_S)
    for name in WRITES[user]:
        heard.wait_for(partial(is_message, TARGETS[name], mark), ACK_S)
    bridge.publish(TARGETS[PROBE], b"last " + mark)
    heard.wait_for(partial(is_message, TARGETS[PROBE], b"last " + mark), ACK_S)
    time.sleep(0.3)  # what must not come had as long to come as what did
    assert {message.topic for message in heard.items if message.payload == mark} == {
        TARGETS[name] for name in WRITES[user]
    }


@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
@pytest.mark.parametrize("user", USERS)
def test_a_user_hears_what_it_needs_and_nothing_else(
    user: str, retain: bool, cluster: RunningCluster, connect: Connect
) -> None:
    """Whatever it subscribes to: everything, one kind, or one topic, and what NATS calls its own."""
    mark = f"{user} {retain}".encode()
    own = ["$MQTT/#", "$MQTT/msgs/#", "$MQTT/sub/#", "$JS/#", "$SYS/#", "$G/#"]
    kinds = [TOPICS.filter(kind) for kind in TopicKind]
    listening = ["#", f"{TOPICS.root}/#", "+/v1/+/+/+", *TARGETS.values(), *kinds, *own]
    speakers = {name: connect(cluster, name, settings=at(cluster, name)) for name in USERS}
    expected = {TARGETS[name] for name in READS[user] & set().union(*WRITES.values())}

    def listen() -> tuple[MqttSession, MessageLog[Incoming]]:
        log: MessageLog[Incoming] = MessageLog()
        return connect(cluster, user, *listening, on_message=log.put, settings=at(cluster, user)), log

    if retain:
        say_everything(speakers, mark, retain=True)
    session, heard = listen()
    if not retain:
        say_everything(speakers, mark, retain=False)
    until_s = time.monotonic() + ACK_S
    while not has_all(heard, expected, mark) and time.monotonic() < until_s:
        if retain:  # each server learns a moment later what is retained at another: whoever asked before hears nothing
            session, heard = listen()
    time.sleep(0.3)
    assert {message.topic for message in heard.items if message.payload == mark} == expected
    assert set(own) <= set(session.refused_filters)


def has_all(heard: MessageLog[Incoming], topics: Iterable[str], mark: bytes) -> bool:
    """Wait a while for a message on each of these topics; return whether all came."""
    try:
        for topic in topics:
            heard.wait_for(partial(is_message, topic, mark), ASK_AGAIN_S)
    except AssertionError:
        return False
    return True


def say_everything(speakers: dict[str, MqttSession], mark: bytes, **options: Any) -> None:
    for user, session in speakers.items():
        for receipt in [session.publish(TARGETS[name], mark, **options) for name in WRITES[user]]:
            receipt.wait(ACK_S)


def test_nobody_reaches_the_streams_or_the_servers_themselves(cluster: RunningCluster, connect: Connect) -> None:
    """A user that could speak to JetStream would read, or delete, what is retained."""
    beat = TARGETS["agent beat first"]
    kept: MessageLog[Incoming] = MessageLog()
    first = connect(cluster, "agent:first")
    first.publish(beat, b"kept", retain=True).wait(ACK_S)
    attacker = connect(cluster, "agent:second")
    for topic in (
        "$JS/API/STREAM/DELETE/$MQTT_rmsgs",
        "$JS/API/STREAM/PURGE/$MQTT_rmsgs",
        f"$MQTT/rmsgs/{beat}",
        f"$MQTT/msgs/{beat}",
        "$SYS/REQ/SERVER/PING",
    ):
        attacker.publish(topic, b"{}").wait(ACK_S)
    time.sleep(0.3)
    connect(cluster, "watch", beat, on_message=kept.put, settings={"broker_url": cluster.url_of("c")})
    message = kept.wait_for(lambda message: message.topic == beat, ACK_S)
    assert (message.payload, message.retain) == (b"kept", True)


def test_a_will_is_no_way_to_speak_for_another(cluster: RunningCluster, connect: Connect) -> None:
    heard: MessageLog[Incoming] = MessageLog()
    connect(cluster, "bridge", f"{TOPICS.root}/#", on_message=heard.put)
    forger = connect(cluster, "agent:second", will=Will(TARGETS["agent beat first"], b"forged will"), wait=False)
    eventually(lambda: forger.connected or forger.last_error is not None)
    drop(forger)
    honest = connect(cluster, "agent:second", will=Will(TARGETS["agent beat second"], b"true will"), client_id="honest")
    drop(honest)
    heard.wait_for(partial(is_message, TARGETS["agent beat second"], b"true will"), ACK_S)
    time.sleep(0.3)
    assert b"forged will" not in {message.payload for message in heard.items}


def drop(session: MqttSession) -> None:
    """Break its connection without a word, as a cable does."""
    client = session._client
    if client is not None:
        plain = client.socket()
        if plain is not None:
            plain.close()
