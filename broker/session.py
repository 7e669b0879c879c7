"""A live MQTT connection that heals itself.

Each connection is a fresh paho client driven by our own thread, so that nothing of a dead
connection (queued messages, message ids, an oversized packet resent for ever) reaches the next.
"""

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Literal

import structlog
from paho.mqtt.client import Client, MQTTMessage, topic_matches_sub
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.client import check_packet_size, make_client, publish_properties, send_at_once
from broker.errors import BrokerRefused, BrokerUnreachable, NotConnected
from broker.receipts import PublishOutcome, Receipt
from broker.records import Farewell, Incoming, SessionCounters, Will
from broker.settings import BrokerSettings

__all__ = ["Farewell", "Incoming", "MqttSession", "PublishOutcome", "Receipt", "SessionCounters", "Will"]

_log = structlog.get_logger("broker.session")

LOOP_TIMEOUT_S = 1.0  # longest the network thread sleeps before it looks at the keepalive and at stop()
HANDSHAKE_TIMEOUT_S = 3.0  # between our CONNECT and the broker's answer
STABLE_AFTER_S = 10.0  # a connection that lived this long starts the next backoff from the shortest pause

# Reason codes of MQTT 5.0, section 2.4.
NO_MATCHING_SUBSCRIBERS = 0x10
UNSUPPORTED_PROTOCOL_VERSION = 0x84
SESSION_TAKEN_OVER = 0x8E


