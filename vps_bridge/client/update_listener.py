"""Hears the updates of all conversations, which were deleted, and which bridges run; confirms updates dealt with."""

from __future__ import annotations

import queue
import secrets
from dataclasses import dataclass, field

import structlog

from broker.errors import NotConnected
from broker.session import Incoming
from broker.settings import BrokerSettings
from schemas.bridge import BridgeHeartbeat
from schemas.codec import decode, encode
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated, EventType
from schemas.errors import SchemaError
from schemas.failure import FailureCode
from schemas.topics import TopicKind, Topics
from vps_bridge.client.connected import ConnectedClient

_LOG = structlog.get_logger(__name__)
MAX_WAITING = 1_000  # further ones are let go: the bridge offers an update again until it is confirmed


@dataclass
class Heard:
    """What came since the last time."""

    updates: list[ConversationUpdated] = field(default_factory=list)
    """In order."""
    deleted: list[str] = field(default_factory=list)
    """Conversations of which a receipt said that they are deleted; the bridge says so of whatever is asked of them."""
    bridges: set[str] = field(default_factory=set)
    """Instances of bridges whose heartbeat came."""


class UpdateListener(ConnectedClient):
    """A connection that hears every `updated`, receipt and bridge. Used by one thread, as a context manager."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Prepare a connection."""
        self._topics = Topics(settings.topic_root)
        self._messages: queue.Queue[Incoming] = queue.Queue(MAX_WAITING)
        filters = {self._topics.filter(kind): 1 for kind in (TopicKind.UPDATED, TopicKind.ACCEPTED)}
        filters[self._topics.filter(TopicKind.BRIDGE_HEARTBEAT)] = 0
        super().__init__(settings, filters, self._keep)

    def take(self) -> Heard:
        """Return what came."""
        heard = Heard()
        while not self._messages.empty():
            message = self._messages.get()
            try:
                self._read(message, heard)
            except SchemaError as error:
                _LOG.warning("unreadable", topic=message.topic, error=str(error))
        return heard

    def _read(self, message: Incoming, heard: Heard) -> None:
        kind = self._topics.parse(message.topic).kind
        if kind is TopicKind.UPDATED:
            heard.updates.append(decode(ConversationUpdated, message.payload))
            return
        if kind is TopicKind.BRIDGE_HEARTBEAT:
            heard.bridges.add(decode(BridgeHeartbeat, message.payload).instance_id)
            return
        receipt = decode(Accepted, message.payload)
        if receipt.reason == FailureCode.CONVERSATION_DELETED:
            heard.deleted.append(receipt.conversation_id)

    def confirm(self, update: ConversationUpdated) -> None:
        """Tell the bridge that an update was dealt with; where that is lost, it offers it again."""
        self._tell(update.conversation_id, EventType.APPLIED, updated_version=update.updated_version)

    def ask_again(self, conversation_id: str) -> None:
        """Ask for a conversation's latest update, also if it was confirmed before."""
        self._tell(conversation_id, EventType.RESYNC)

    def _keep(self, message: Incoming) -> None:
        if not self._messages.full():
            self._messages.put(message)

    def _tell(self, conversation_id: str, kind: EventType, *, updated_version: int | None = None) -> None:
        event = ConversationEvent(event_id=f"e-{secrets.token_hex(12)}", type=kind, updated_version=updated_version)
        try:
            self._session.publish(self._topics.events(conversation_id), encode(event))
        except NotConnected as error:
            _LOG.warning("connection_lost", conversation=conversation_id, reason=str(error))
