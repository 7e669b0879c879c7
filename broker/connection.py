"""One connection to the broker: a paho client that no later connection uses again."""

import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Event
from time import monotonic
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.address import BrokerAddress
from broker.client import connect_properties, send_at_once
from broker.failures import NotMqtt

LOOP_TIMEOUT_S = 1.0  # longest the network thread sleeps before it looks at the keepalive and at the request to stop
HANDSHAKE_TIMEOUT_S = 3.0  # between our CONNECT and the broker's answer
CONNACK = 0x20  # the first byte of that answer
FIRST_BYTES = 64  # of an answer that is none, to say what it is


@dataclass(frozen=True)
class ConnectionHandlers:
    """What the session does with each packet; all are called by the thread that runs `Connection.serve`."""

    on_connack: Callable[[Client, ReasonCode, Properties | None], None]
    on_suback: Callable[[int, list[ReasonCode]], None]
    on_puback: Callable[[int, ReasonCode], None]
    on_message: Callable[[MQTTMessage], None]
    on_end: Callable[[ReasonCode], None]


class Connection:
    """A paho client from its CONNECT to its end, driven by the thread that calls `serve`.

    paho calls back while it holds locks of its own. Its callbacks only append to a queue here; the handlers are called
    after paho has returned.
    """

    def __init__(self, client: Client, handlers: ConnectionHandlers) -> None:
        self._client = client
        self._is_answered = False  # the broker has answered our CONNECT
        self._events: deque[Callable[[], None]] = deque()
        later = self._events.append
        client.on_connect = lambda _c, _u, _flags, reason, properties: later(
            partial(self._note_answer, handlers, reason, properties)
        )
        client.on_disconnect = lambda _c, _u, _flags, reason, _p: later(partial(handlers.on_end, reason))
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: later(partial(handlers.on_suback, mid, reasons))
        client.on_publish = lambda _c, _u, mid, reason, _p: later(partial(handlers.on_puback, mid, reason))
        client.on_message = lambda _c, _u, message: later(partial(handlers.on_message, message))

    def open(self, server: BrokerAddress, keepalive_s: int, max_packet_bytes: int) -> None:
        """Connect the socket and send our CONNECT, with a clean session and the largest packet that we take.

        Raises:
            OSError: the broker cannot be reached.
        """
        # Clean start without an expiry interval: on MQTT 5 the session ends with the connection.
        is_mqtt_5 = self._client.protocol is MQTTProtocolVersion.MQTTv5
        options: dict[str, Any] = (
            {"clean_start": True, "properties": connect_properties(max_packet_bytes)} if is_mqtt_5 else {}
        )
        self._client.connect(server.host, server.port, keepalive_s, **options)
        send_at_once(self._client)

    def serve(self, abort: Event) -> None:
        """Run the network loop and the handlers until the connection ends or `abort` is set.

        Raises:
            TimeoutError: the broker did not answer our CONNECT.
            NotMqtt: what answered it is no broker.
        """
        answer_by_s = monotonic() + HANDSHAKE_TIMEOUT_S
        self._look_at_answer(answer_by_s, abort)
        alive = True
        while alive and not abort.is_set():
            alive = self._client.loop(LOOP_TIMEOUT_S) == MQTTErrorCode.MQTT_ERR_SUCCESS
            while self._events:
                self._events.popleft()()
            if not self._is_answered and monotonic() > answer_by_s:
                raise TimeoutError(f"no answer to our CONNECT within {HANDSHAKE_TIMEOUT_S:g} s")

    def _look_at_answer(self, answer_by_s: float, abort: Event) -> None:
        """Wait for the first bytes of the answer, which paho then reads; through TLS they cannot be seen before."""
        plain = self._client.socket()
        if not isinstance(plain, socket.socket) or isinstance(plain, ssl.SSLSocket):
            return
        readable = select.poll()
        readable.register(plain, select.POLLIN)
        while monotonic() < answer_by_s and not abort.is_set():
            if self._client.want_write() and self._client.loop_write() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return  # it has ended: the loop says so
            if readable.poll(1000 * LOOP_TIMEOUT_S):
                first = b""
                with suppress(ConnectionError):  # the loop says so
                    first = plain.recv(FIRST_BYTES, socket.MSG_PEEK)
                if first and first[0] != CONNACK:
                    raise NotMqtt(first)
                return

    def _note_answer(self, handlers: ConnectionHandlers, reason: ReasonCode, properties: Properties | None) -> None:
        self._is_answered = True
        handlers.on_connack(self._client, reason, properties)
