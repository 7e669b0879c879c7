"""Sending messages. A send that fails is no loss: its owner offers it again on a timer."""

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

_LOG = structlog.get_logger(__name__)
_CONTENT_TYPES = {"json": "application/json", "msgpack": "application/msgpack"}


@dataclass(frozen=True)
class Encoded:
    """A message as it was kept: its bytes, and what they are."""

    kind: type[Message]
    data: bytes


class Publisher:
    """Encodes messages and hands them to the session; says whether the session took them."""

    def __init__(self, session: MqttSession) -> None:
        """Send through this session."""
        self._session = session

    def send(self, topic: str, message: Message, *, retain: bool = False) -> bool:
        """Send one message; False (and a log line) where it could not even be handed over."""
        return self.send_largest(topic, (message,), retain=retain)

    def send_ahead(self, topic: str, message: Message) -> bool:
        """Send a message that promises nothing: it need not wait for what does."""
        return Publisher.send_largest(self, topic, (message,))

    def send_largest(self, topic: str, forms: Iterable[Message | Encoded], *, retain: bool = False) -> bool:
        """Send the first of several forms of a message, largest first, that neither schema nor broker finds too large.

        False (and a log line) where none could be handed over.
        """
        problem = ""
        try:
            for form in forms:  # making one may fail as well
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
    """Keeps messages until `flush`, which first puts on disk what they promise: one fsync for all of them.

    Only what is sent with `send_ahead`, which promises nothing, is not kept.
    """

    def __init__(self, session: MqttSession, sync: Callable[[], None]) -> None:
        """Call `sync` before anything that was kept leaves."""
        super().__init__(session)
        self._sync = sync
        self._held: list[tuple[Callable[[], object], Callable[[Exception], None]]] = []

    @property
    def held(self) -> int:
        """How much waits for `flush`."""
        return len(self._held)

    def hold(self, tell: Callable[[], object], fail: Callable[[Exception], None]) -> None:
        """Keep any other word that promises something; `fail` is called instead of `tell` where the disk fails."""
        self._held.append((tell, fail))

    def send_largest(self, topic: str, forms: Iterable[Message | Encoded], *, retain: bool = False) -> bool:
        """Keep a message; whether the session takes it shows at `flush`."""
        send = partial(super().send_largest, topic, forms, retain=retain)
        self.hold(send, lambda error: _LOG.warning("not_sent", topic=topic, error=str(error)))
        return True

    def flush(self) -> None:
        """Sync, then tell. Raises OSError where the disk fails: what was kept is dropped, its owners offer it again."""
        held, self._held = self._held, []
        try:
            if held:
                self._sync()
        except OSError as error:
            for _, fail in held:
                fail(error)
            raise
        for tell, _ in held:
            tell()
