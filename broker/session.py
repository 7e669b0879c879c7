"""A client's session with the broker, which connects again whenever the connection is lost.

Each connection is a fresh paho client driven by our own thread, so that nothing of an ended
connection (queued messages, message ids, an oversized packet resent for ever) reaches the next.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from time import monotonic
from typing import Literal

import structlog
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.callback_guard import run_guarded
from broker.client import check_packet_size, make_client, publish_properties
from broker.connection import LOOP_TIMEOUT_S, Connection, ConnectionHandlers
from broker.errors import BrokerRefused, BrokerUnreachable, NotConnected
from broker.failures import explain_failure, explain_refusal, explain_silence
from broker.receipts import PublishOutcome, Receipt, outcome_of
from broker.records import Farewell, Incoming, SessionCounters, Will
from broker.refusals import RefusalLog
from broker.servers import Servers
from broker.settings import BrokerSettings
from broker.subscriptions import Subscriptions

__all__ = ["Farewell", "Incoming", "MqttSession", "PublishOutcome", "Receipt", "SessionCounters", "Will"]

_log = structlog.get_logger("broker.session")

STABLE_AFTER_S = 10.0  # a connection that lived this long starts the next backoff from the shortest pause
MAX_RECEIVED_BYTES = 4 * 2**20  # none of our messages is larger, but audio on its way to the bridge

# Reason codes of MQTT 5.0, section 2.4.
UNSUPPORTED_PROTOCOL_VERSION = 0x84
SESSION_TAKEN_OVER = 0x8E
SIZE_HINT = (
    "; a broker ends a connection so where a message is larger than it takes: raise its limit (message_size_limit "
    "of Mosquitto), or lower OMI_PART_BYTES"
)
SIZE_HINTS = {0x82: SIZE_HINT, 0x95: SIZE_HINT}  # Mosquitto 2.0 says protocol error, others packet too large


class MqttSession:
    """One client's session with the broker: MQTT 5, or 3.1.1 where the broker supports nothing newer.

    Sessions are always clean: the broker keeps nothing for us, and we subscribe again on every connect.

    All callbacks run on the network thread and must only store: no slow disk, no waiting. While one
    runs, nothing is read or sent, keepalive included. They may call `publish`, and never
    `Receipt.wait`. A callback that raises is logged and counted, and the session goes on.

    Args:
        settings: the broker's address, our credentials and the limits.
        client_id: unique at the broker, which disconnects the first client when a second one uses its id.
        on_message: called for each message on a subscribed filter.
        will: published by the broker when this process dies or its network connection breaks.
        on_connect: called after each connect, once the broker has answered all subscriptions.
        max_packet_bytes: the broker is told (on MQTT 5) to send us nothing larger; what is larger and comes is dropped.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        client_id: str,
        on_message: Callable[[Incoming], None],
        will: Will | None = None,
        on_connect: Callable[[], None] | None = None,
        max_packet_bytes: int = MAX_RECEIVED_BYTES,
    ) -> None:
        self.client_id = client_id
        self.counters = SessionCounters()
        self.last_error: str | None = None
        self._settings = settings
        self._on_message = on_message
        self._will = will
        self._on_connect = on_connect
        self._max_received_bytes = max_packet_bytes

        # The lock guards the attributes below, and is never held while a callback of the user runs.
        self._changed = threading.Condition()
        self._subscriptions = Subscriptions()
        self._client: Client | None = None  # set while a connection is accepted by the broker
        self._announced_max_packet_bytes: int | None = None
        self._receipts: dict[int, Receipt] = {}  # message id -> receipt
        self._refusal: str | None = None

        # Used by the network thread only.
        self._protocol = (
            MQTTProtocolVersion.MQTTv311 if settings.mqtt_version == "3.1.1" else MQTTProtocolVersion.MQTTv5
        )
        self._refusals = RefusalLog(client_id)
        self._servers = Servers(settings.addresses, settings.reconnect_min_s, settings.reconnect_max_s)
        self._is_on_connect_called = False  # for this connection
        self._has_ever_connected = False
        self._end_reason = ""  # of this connection

        self._stopping = threading.Event()
        self._abort = threading.Event()
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------------------------- for the user

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and the connection has not ended since, as far as we know."""
        return self._client is not None

    @property
    def protocol(self) -> Literal["5", "3.1.1"]:
        """The MQTT version in use, or the one to try next."""
        return "5" if self._protocol is MQTTProtocolVersion.MQTTv5 else "3.1.1"

    @property
    def max_packet_bytes(self) -> int:
        """Largest packet the broker takes: what it announced, else the assumed limit of the settings."""
        return self._announced_max_packet_bytes or self._settings.assumed_max_packet_bytes

    @property
    def refused_filters(self) -> Mapping[str, str]:
        """Filters that the broker did not grant on this connection, with its reason."""
        with self._changed:
            return self._subscriptions.refused

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Ask for all topics that match, now (if connected) and on every later connect.

        A filter that the broker refuses is logged and shown in `refused_filters`.
        """
        with self._changed:
            self._subscriptions.add(topic_filter, min(qos, self._settings.mqtt_qos))
            if self._client is not None:
                self._subscriptions.request(self._client, topic_filter)

    def start(self) -> None:
        """Begin to connect, and stay connected until `stop`. Returns at once."""
        if self._thread is not None or self._stopping.is_set():
            msg = "a session is started once; make a new one"
            raise RuntimeError(msg)
        self._start_thread()

    def wait_connected(self, timeout_s: float) -> None:
        """Block until the broker has accepted us and answered all subscriptions.

        Raises:
            BrokerRefused: the broker refused us. The session goes on trying.
            BrokerUnreachable: not connected within `timeout_s`. The session goes on trying.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._refusal is not None, timeout_s)
            if self._ready:
                return
            if self._refusal is not None:
                raise BrokerRefused(self._settings.broker_url, self._refusal)
        raise BrokerUnreachable(self._settings.broker_url, self.last_error or f"no answer within {timeout_s:g} s")

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        user_properties: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Give a message to the broker; returns at once with a receipt for its answer.

        `content_type` and `user_properties` are sent on MQTT 5 only; nothing may depend on them.

        Raises:
            NotConnected: there is no connection. Nothing is ever queued for a later one.
            PayloadTooLarge: it is above the broker's limit. Later messages are not held up.
        """
        with self._changed:
            client = self._client
            if client is None:
                raise NotConnected(self._settings.broker_url, self.last_error)
            pairs = tuple((user_properties or {}).items())
            properties = publish_properties(content_type, pairs) if self.protocol == "5" else None
            check_packet_size(self.max_packet_bytes, topic, payload, properties)
            receipt = Receipt(topic, self._thread.ident if self._thread else None)
            info = client.publish(topic, payload, min(qos, self._settings.mqtt_qos), retain, properties)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                # The socket is closed and the network thread has not noticed yet. It will drop the client
                # with all that paho has queued, so this message will not be sent later.
                raise NotConnected(self._settings.broker_url, f"the connection is going down: {info.rc.name}")
            self._receipts[info.mid] = receipt
        return receipt

    def wait_acknowledged(self, max_waiting: int, timeout_s: float) -> None:
        """Block, at most `timeout_s`, while more messages wait for the broker's answer: paho queues them unbounded."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._receipts) <= max_waiting, timeout_s)

    def stop(self, farewell: Farewell | tuple[str, bytes, bool] | None = None, timeout_s: float = 5.0) -> None:
        """Publish `farewell`, disconnect cleanly (so that no will is published) and end the thread.

        Takes at most about `timeout_s` seconds; does nothing the second time.
        """
        deadline = monotonic() + timeout_s
        if farewell is not None and self.connected and not self._stopping.is_set():
            try:
                topic, payload, retain = farewell
                outcome = self.publish(topic, payload, retain=retain).wait(timeout_s)
            except NotConnected as error:
                _log.warning("farewell not sent", client_id=self.client_id, reason=error.reason)
            else:
                _log.info("farewell sent", client_id=self.client_id, outcome=outcome.value, **asdict(self.counters))
        self._stopping.set()
        with self._changed:
            if self._client is not None:
                self._client.disconnect()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(max(0.0, deadline - monotonic()))
        self._abort.set()
        thread.join(LOOP_TIMEOUT_S)

    # ------------------------------------------------------------------------------- the network thread

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._supervise, name=f"mqtt {self.client_id}", daemon=True)
        self._thread.start()

    def _supervise(self) -> None:
        """Stay connected; should anything end this thread, SystemExit from a callback included, start another."""
        try:
            self._stay_connected()
        finally:
            if not self._stopping.is_set():
                _log.error("network thread died, starting another", client_id=self.client_id)
                self._start_thread()

    def _stay_connected(self) -> None:
        while not self._stopping.is_set():
            began_s = monotonic()
            protocol = self._protocol
            try:
                self._serve_connection()
            except Exception as error:  # noqa: BLE001 - whatever it was, the remedy is another connection
                reason = explain_failure(error, self._servers.current, self._settings.broker_ca_file)
                self._fail(reason, expected=isinstance(error, OSError))
            if self._protocol is not protocol:
                continue  # try the other version at once
            if monotonic() - began_s > STABLE_AFTER_S:
                self._servers.spread_next(self._settings.reconnect_spread)
            self._stopping.wait(self._servers.turn_to_next())

    def _serve_connection(self) -> None:
        """Make one connection and serve it until it ends. Raises OSError where none can be made."""
        self._end_reason = ""
        client = make_client(self._settings, self.client_id, self._protocol, self._will)
        handlers = ConnectionHandlers(
            on_connack=self._note_connack,
            on_suback=self._note_suback,
            on_puback=self._note_puback,
            on_message=self._deliver,
            on_end=self._note_end,
        )
        connection = Connection(client, handlers)
        connection.open(self._servers.current, self._settings.keepalive_s, self._max_received_bytes)
        try:
            connection.serve(self._abort)
        except TimeoutError:
            self._try_other_protocol()
            raise
        finally:
            self._end_connection()

    def _try_other_protocol(self) -> None:
        """Switch the version if we never connected: amqtt misreads a CONNECT of MQTT 5 and waits for more bytes."""
        if self._settings.mqtt_version == "auto" and not self._has_ever_connected:
            older = MQTTProtocolVersion.MQTTv311
            self._protocol = MQTTProtocolVersion.MQTTv5 if self._protocol is older else older

    def _note_connack(self, client: Client, reason: ReasonCode, properties: Properties | None) -> None:
        """Handle the broker's answer to our CONNECT."""
        may_fall_back = self._settings.mqtt_version == "auto" and self.protocol == "5"
        if reason.value == UNSUPPORTED_PROTOCOL_VERSION and may_fall_back:
            self._protocol, self._end_reason = MQTTProtocolVersion.MQTTv311, "MQTT 3.1.1 is next"
            _log.info("broker knows no MQTT 5, using 3.1.1", client_id=self.client_id, broker=self._servers.current.url)
            return
        if reason.is_failure:
            self._end_reason = explain_refusal(reason.getName())
            self._fail(self._end_reason, expected=True)
            with self._changed:
                self._refusal = reason.getName()
                self._changed.notify_all()
            return
        if self._has_ever_connected:
            self.counters.reconnects += 1
        self._has_ever_connected = True
        self._refusals.begin_connection()
        _log.info("connected", client_id=self.client_id, broker=self._servers.current.url, protocol=self.protocol)
        with self._changed:
            self._client = client
            self._is_on_connect_called = False
            self._announced_max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
            self._refusal = None
            self.last_error = None
            self._subscriptions.request_all(client)
        self._call_on_connect_once()

    def _note_suback(self, mid: int, reasons: list[ReasonCode]) -> None:
        """Handle the broker's answer to one SUBSCRIBE."""
        with self._changed:
            topic_filter = self._subscriptions.answer(mid, reasons)
            self._changed.notify_all()
        if topic_filter is not None and reasons[0].is_failure:
            self._refusals.note_filter(topic_filter, reasons[0].getName())
        self._call_on_connect_once()

    @property
    def _ready(self) -> bool:
        return self._client is not None and self._subscriptions.is_answered

    def _call_on_connect_once(self) -> None:
        with self._changed:
            if self._is_on_connect_called or not self._ready:
                return
            self._is_on_connect_called = True
            self._changed.notify_all()
        if self._on_connect is not None:
            run_guarded(self._on_connect, "on_connect", self.client_id, self.counters)

    def _deliver(self, message: MQTTMessage) -> None:
        if len(message.payload) > self._max_received_bytes:  # only where the broker knows no MQTT 5
            self.counters.oversized_drops += 1
            _log.warning("oversized message dropped", client_id=self.client_id, size_bytes=len(message.payload))
            return
        with self._changed:
            is_wanted = self._subscriptions.match(message.topic)
        if not is_wanted:
            self.counters.unsubscribed_topic_drops += 1
            return
        incoming = Incoming(
            topic=message.topic,
            payload=bytes(message.payload),
            retain=message.retain,
            qos=message.qos,
            content_type=getattr(message.properties, "ContentType", None),
        )
        run_guarded(partial(self._on_message, incoming), message.topic, self.client_id, self.counters)

    def _note_puback(self, mid: int, reason: ReasonCode) -> None:
        with self._changed:
            receipt = self._receipts.pop(mid, None)
            self._changed.notify_all()
        if receipt is None:
            return
        outcome = outcome_of(reason)
        if outcome is PublishOutcome.REFUSED:
            self._refusals.note(receipt.topic, reason.getName())
        receipt.settle(outcome, reason.getName())

    def _note_end(self, reason: ReasonCode) -> None:
        if reason.value == SESSION_TAKEN_OVER:
            self.counters.takeovers += 1
            self._end_reason = (
                f"taken over: another client connected with our client id {self.client_id!r}; "
                "stop one of the two, or give it another id"
            )
        elif not self._end_reason:
            self._end_reason = "connection lost: " + reason.getName() + SIZE_HINTS.get(reason.value, "")
            if self._client is None:  # before the broker answered
                self._fail(explain_silence(self._end_reason, self._servers.current), expected=True)

    def _end_connection(self) -> None:
        with self._changed:
            had_connection = self._client is not None
            self._client = None
            self._subscriptions.forget_unanswered()
            lost = list(self._receipts.values())
            self._receipts.clear()
            self._changed.notify_all()
        for receipt in lost:
            receipt.settle(PublishOutcome.LOST, self._end_reason or "the connection ended before the broker answered")
        if had_connection and not self._stopping.is_set():
            self._fail(self._end_reason or "connection lost", expected=True)

    def _fail(self, reason: str, *, expected: bool) -> None:
        self.last_error = reason
        level = _log.warning if expected else _log.error
        level("not connected", client_id=self.client_id, broker=self._servers.current.url, reason=reason)
