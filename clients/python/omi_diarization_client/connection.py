"""A connection to the broker that is made again whenever it is lost, on MQTT 5 or 3.1.1.

Each connection is a fresh paho client, driven by one thread of ours: nothing that an ended one had queued is ever sent
by the next. What was not acknowledged is reported as lost, and its sender sends it again.
"""

from __future__ import annotations

import logging
import random
import secrets
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from omi_diarization_client.errors import BrokerUnavailable, NotAllowed

_LOG = logging.getLogger("omi_diarization_client")
ASSUMED_PACKET_BYTES = 1_900_000  # of a broker that announces no limit: Mosquitto 2.1 takes 2,000,000
KEEPALIVE_S, HANDSHAKE_S, LOOP_S = 15, 5.0, 0.5
MAX_INFLIGHT = 20
MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 15.0
UNSUPPORTED_VERSION, NO_SUBSCRIBERS = 0x84, 0x10  # reason codes of MQTT 5
PORTS = {"mqtt": 1883, "mqtts": 8883}
VERSIONS = {
    "auto": MQTTProtocolVersion.MQTTv5,
    "5": MQTTProtocolVersion.MQTTv5,
    "3.1.1": MQTTProtocolVersion.MQTTv311,
}


@dataclass(frozen=True)
class Login:
    """Where the broker is, and as whom to speak with it."""

    url: str
    user: str | None
    password: str | None = field(repr=False)
    ca: str | None
    mqtt_version: str
    mqtt_qos: int = 1
    """The highest that is used: 0 keeps audio out of the streams of a NATS cluster."""


@dataclass(frozen=True)
class Server:
    """One server of the broker."""

    host: str
    port: int
    tls: bool


def parse_servers(urls: str) -> list[Server]:
    """Return the servers in a URL, or in several between commas, from one at random on: a cluster's are tried in turn.

    Raises:
        ValueError: it is none.
    """
    found = []
    for url in urls.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme not in PORTS or not parts.hostname or parts.username or parts.path.strip("/"):
            raise ValueError("the broker's URL is mqtt://host:port or mqtts://host:port; user and password stand apart")
        found.append(Server(parts.hostname, parts.port or PORTS[parts.scheme], parts.scheme == "mqtts"))
    first = random.randrange(len(found))  # noqa: S311 - spreads load, no secret
    return found[first:] + found[:first]


class SentMessage:
    """What the broker says to one message: `taken`, `refused` or `lost`."""

    def __init__(self, topic: str) -> None:
        """Start without an answer."""
        self.topic, self.outcome, self._settled = topic, "", threading.Event()

    def settle(self, outcome: str) -> None:
        """Note the answer."""
        self.outcome = outcome
        self._settled.set()

    def wait(self, timeout_s: float) -> str:
        """Return the answer, or nothing where none came in time."""
        self._settled.wait(timeout_s)
        return self.outcome


