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

from broker.users import Credentials
from schemas.conversation import Verdict
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.pace import paced
from tests.vps_bridge.live_bridge import TOPICS, Backend, audio_payload
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


def slowest_receipt_s(backend: Backend, conversation_id: str) -> float:
    """Send chunks one after another as an honest backend, and return how long the slowest receipt took.

    A chunk without a receipt is offered again, as every owner of a message does: a full broker may drop it.
    """
    return max(_wait_receipt_s(backend, conversation_id, number) for number in range(HONEST_CHUNKS))


def _wait_receipt_s(backend: Backend, conversation_id: str, number: int) -> float:
    payload = audio_payload(conversation_id, make_wav(1.0, tone=number), chunk_id=f"h{number}")
    began_s = time.monotonic()
    while time.monotonic() < began_s + WAIT_S:
        backend.publish(TOPICS.audio(conversation_id), payload)
        offered_s = time.monotonic()
        while time.monotonic() < offered_s + OFFER_AGAIN_S:
            receipts = backend.receipts(conversation_id, chunk_id=f"h{number}")
            if receipts:
                assert receipts[0].verdict is Verdict.ACCEPTED
                return time.monotonic() - began_s
            time.sleep(0.02)
    raise AssertionError(f"no receipt for chunk {number} of {conversation_id}")
