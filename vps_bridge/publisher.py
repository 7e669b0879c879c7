"""Sending messages. A message that could not be sent is not lost: its sender sends it again after a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import structlog

from broker.errors import BrokerError, PayloadTooLarge
from broker.session import MqttSession
from schemas.codec import encode
from schemas.errors import MessageTooLarge, SchemaError
from schemas.record import Message
from vps_bridge.errors import StoreUnavailable

_LOG = structlog.get_logger(__name__)
_CONTENT_TYPES = {"json": "application/json", "msgpack": "application/msgpack"}


@dataclass(frozen=True)
class Encoded:
    """A message that was encoded before: its type and its bytes."""

    kind: type[Message]
    data: bytes


class Publisher:
    """Encodes messages and gives them to the session."""

    def __init__(self, session: MqttSession) -> None:
        """Send through this session."""
        self._session = session

    def send(self, topic: str, message: Message, *, retain: bool = False) -> bool:
        """Send one message; return False (and log it) where the session did not take it."""
        return self.send_largest(topic, (message,), retain=retain)

    def send_ahead(self, topic: str, message: Message, *, retain: bool = False) -> bool:
        """Send a message that promises nothing, at once: before those that wait for a sync."""
        return Publisher.send_largest(self, topic, (message,), retain=retain)

    def send_largest(self, topic: str, forms: Iterable[Message | Encoded], *, retain: bool = False) -> bool:
        """Send the first of several forms of a message, largest first, that is within the limits of schema and broker.

        Returns False (and logs it) where the session took none.
        """
        problem = ""
        try:
            for form in forms:  # the iterator makes each form, which may fail too
                try:
                    self._hand_over(topic, form, retain=retain)
                except (MessageTooLarge, PayloadTooLarge) as error:
                    problem = str(error)
                else:
                    return True
        except (BrokerError, SchemaError) as error:
            problem = str(error)
        _LOG.warning("not_sent", topic=topic, error=problem)
        return False

    def _hand_over(self, topic: str, form: Message | Encoded, *, retain: bool) -> None:
        message = form if isinstance(form, Encoded) else Encoded(type(form), encode(form))
        self._session.publish(
            topic,
            message.data,
            retain=retain,
            content_type=_CONTENT_TYPES[message.kind.ENCODING],
            user_properties={"schema": message.kind.SCHEMA},
        )


class HeldPublisher(Publisher):
    """Holds messages until `flush`, which first syncs to disk what they promise: one fsync for all of them.

    Only what is sent with `send_ahead`, which promises nothing, is not held.
    """

    def __init__(self, session: MqttSession, sync: Callable[[], None]) -> None:
        """Call `sync` before anything that was held is sent."""
        super().__init__(session)
        self._sync = sync
        self._held: list[tuple[Callable[[], object], Callable[[Exception], None]]] = []

    @property
    def held(self) -> int:
        """How many messages and results wait for `flush`."""
        return len(self._held)

    def hold(self, deliver: Callable[[], object], fail: Callable[[Exception], None]) -> None:
        """Hold anything else that promises something; `fail` is called instead of `deliver` where the disk fails."""
        self._held.append((deliver, fail))

    def send_largest(self, topic: str, forms: Iterable[Message | Encoded], *, retain: bool = False) -> bool:
        """Hold a message; `flush` gives it to the session, and logs it where the session does not take it."""
        send = partial(super().send_largest, topic, forms, retain=retain)
        self.hold(send, lambda error: _LOG.warning("not_sent", topic=topic, error=str(error)))
        return True

    def flush(self) -> None:
        """Sync, then send. What was held is dropped where that fails: its senders send it again.

        Raises OSError where the disk fails, `LedgerUnavailable` where the server that keeps the ledger does.
        """
        held, self._held = self._held, []
        try:
            if held:
                self._sync()
        except (OSError, StoreUnavailable) as error:
            for _, fail in held:
                fail(error)
            raise
        for deliver, _ in held:
            deliver()
