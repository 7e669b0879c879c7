"""What a session receives, leaves behind and counts."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Incoming:
    """A message that arrived on one of our filters."""

    topic: str
    payload: bytes
    retain: bool
    qos: int
    content_type: str | None


@dataclass(frozen=True)
class Will:
    """What the broker publishes for us when we vanish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class Farewell(NamedTuple):
    """What we publish ourselves before we leave."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass
class SessionCounters:
    """What happened since the session was made."""

    handler_errors: int = 0
    """Callbacks of the user that raised."""
    unsubscribed_topic_drops: int = 0
    """Messages on topics we never asked for (amqtt leaks retained ones)."""
    reconnects: int = 0
    """Connections after the first."""
    takeovers: int = 0
    """Times another client with our client id pushed us out (MQTT 5 only says so)."""
