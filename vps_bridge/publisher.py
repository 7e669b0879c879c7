"""Sending messages. A send that fails is no loss: its owner offers it again on a timer."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from broker.errors import BrokerError
from broker.session import MqttSession
from schemas.codec import encode
from schemas.errors import SchemaError
from schemas.record import Message

_LOG = structlog.get_logger(__name__)
_CONTENT_TYPES = {"json": "application/json", "msgpack": "application/msgpack"}


class Publisher:
    """Encodes messages and hands them to the session; says whether the session took them."""

    def __init__(self, session: MqttSession) -> None:
        """Send through this session."""
        self._session = session

    def send(self, topic: str, message: Message, *, retain: bool = False) -> bool:
        """Send one message; False (and a log line) where it could not even be handed over."""
        try:
            payload = encode(message)
            self._session.publish(
                topic,
                payload,
                retain=retain,
                content_type=_CONTENT_TYPES[message.ENCODING],
                user_properties={"schema": message.SCHEMA},
            )
        except (BrokerError, SchemaError) as error:
            _LOG.warning("not_sent", topic=topic, schema=message.SCHEMA, error=str(error))
            return False
        return True


@dataclass
class _Pause:
    due_s: float
    length_s: float


class OfferTimer:
    """When a message may be offered again: after `min_s`, doubling to `max_s`. Monotonic seconds."""

    def __init__(self, min_s: float, max_s: float) -> None:
        """Start with nothing offered."""
        self._min_s, self._max_s = min_s, max_s
        self._pauses: dict[str, _Pause] = {}

    def take(self, key: str, now_s: float) -> bool:
        """Whether `key` is due; if so, the next time is set."""
        pause = self._pauses.get(key)
        if pause is not None and now_s < pause.due_s:
            return False
        length_s = self._min_s if pause is None else min(self._max_s, 2 * pause.length_s)
        self._pauses[key] = _Pause(now_s + length_s, length_s)
        return True

    def forget(self, keys: set[str]) -> None:
        """Drop every key that is not in `keys`."""
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in keys}

    def reset(self) -> None:
        """Make everything due at once: a new connection, or a new partner on the other side."""
        self._pauses.clear()
