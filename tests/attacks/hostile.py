"""Hostile users of the broker, as plain paho clients in a process of their own, and how long an honest one waits."""

import contextlib
import multiprocessing
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Event

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker.session import Incoming, MqttSession
from broker.users import Credentials
from schemas.codec import decode, encode
from schemas.conversation import Accepted, Verdict
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.pace import paced
from tests.vps_bridge.live_bridge import TOPICS, audio_payload
from tests.vps_bridge.scripted_agent import make_wav

HONEST_CHUNKS = 8
OFFER_AGAIN_S = 5.0
Message = tuple[str, bytes]


def connect(port: int, user: Credentials) -> Client:
    """A connected client that keeps to no rule of ours; its network loop runs in a thread."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, client_id=secrets.token_hex(8))
    client.username_pw_set(user.username, user.password)
    client.max_inflight_messages_set(1_000)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert connected.wait(WAIT_S)
    return client


def _flood(
    port: int, user: Credentials, messages: Sequence[Message], rate_hz: float, begun: Event, ended: Event
) -> None:
    client = connect(port, user)
    sent, began_s = 0, time.monotonic()
    while not ended.is_set():
        for _ in range(int((time.monotonic() - began_s) * rate_hz) - sent):
            topic, payload = messages[sent % len(messages)]
            client.publish(topic.replace("RANDOM", secrets.token_hex(6)), payload, qos=1)
            sent += 1
        if sent > rate_hz / 2:
            begun.set()
        time.sleep(0.005)
    client.disconnect()


@contextlib.contextmanager
def flooding(
    broker: RunningBroker, role: str, messages: Sequence[Message], *, rate_hz: float = 2_000
) -> Iterator[None]:
    """One user publishes these messages in turn, so many a second; `RANDOM` in a topic is another id each time."""
    context = multiprocessing.get_context("spawn")
    begun, ended = context.Event(), context.Event()
    arguments = broker.port, broker.users[role], messages, rate_hz / paced(1.0), begun, ended
    process = context.Process(target=_flood, args=arguments, daemon=True)
    process.start()
    try:
        assert begun.wait(WAIT_S)
        yield
    finally:
        ended.set()
        process.join(WAIT_S)


def slowest_receipt_s(broker: RunningBroker, conversation_id: str) -> float:
    """Send chunks one after another as an honest backend, and return how long the slowest receipt took.

    It hears its own conversation only: reading the receipts of a flood would be its own delay. A chunk without a
    receipt is offered again, as every owner of a message does: a full broker may drop it.
    """
    arrived_s: dict[str, float] = {}
    refused: list[Accepted] = []
    changed = threading.Condition()

    def note(message: Incoming) -> None:
        receipt = decode(Accepted, message.payload)
        with changed:
            if receipt.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE):
                arrived_s.setdefault(receipt.chunk_id or "", time.monotonic())
            else:
                refused.append(receipt)
            changed.notify_all()

    session = MqttSession(broker.settings("backend"), client_id=secrets.token_hex(8), on_message=note)
    session.subscribe(TOPICS.accepted(conversation_id))
    session.start()
    session.wait_connected(WAIT_S)
    waits_s = []
    try:
        for number in range(HONEST_CHUNKS):
            name, began_s = f"h{number}", time.monotonic()
            payload = encode(audio_payload(conversation_id, make_wav(1.0, tone=number), chunk_id=name))
            while name not in arrived_s:
                assert not refused
                assert time.monotonic() < began_s + WAIT_S, f"no receipt for {name} of {conversation_id}"
                session.publish(TOPICS.audio(conversation_id), payload)
                with changed:
                    changed.wait_for(lambda name=name: name in arrived_s, OFFER_AGAIN_S)  # type: ignore[misc]
            waits_s.append(arrived_s[name] - began_s)
    finally:
        session.stop()
    return max(waits_s)
