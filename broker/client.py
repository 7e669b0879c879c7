"""Making paho clients and the properties of their packets."""

import socket
import ssl
from functools import lru_cache
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.errors import PayloadTooLarge
from broker.records import Will
from broker.settings import BrokerSettings

MAX_INFLIGHT = 20  # unacknowledged QoS 1 messages at once, Mosquitto's own default


def make_client(settings: BrokerSettings, client_id: str, protocol: MQTTProtocolVersion, will: Will | None) -> Client:
    """Make a client for one connection with a clean session; the caller adds the callbacks.

    Raises:
        OSError: the CA file cannot be read (`ssl.SSLError` included).
    """
    options: dict[str, Any] = {} if protocol is MQTTProtocolVersion.MQTTv5 else {"clean_session": True}
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False, **options
    )
    # With this set, publish() only queues and wakes the network thread. Without it paho writes to the
    # socket from the caller's thread as well, and two writers can mix their packets.
    client.on_socket_register_write = lambda *_: None
    client.max_inflight_messages_set(MAX_INFLIGHT)
    if settings.broker_username is not None:
        password = settings.broker_password
        client.username_pw_set(settings.broker_username, password.get_secret_value() if password is not None else None)
    if settings.uses_tls:
        ca_file = settings.broker_ca_file
        client.tls_set_context(ssl.create_default_context(cafile=str(ca_file) if ca_file else None))
    if will is not None:
        client.will_set(will.topic, will.payload, min(will.qos, settings.mqtt_qos), will.retain)
    return client


def connect_properties(max_packet_bytes: int) -> Properties:
    """Build the properties of a CONNECT (MQTT 5 only): a larger packet the broker drops instead of sending it to us."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho leaves it so
    properties.MaximumPacketSize = max_packet_bytes
    return properties


def send_at_once(client: Client) -> None:
    """Turn off Nagle's algorithm: with it a small message waits for the last one's acknowledgement, 40 ms on Linux."""
    connection = client.socket()
    if isinstance(connection, socket.socket):  # paho could also hold a websocket
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class PackedProperties(Properties):
    """The properties of a PUBLISH, turned into bytes once: paho asks for them with every message, and so do we."""

    def __init__(self, content_type: str | None, user_properties: tuple[tuple[str, str], ...]) -> None:
        """Pack these; what is changed afterwards is not sent."""
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho leaves it so
        if content_type is not None:
            self.ContentType = content_type
        if user_properties:
            self.UserProperty = list(user_properties)
        packed = super().pack()  # type: ignore[no-untyped-call] # paho leaves it so
        object.__setattr__(self, "_packed", packed)  # paho's own lets names of properties through only

    def pack(self) -> bytes:
        """Return the bytes."""
        packed: bytes = object.__getattribute__(self, "_packed")
        return packed


@lru_cache(maxsize=64)
def publish_properties(content_type: str | None, user_properties: tuple[tuple[str, str], ...]) -> PackedProperties:
    """Return the properties of a PUBLISH (MQTT 5 only): most messages have the same as another."""
    return PackedProperties(content_type, user_properties)


def check_packet_size(max_packet_bytes: int, topic: str, payload: bytes, properties: PackedProperties | None) -> None:
    """Refuse a message whose packet would be larger than `max_packet_bytes`.

    Call it before paho gets the message: paho would resend an oversized packet for ever after each disconnect.

    Raises:
        PayloadTooLarge: with the largest payload that would have fitted.
    """
    packed = properties.pack() if properties else b""
    # PUBLISH (MQTT 5.0, 3.3): type 1, length up to 4, topic length 2, topic, message id 2, properties
    overhead_bytes = 1 + 4 + 2 + len(topic.encode()) + 2 + len(packed)
    limit_bytes = max_packet_bytes - overhead_bytes
    if len(payload) > limit_bytes:
        raise PayloadTooLarge(limit_bytes=limit_bytes, size_bytes=len(payload))
