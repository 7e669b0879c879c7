"""Messages that the broker keeps (retained) and sends again with every start: none is new input, all can be cleared."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from broker.retained import say_clearing
from broker.session import Incoming
from broker.settings import BrokerSettings
from schemas.errors import MessageMalformed, SchemaError
from schemas.topics import TopicKind

_LOG = structlog.get_logger(__name__)
INPUT_KINDS = (TopicKind.AUDIO, TopicKind.EVENTS, TopicKind.PERSON_EVENTS)
MAX_KEPT = 10_000


class KeptMessages:
    """Which topics the broker keeps a message on, as far as this connection was sent them."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Know of none yet."""
        self._settings = settings
        self._topics: set[str] = set()

    def is_old(self, message: Incoming, kind: TopicKind) -> bool:
        """Whether a message is no news: input that the broker kept, or the empty message by which that is cleared."""
        if message.retain:
            if len(self._topics) < MAX_KEPT:
                self._topics.add(message.topic)
            if kind in INPUT_KINDS:
                clearing = f"to clear it: {say_clearing(self._settings, message.topic)}"
                remedy = f"publish it without the retain flag; {clearing}"
                _LOG.warning("retained_input_ignored", topic=message.topic, remedy=remedy)
            return kind in INPUT_KINDS
        if message.payload or message.topic not in self._topics:
            return False
        self._topics.discard(message.topic)
        _LOG.info("retained_message_cleared", topic=message.topic)
        return True

    def use(self, message: Incoming, work: Callable[[], object]) -> None:
        """Do what a message calls for. Of a kept one that cannot be read the error says how to clear it."""
        try:
            work()
        except SchemaError as error:
            if not message.retain:
                raise
            clearing = say_clearing(self._settings, message.topic)
            msg = f"{error}; the broker keeps it and sends it with every start, to clear it: {clearing}"
            raise MessageMalformed(msg) from error