class MqttSession:
    """One client's connection to the broker: MQTT 5, or 3.1.1 where the broker knows no other.

    Sessions are always clean: the broker keeps nothing for us, and we subscribe again on every connect.

    All callbacks run on the network thread and must only store: no disk that may be slow, no waiting.
    While one runs nothing is read, sent or kept alive. They may call `publish`, and never
    `Receipt.wait`. A callback that raises is logged and counted, and the session goes on.

    Args:
        settings: where the broker is and who we are there.
        client_id: unique at the broker; a second client with the same one pushes the first out.
        on_message: called for each message on a subscribed filter.
        will: published by the broker when this process or its link dies.
        on_connect: called after each connect, once the broker has answered all subscriptions.
        on_disconnect: called with the reason when a connection that had been made is lost; not after `stop`.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        client_id: str,
        on_message: Callable[[Incoming], None],
        will: Will | None = None,
        on_connect: Callable[[], None] | None = None,
        on_disconnect: Callable[[str], None] | None = None,
    ) -> None:
        self.client_id = client_id
        self.counters = SessionCounters()
        self.last_error: str | None = None
        self._settings = settings
        self._address = settings.address
        self._on_message = on_message
        self._will = will
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect

        # Guards all below. Never held while a callback of the user runs.
        self._changed = threading.Condition()
        self._filters: dict[str, int] = {}
        self._refused_filters: dict[str, str] = {}
        self._client: Client | None = None  # set while a connection is accepted by the broker
        self._announced_max_packet_bytes: int | None = None
        self._unanswered_filters: dict[int, str] = {}  # message id -> filter
        self._receipts: dict[int, Receipt] = {}  # message id -> receipt
        self._refusal: str | None = None

        # Touched by the network thread only. paho's callbacks run under paho's locks, so they only
        # append here; the work is done after paho has returned, when no lock of its is held.
        self._events: deque[Callable[[], None]] = deque()
        self._protocol = (
            MQTTProtocolVersion.MQTTv311 if settings.mqtt_version == "3.1.1" else MQTTProtocolVersion.MQTTv5
        )
        self._answered = False  # the broker has answered our CONNECT on this connection
        self._welcomed = False  # on_connect was called for this connection
        self._ever_connected = False
        self._end_reason = ""

        self._stopping = threading.Event()
        self._abort = threading.Event()
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------------------------- the user's side

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and the connection is not known to be dead."""
        return self._client is not None

    @property
    def protocol(self) -> Literal["5", "3.1.1"]:
        """The version spoken, or to be tried next."""
        return "5" if self._protocol is MQTTProtocolVersion.MQTTv5 else "3.1.1"

    @property
    def max_packet_bytes(self) -> int:
        """Largest packet the broker takes: what it announced, else the assumed limit of the settings."""
        return self._announced_max_packet_bytes or self._settings.assumed_max_packet_bytes

    @property
    def refused_filters(self) -> Mapping[str, str]:
        """Filters the broker would not grant on this connection, with its reason."""
        with self._changed:
            return dict(self._refused_filters)

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Ask for all topics that match, now (if connected) and on every later connect.

        A filter that the broker refuses is logged and shown in `refused_filters`.
        """
        with self._changed:
            self._filters[topic_filter] = qos
            if self._client is not None:
                self._request(self._client, topic_filter, qos)

    def start(self) -> None:
        """Begin to connect, and stay connected until `stop`. Returns at once."""
        if self._thread is not None or self._stopping.is_set():
            msg = "a session is started once; make a new one"
            raise RuntimeError(msg)
        self._start_thread()

    def wait_connected(self, timeout_s: float) -> None:
        """Block until the broker has accepted us and answered all subscriptions.

        Raises:
            BrokerRefused: it said no. The session goes on trying.
            BrokerUnreachable: not connected within `timeout_s`. The session goes on trying.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._refusal is not None, timeout_s)
            if self._ready:
                return
            if self._refusal is not None:
                raise BrokerRefused(self._address.url, self._refusal)
        raise BrokerUnreachable(self._address.url, self.last_error or f"no answer within {timeout_s:g} s")

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        user_properties: Mapping[str, str] | None = None,
        expiry_s: int | None = None,
    ) -> Receipt:
        """Give a message to the broker; returns at once with a receipt for its answer.

        `content_type`, `user_properties` and `expiry_s` travel on MQTT 5 only; nothing may depend on them.

        Raises:
            NotConnected: there is no connection. Nothing is ever queued for a later one.
            PayloadTooLarge: the broker would not take it. Later messages are not held up.
        """
        with self._changed:
            client = self._client
            if client is None:
                raise NotConnected(self._address.url, self.last_error)
            told = tuple((user_properties or {}).items())
            properties = publish_properties(content_type, told, expiry_s) if self.protocol == "5" else None
            check_packet_size(self.max_packet_bytes, topic, payload, properties)
            receipt = Receipt(topic, self._thread.ident if self._thread else None)
            info = client.publish(topic, payload, qos, retain, properties)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                # The socket died and the network thread has not told us yet. The client, and with it
                # what paho may have queued, is dropped there: the message will not be sent later.
                raise NotConnected(self._address.url, f"the connection is going down: {info.rc.name}")
            self._receipts[info.mid] = receipt
        return receipt

    def stop(self, farewell: Farewell | tuple[str, bytes, bool] | None = None, timeout_s: float = 5.0) -> None:
        """Publish `farewell`, disconnect cleanly (so that no will is published) and end the thread.

        Takes at most about `timeout_s` seconds; does nothing the second time.
        """
        deadline = monotonic() + timeout_s
        if farewell is not None and self.connected and not self._stopping.is_set():
            try:
                topic, payload, retain = farewell
                receipt = self.publish(topic, payload, retain=retain)
                outcome = receipt.wait(timeout_s)
            except NotConnected as error:
                _log.warning("farewell not sent", client_id=self.client_id, reason=error.reason)
            else:
                _log.info("farewell sent", client_id=self.client_id, outcome=outcome.value)
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
        """Run the network; should anything end it, SystemExit from a callback included, begin again."""
        try:
            self._stay_connected()
        finally:
            if not self._stopping.is_set():
                _log.error("network thread died, starting another", client_id=self.client_id)
                self._start_thread()

    def _stay_connected(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began_s = monotonic()
            protocol = self._protocol
            try:
                self._serve_connection()
            except Exception as error:  # noqa: BLE001 - whatever it was, the answer is another connection
                self._fail(f"{type(error).__name__}: {error}", expected=isinstance(error, OSError))
            if self._protocol is not protocol:
                continue  # the broker knows an older version only: ask again at once
            failures = 1 if monotonic() - began_s > STABLE_AFTER_S else failures + 1
            self._stopping.wait(self._pause_s(failures))

    def _pause_s(self, failures: int) -> float:
        """Exponential pause with jitter: clients that lost the same broker must not return in step."""
        longest_s = min(self._settings.reconnect_max_s, self._settings.reconnect_min_s * 2.0 ** min(failures - 1, 20))
        return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - spreading load, not a secret

    def _serve_connection(self) -> None:
        """Make one connection and serve it until it ends. Raises OSError where none can be made."""
        self._events.clear()
        self._answered = False
        self._welcomed = False
        self._end_reason = ""
        client = self._make_client()
        # Clean start without an expiry interval: on MQTT 5 the session ends with the connection.
        options: dict[str, Any] = {"clean_start": True} if self.protocol == "5" else {}
        client.connect(self._address.host, self._address.port, self._settings.keepalive_s, **options)
        send_at_once(client)
        answer_by_s = monotonic() + HANDSHAKE_TIMEOUT_S
        try:
            alive = True
            while alive and not self._abort.is_set():
                alive = client.loop(LOOP_TIMEOUT_S) == MQTTErrorCode.MQTT_ERR_SUCCESS
                while self._events:
                    self._events.popleft()()
                if not self._answered and monotonic() > answer_by_s:
                    self._try_other_protocol()
                    raise TimeoutError(f"no answer to our CONNECT within {HANDSHAKE_TIMEOUT_S:g} s")
        finally:
            self._end_connection()

    def _try_other_protocol(self) -> None:
        """After silence on the first connect: amqtt takes parts of a CONNECT of MQTT 5 for lengths, and waits."""
        if self._settings.mqtt_version == "auto" and not self._ever_connected:
            older = MQTTProtocolVersion.MQTTv311
            self._protocol = MQTTProtocolVersion.MQTTv5 if self._protocol is older else older

    def _make_client(self) -> Client:
        client = make_client(self._settings, self.client_id, self._protocol, self._will)
        later = self._events.append
        client.on_connect = lambda _c, _u, _flags, reason, properties: later(
            partial(self._greet, client, reason, properties)
        )
        client.on_disconnect = lambda _c, _u, _flags, reason, _p: later(partial(self._note_end, reason))
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: later(partial(self._answer, mid, reasons))
        client.on_publish = lambda _c, _u, mid, reason, _p: later(partial(self._settle, mid, reason))
        client.on_message = lambda _c, _u, message: later(partial(self._deliver, message))
        return client

    def _greet(self, client: Client, reason: ReasonCode, properties: Properties | None) -> None:
        """Handle the broker's answer to our CONNECT."""
        self._answered = True
        may_fall_back = self._settings.mqtt_version == "auto" and self.protocol == "5"
        if reason.value == UNSUPPORTED_PROTOCOL_VERSION and may_fall_back:
            self._protocol = MQTTProtocolVersion.MQTTv311
            _log.info("broker knows no MQTT 5, using 3.1.1", client_id=self.client_id, broker=self._address.url)
            return
        if reason.is_failure:
            self._fail(f"refused: {reason.getName()}", expected=True)
            with self._changed:
                self._refusal = reason.getName()
                self._changed.notify_all()
            return
        if self._ever_connected:
            self.counters.reconnects += 1
        self._ever_connected = True
        _log.info("connected", client_id=self.client_id, broker=self._address.url, protocol=self.protocol)
        with self._changed:
            self._client = client
            self._announced_max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
            self._refusal = None
            self._refused_filters.clear()
            self.last_error = None
            for topic_filter, qos in self._filters.items():
                self._request(client, topic_filter, qos)
        self._welcome_once()

    def _request(self, client: Client, topic_filter: str, qos: int) -> None:
        result, mid = client.subscribe(topic_filter, qos)
        if result == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
            self._unanswered_filters[mid] = topic_filter

    def _answer(self, mid: int, reasons: list[ReasonCode]) -> None:
        """Handle the broker's answer to one SUBSCRIBE (we send one filter in each)."""
        with self._changed:
            topic_filter = self._unanswered_filters.pop(mid, None)
            if topic_filter is None:
                return
            if reasons[0].is_failure:
                self._refused_filters[topic_filter] = reasons[0].getName()
                _log.error(
                    "subscription refused: check the ACL of our user at the broker",
                    client_id=self.client_id,
                    topic_filter=topic_filter,
                    reason=reasons[0].getName(),
                )
            self._changed.notify_all()
        self._welcome_once()

    @property
    def _ready(self) -> bool:
        return self._client is not None and not self._unanswered_filters

    def _welcome_once(self) -> None:
        with self._changed:
            if self._welcomed or not self._ready:
                return
            self._welcomed = True
            self._changed.notify_all()
        if self._on_connect is not None:
            self._guard("on_connect", self._on_connect)

    def _deliver(self, message: MQTTMessage) -> None:
        with self._changed:
            wanted = any(topic_matches_sub(topic_filter, message.topic) for topic_filter in self._filters)
        if not wanted:
            self.counters.unsubscribed_topic_drops += 1
            return
        incoming = Incoming(
            topic=message.topic,
            payload=bytes(message.payload),
            retain=message.retain,
            qos=message.qos,
            content_type=getattr(message.properties, "ContentType", None),
        )
        self._guard(message.topic, partial(self._on_message, incoming))

    def _guard(self, where: str, callback: Callable[[], None]) -> None:
        """Run a callback of the user. Its error ends nothing; its text may quote a payload and is not logged."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - any error of a handler is survived and counted
            self.counters.handler_errors += 1
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            at = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else "?"
            _log.error("callback raised", client_id=self.client_id, where=where, error=type(error).__name__, at=at)

    def _settle(self, mid: int, reason: ReasonCode) -> None:
        with self._changed:
            receipt = self._receipts.pop(mid, None)
        if receipt is None:
            return
        if reason.value == NO_MATCHING_SUBSCRIBERS:
            outcome = PublishOutcome.NO_SUBSCRIBERS
        else:
            outcome = PublishOutcome.REFUSED if reason.is_failure else PublishOutcome.ACKNOWLEDGED
        receipt.settle(outcome, reason.getName())

    def _note_end(self, reason: ReasonCode) -> None:
        if reason.value == SESSION_TAKEN_OVER:
            self.counters.takeovers += 1
            self._end_reason = (
                f"taken over: another client connected with our client id {self.client_id!r}; "
                "stop one of the two, or give it another id"
            )
        elif not self._end_reason:
            self._end_reason = f"connection lost: {reason.getName()}"

    def _end_connection(self) -> None:
        with self._changed:
            had_connection = self._client is not None
            self._client = None
            self._unanswered_filters.clear()
            lost = list(self._receipts.values())
            self._receipts.clear()
            self._changed.notify_all()
        for receipt in lost:
            receipt.settle(PublishOutcome.LOST, self._end_reason or "the connection ended before the broker answered")
        if self._stopping.is_set() or not had_connection:
            return
        reason = self._end_reason or "connection lost"
        self._fail(reason, expected=True)
        if self._on_disconnect is not None:
            self._guard("on_disconnect", partial(self._on_disconnect, reason))

    def _fail(self, reason: str, *, expected: bool) -> None:
        self.last_error = reason
        level = _log.warning if expected else _log.error
        level("not connected", client_id=self.client_id, broker=self._address.url, reason=reason)