class BrokerConnection:
    """Stays connected between `start` and `stop`. Callbacks run on its thread and must only store."""

    def __init__(self, login: Login, on_message: Callable[[MQTTMessage], None]) -> None:
        """Prepare it. Raises `ValueError` where the URL is none of a broker, or there is no such version."""
        self._servers = parse_servers(login.url)
        if login.mqtt_version not in VERSIONS:
            raise ValueError(f"mqtt_version {login.mqtt_version!r}: use {', '.join(VERSIONS)}")
        self._login, self._on_message = login, on_message
        self._client_id = f"backend-{secrets.token_hex(8)}"
        self._protocol = VERSIONS[login.mqtt_version]
        self._changed = threading.Condition()  # guards what follows
        self._client: PahoClient | None = None
        self._filters: dict[str, int] = {}
        self._granted: set[str] = set()
        self._denied: set[str] = set()
        self._asked: dict[int, list[str]] = {}
        self._sent: dict[int, SentMessage] = {}
        self._reason, self._is_refused, self._has_connected = "no answer", False, False
        self.max_packet_bytes = ASSUMED_PACKET_BYTES
        self._events: deque[Callable[[], None]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._stay_connected, name="omi-diarization-client", daemon=True)

    @property
    def _server(self) -> Server:
        return self._servers[0]

    def start(self, timeout_s: float) -> None:
        """Connect. Raises `BrokerUnavailable` with the reason."""
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._client is not None or self._is_refused, timeout_s)
            if self._client is None:
                raise BrokerUnavailable(f"{self._login.url}: {self._reason}. Check URL, user, password and CA")

    def stop(self) -> None:
        """Disconnect, and end the thread."""
        self._stopping.set()
        with self._changed:
            if self._client is not None:
                self._client.disconnect()
        if self._thread.ident is not None:
            self._thread.join(10 * LOOP_S)

    def subscribe(self, topic_filter: str, qos: int, timeout_s: float) -> None:
        """Listen, now and after every reconnect. Returns once the broker said yes, or after `timeout_s`.

        Raises:
            NotAllowed: the broker said no.
        """
        with self._changed:
            if topic_filter not in self._filters:
                self._filters[topic_filter] = qos
                if self._client is not None:
                    self._ask(self._client, topic_filter, qos)
            self._changed.wait_for(lambda: topic_filter in self._granted | self._denied, timeout_s)
            if topic_filter in self._denied:
                del self._filters[topic_filter]
                self._denied.discard(topic_filter)
                raise NotAllowed(f"the broker does not let this user listen to {topic_filter}: use the backend's user")

    def unsubscribe(self, topic_filter: str) -> None:
        """Stop listening."""
        with self._changed:
            self._filters.pop(topic_filter, None)
            self._granted.discard(topic_filter)
            if self._client is not None:
                self._client.unsubscribe(topic_filter)

    def publish(self, topic: str, payload: bytes) -> SentMessage:
        """Send at the QoS of the login; without a connection it is lost at once."""
        sent = SentMessage(topic)
        with self._changed:
            info = self._client.publish(topic, payload, self._login.mqtt_qos) if self._client is not None else None
            if info is None or info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                sent.settle("lost")
            else:
                self._sent[info.mid] = sent
        return sent

    # ------------------------------------------------------------------------------ the connection's thread

    def _stay_connected(self) -> None:
        pause_s = MIN_PAUSE_S
        while not self._stopping.is_set():
            began_s, protocol = time.monotonic(), self._protocol
            try:
                self._serve()
            except (OSError, ValueError) as error:  # refused, no such host, TLS; paho raises ValueError for some hosts
                self._reason = f"{type(error).__name__}: {error}"
            finally:
                self._end()
            if self._protocol is not protocol:
                continue  # the other version, at once
            _LOG.info("not connected to %s:%s: %s", self._server.host, self._server.port, self._reason)
            self._servers.append(self._servers.pop(0))  # the next one's turn
            pause_s = MIN_PAUSE_S if time.monotonic() - began_s > MAX_PAUSE_S else min(2 * pause_s, MAX_PAUSE_S)
            self._stopping.wait(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - spreads load, no secret

    def _serve(self) -> None:
        client = self._make_client()
        client.connect(self._server.host, self._server.port, KEEPALIVE_S)
        plain = client.socket()
        if isinstance(plain, socket.socket):  # without Nagle's algorithm a small message does not wait for the last one
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer_by_s = time.monotonic() + HANDSHAKE_S
        while client.loop(LOOP_S) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            while self._events:
                self._events.popleft()()
            if self._client is None and time.monotonic() > answer_by_s:
                self._reason = f"no answer within {HANDSHAKE_S:g} s"
                self._try_older()  # a broker of 3.1.1 may wait for more bytes of a CONNECT of 5
                return
            if self._stopping.is_set() and self._client is None:
                return

    def _make_client(self) -> PahoClient:
        options: dict[str, Any] = {} if self._protocol is MQTTProtocolVersion.MQTTv5 else {"clean_session": True}
        client = PahoClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._protocol,
            reconnect_on_failure=False,
            **options,
        )
        client.on_socket_register_write = lambda *_: None  # only this thread writes: two would mix their packets
        client.max_inflight_messages_set(MAX_INFLIGHT)
        if self._login.user is not None:
            client.username_pw_set(self._login.user, self._login.password)
        if self._server.tls:
            client.tls_set_context(ssl.create_default_context(cafile=self._login.ca))
        # paho calls back under locks of its own: what is to be done is done after it has returned.
        later = self._events.append
        client.on_connect = lambda _c, _u, _f, reason, props: later(partial(self._note_connack, client, reason, props))
        client.on_disconnect = lambda _c, _u, _f, reason, _p: later(partial(self._note_end, reason))
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: later(partial(self._note_suback, mid, reasons))
        client.on_publish = lambda _c, _u, mid, reason, _p: later(partial(self._note_puback, mid, reason))
        client.on_message = lambda _c, _u, message: later(partial(self._on_message, message))
        return client

    def _try_older(self) -> bool:
        """Use MQTT 3.1.1 from now on, where 5 was only tried; returns whether."""
        if self._login.mqtt_version != "auto" or self._has_connected or self._protocol is not VERSIONS["5"]:
            return False
        self._protocol = VERSIONS["3.1.1"]
        return True

    def _note_connack(self, client: PahoClient, reason: ReasonCode, properties: object) -> None:
        if reason.is_failure:
            self._reason = f"refused: {reason.getName()}"
            if reason.value == UNSUPPORTED_VERSION and self._try_older():
                return
            with self._changed:
                self._is_refused = True
                self._changed.notify_all()
            return
        with self._changed:
            self._client, self._has_connected = client, True
            self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None) or ASSUMED_PACKET_BYTES
            for topic_filter, qos in self._filters.items():
                self._ask(client, topic_filter, qos)
            self._changed.notify_all()

    def _ask(self, client: PahoClient, topic_filter: str, qos: int) -> None:
        _, mid = client.subscribe(topic_filter, min(qos, self._login.mqtt_qos))
        if mid is not None:
            self._asked.setdefault(mid, []).append(topic_filter)

    def _note_suback(self, mid: int, reasons: list[ReasonCode]) -> None:
        with self._changed:
            for topic_filter, reason in zip(self._asked.pop(mid, ()), reasons, strict=False):
                (self._denied if reason.is_failure else self._granted).add(topic_filter)
            self._changed.notify_all()

    def _note_puback(self, mid: int, reason: ReasonCode) -> None:
        with self._changed:
            sent = self._sent.pop(mid, None)
        if sent is not None:
            refused = reason.is_failure and reason.value != NO_SUBSCRIBERS
            sent.settle("refused" if refused else "taken")

    def _note_end(self, reason: ReasonCode) -> None:
        if self._client is not None:
            self._reason = f"connection lost: {reason.getName()}"

    def _end(self) -> None:
        while self._events:
            self._events.popleft()()
        with self._changed:
            self._client = None
            lost = list(self._sent.values())
            self._sent.clear()
            self._asked.clear()
            self._granted.clear()
            self._denied.clear()
            self._changed.notify_all()
        for sent in lost:
            sent.settle("lost")
