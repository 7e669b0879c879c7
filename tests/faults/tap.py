"""A client that receives everything on the broker and sends some of it again: duplicates, old, reordered, damaged.

Heartbeats are not sent again: a live one means that its program runs, and a copy would say so of one that has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Self

import msgpack

from broker.errors import BrokerError
from broker.session import Incoming, MqttSession
from schemas.agent import AgentHeartbeat
from schemas.bridge import BridgeHeartbeat
from schemas.codec import decode
from schemas.errors import SchemaError
from schemas.topics import TopicKind, Topics
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S

TOPICS = Topics()
RECENT, OLD = 300, 200
BEATS = (TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT)
FROM_AGENTS = (TopicKind.TURNS, TopicKind.FAILURE, TopicKind.WANT)
BULK = (TopicKind.AUDIO, TopicKind.PARTS)


@dataclass(frozen=True)
class LiveHeartbeat:
    """A heartbeat without the retain flag, and when it arrived (monotonic seconds)."""

    heard_s: float
    message: AgentHeartbeat | BridgeHeartbeat

    @property
    def is_online(self) -> bool:
        return self.message.state == "online"


class Tap:
    """Receives from its start on; a context manager. The methods `send_…` return how many messages they sent."""

    def __init__(self, broker: RunningBroker, user: str, seed: int) -> None:
        self._rng = random.Random(f"tap {seed}")
        self._lock = threading.Lock()
        self._recent: deque[Incoming] = deque(maxlen=RECENT)
        self._old: list[Incoming] = []
        self._received = 0
        self._own: set[bytes] = set()
        self._beats: dict[str, LiveHeartbeat] = {}
        self._session = MqttSession(
            broker.settings(user, reconnect_max_s=0.2),
            client_id=f"tap-{uuid.uuid4().hex[:8]}",
            on_message=self._receive,
        )
        self._session.subscribe(f"{TOPICS.root}/#", qos=0)

    def __enter__(self) -> Self:
        self._session.start()
        self._session.wait_connected(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._session.stop()

    def beat_of(self, name: str) -> LiveHeartbeat | None:
        """The latest live heartbeat of an agent or the bridge, by its id."""
        with self._lock:
            return self._beats.get(name)

    def wait_online(self, name: str, after_s: float, timeout_s: float = WAIT_S) -> None:
        """Wait for a live `online` that arrived after `after_s`."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            beat = self.beat_of(name)
            if beat is not None and beat.heard_s > after_s and beat.is_online:
                return
            time.sleep(0.02)
        raise AssertionError(f"{name} did not say `online` within {timeout_s:.0f} s")

    # ------------------------------------------------------------------------------------- sending again

    def send_duplicates(self, count: int) -> int:
        """Send the latest messages again, in order."""
        with self._lock:
            chosen = list(self._recent)[-count:]
        return self._send(chosen)

    def send_old(self, count: int) -> int:
        """Send messages from the whole run again, in any order."""
        with self._lock:
            chosen = self._rng.sample(self._old, min(count, len(self._old)))
        return self._send(chosen)

    def send_reordered(self, count: int) -> int:
        """Send the latest messages of one conversation, or of one agent, again in another order."""
        with self._lock:
            recent = list(self._recent)
        if not recent:
            return 0
        about = recent[-1].topic.split("/")[3]
        chosen = [message for message in recent if message.topic.split("/")[3] == about][-count:]
        self._rng.shuffle(chosen)
        return self._send(chosen)

    def send_damaged(self, count: int) -> int:
        """Send damaged copies of the latest audio and parts."""
        with self._lock:
            bulk = [message for message in self._recent if TOPICS.parse(message.topic).kind in BULK]
            chosen = self._rng.sample(bulk, min(count, len(bulk)))
        damaged = [replace(message, payload=self._damage(message.payload)) for message in chosen]
        with self._lock:
            self._own.update(hashlib.sha256(message.payload).digest() for message in damaged)
        return self._send(damaged)

    def send_forged(self, agent_id: str, count: int, *, copies: int = 1) -> int:
        """Send what agents sent as if another agent had: as it was, in its own name, damaged, or noise."""
        with self._lock:
            said = [message for message in self._recent if TOPICS.parse(message.topic).kind in FROM_AGENTS]
            chosen = self._rng.sample(said, min(count, len(said)))
            forged = [self._forge(message, agent_id) for message in chosen for _ in range(copies)]
            self._own.update(hashlib.sha256(message.payload).digest() for message in forged)
        return self._send(forged)

    def _forge(self, message: Incoming, agent_id: str) -> Incoming:
        address = TOPICS.parse(message.topic)
        parent, _, _ = message.topic.rpartition("/")
        topic = TOPICS.want(agent_id) if address.kind is TopicKind.WANT else f"{parent}/{agent_id}"
        payload = message.payload
        match self._rng.choice(("copied", "in its own name", "cut", "noise", "a heartbeat")):
            case "in its own name":
                mine = (address.sender_id or "").encode()
                payload = payload.replace(mine, agent_id.encode().ljust(len(mine), b"-")[: len(mine)])
            case "cut":
                payload = payload[: self._rng.randrange(len(payload))]
            case "noise":
                payload = self._rng.randbytes(200)
            case "a heartbeat":
                topic = TOPICS.agent_heartbeat(agent_id)
        return replace(message, topic=topic, payload=payload)

    def _damage(self, payload: bytes) -> bytes:
        """Flip a byte (with or without a hash to match), cut off the end, or return random bytes."""
        fields: dict[str, Any] = msgpack.unpackb(payload)
        audio = bytearray(fields["audio"])
        match self._rng.choice(("flip", "flip and hash", "cut", "noise")):
            case "noise":
                return self._rng.randbytes(200)
            case "cut":
                del audio[len(audio) // 2 :]
            case how:
                audio[self._rng.randrange(len(audio))] ^= 0x55
                if how == "flip and hash" and fields.get("part_sha256"):
                    fields["part_sha256"] = hashlib.sha256(audio).hexdigest()
        fields["audio"] = bytes(audio)
        damaged: bytes = msgpack.packb(fields)
        return damaged

    def _send(self, messages: list[Incoming]) -> int:
        sent = 0
        with contextlib.suppress(BrokerError):  # while the broker is down nothing is repeated
            for message in messages:
                self._session.publish(message.topic, message.payload)
                sent += 1
        return sent

    def _receive(self, message: Incoming) -> None:
        with contextlib.suppress(SchemaError):
            address = TOPICS.parse(message.topic)
            if address.kind in BEATS:
                self._note_beat(address.kind, address.sender_id or "", message)
            elif not message.retain:
                self._keep(message)

    def _note_beat(self, kind: TopicKind, name: str, message: Incoming) -> None:
        if message.retain:
            return
        beat: AgentHeartbeat | BridgeHeartbeat
        if kind is TopicKind.AGENT_HEARTBEAT:
            beat = decode(AgentHeartbeat, message.payload)
        else:
            beat = decode(BridgeHeartbeat, message.payload)
        with self._lock:
            self._beats[name] = LiveHeartbeat(time.monotonic(), beat)

    def _keep(self, message: Incoming) -> None:
        with self._lock:
            digest = hashlib.sha256(message.payload).digest()
            if digest in self._own:
                return
            self._recent.append(message)
            self._received += 1
            if len(self._old) < OLD:
                self._old.append(message)
            elif self._rng.random() < OLD / self._received:
                self._old[self._rng.randrange(OLD)] = message
