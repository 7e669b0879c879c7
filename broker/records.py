"""The records of a session: messages it receives, its will and farewell, and what it counts."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Incoming:
    """A message that arrived on a topic we subscribed to."""

    topic: str
    payload: bytes
    retain: bool
    qos: int
    content_type: str | None


@dataclass(frozen=True)
class Will:
    """What the broker publishes for us when our connection breaks."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class Farewell(NamedTuple):
    """What we publish ourselves before we disconnect."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass
class SessionCounters:
    """Counts of events since the session was made."""

    handler_errors: int = 0
    """Callbacks of the user that raised."""
    unsubscribed_topic_drops: int = 0
    """Messages on topics we did not subscribe to (amqtt sends us retained ones by mistake)."""
    oversized_drops: int = 0
    """Messages above our largest size, dropped at once (a broker of MQTT 5 does not send them)."""
    reconnects: int = 0
    """Connections after the first."""
    takeovers: int = 0
    """Times the broker disconnected us because another client used our client id (reported by MQTT 5 only)."""
