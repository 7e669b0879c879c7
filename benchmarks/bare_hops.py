"""Bare paho: the same bytes in the same parts through the same broker, over as many hops, and nothing else.

No disk, no hash, no ledger, no receipt: the least that delivery over MQTT can cost. One process for each hop; the last
one reports each whole payload as done. One of them is started with

    python -m benchmarks.bare_hops HOST PORT USER FROM TO middle|last

with the password read from standard input.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import defaultdict

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

HEAD_BYTES = 16  # payload number and its length, 8 bytes each


def connect(address: tuple[str, int], user: str, password: str) -> Client:
    """Connect a client with paho's own thread and defaults, and MQTT 5."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(user, password)
    client.connect(*address)
    client.loop_start()
    return client


def relay(address: tuple[str, int], user: str, source: str, target: str, *, is_last: bool) -> None:
    """Forward every message; the last relay counts the bytes instead, and reports each whole payload."""
    client = connect(address, user, sys.stdin.readline().strip())
    received: dict[bytes, int] = defaultdict(int)
    arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def keep(_client: Client, _data: object, message: MQTTMessage) -> None:
        arrived.put(bytes(message.payload))

    client.on_message = keep
    client.subscribe(source, qos=1)
    print("ready", flush=True)
    while True:
        payload = arrived.get()
        if not is_last:
            client.publish(target, payload, qos=1)
            continue
        number, size = payload[:8], int.from_bytes(payload[8:HEAD_BYTES])
        received[number] += len(payload) - HEAD_BYTES
        if received[number] >= size:
            client.publish(target, number, qos=1)


class Sender:
    """Sends payloads to the first hop, and receives the reports of the last one."""

    def __init__(self, client: Client, first: str, listener: Client, done: str, part_bytes: int) -> None:
        self._client, self._first, self._part_bytes = client, first, part_bytes
        self._done_s: dict[int, float] = {}
        self._changed = threading.Condition()
        listener.on_message = self._note
        listener.subscribe(done, qos=1)

    def _note(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        with self._changed:
            self._done_s[int.from_bytes(message.payload)] = time.monotonic()
            self._changed.notify_all()

    def send(self, number: int, audio: bytes) -> None:
        """Publish a payload in parts."""
        head = number.to_bytes(8) + len(audio).to_bytes(8)
        for start in range(0, len(audio), self._part_bytes):
            self._client.publish(self._first, head + audio[start : start + self._part_bytes], qos=1)

    def wait(self, number: int, timeout_s: float = 60.0) -> float:
        """Wait until a payload has passed the last hop; return when that was, in monotonic seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._done_s, timeout_s), "the bytes did not arrive"
            return self._done_s[number]


if __name__ == "__main__":
    relay((sys.argv[1], int(sys.argv[2])), *sys.argv[3:6], is_last=sys.argv[6] == "last")
