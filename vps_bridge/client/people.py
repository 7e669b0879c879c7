"""A client of the running bridge for what a backend says of people, with receipts."""

from __future__ import annotations

import queue
import secrets
import time
from datetime import date
from typing import Any

import structlog

from broker.errors import NotConnected
from broker.session import Incoming
from broker.settings import BrokerSettings
from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.people import PersonAccepted, PersonEvent, PersonEventType
from schemas.topics import TopicKind, Topics
from vps_bridge.client.connected import RETRY_S, ConnectedClient, is_taken
from vps_bridge.client.errors import BridgeSilent
from vps_bridge.durations import seconds

_LOG = structlog.get_logger(__name__)


class PeopleClient(ConnectedClient):
    """Says of one owner's people what their backend would. Used by one thread, as a context manager.

    Methods raise `BridgeSilent` when no receipt comes in `timeout_s`, `BridgeRefused` when the bridge refuses,
    `PublishForbidden` when the broker does not let this user, and `BrokerError` when the broker cannot be reached.
    """

    def __init__(self, settings: BrokerSettings, owner: str | None = None, *, timeout_s: float = 60.0) -> None:
        """Prepare a connection."""
        self._owner, self._timeout_s, self._topics = owner, timeout_s, Topics(settings.topic_root)
        self._messages: queue.Queue[Incoming] = queue.Queue()
        super().__init__(settings, {self._topics.filter(TopicKind.PERSON_ACCEPTED): 1}, self._messages.put)

    def name(self, person_id: str, name: str) -> None:
        """Say what a person is called."""
        self._tell(person_id, PersonEventType.NAMED, name=name)

    def consent(self, person_id: str, day: date) -> None:
        """Say when a person agreed to be recognised."""
        self._tell(person_id, PersonEventType.CONSENTED, consent_date=day)

    def set_owner(self, person_id: str, *, is_owner: bool = True) -> None:
        """Say whether a person is the owner: "me"."""
        self._tell(person_id, PersonEventType.OWNER, is_owner=is_owner)

    def confirm(self, person_id: str, conversation_id: str, speaker_id: int, *, anyway: bool = False) -> None:
        """Say that a voice of a conversation is this person; it becomes a voiceprint."""
        about = {"conversation_id": conversation_id, "speaker_id": speaker_id, "anyway": anyway}
        self._tell(person_id, PersonEventType.CONFIRMED, **about)

    def forget(self, person_id: str) -> None:
        """Erase a person everywhere."""
        self._tell(person_id, PersonEventType.FORGOTTEN)

    def _tell(self, person_id: str, kind: PersonEventType, **fields: Any) -> None:  # noqa: ANN401 - fields of PersonEvent
        event = PersonEvent(event_id=f"e-{secrets.token_hex(12)}", type=kind, owner=self._owner, **fields)
        deadline_s = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline_s:
            try:
                self._wait_sent(self._session.publish(self._topics.person_events(person_id), encode(event)))
            except NotConnected as error:
                _LOG.warning("connection_lost", reason=str(error))
            receipt = self._wait_receipt(event.event_id, min(deadline_s, time.monotonic() + RETRY_S))
            if receipt is None:
                continue
            if is_taken(receipt, "see `omi-bridge people show`"):
                return
            time.sleep(max(0.0, min(RETRY_S, deadline_s - time.monotonic())))  # it is sent again, but not at once
        msg = f"no receipt within {seconds(self._timeout_s)}: is `omi-bridge run` alive, and may this user publish?"
        raise BridgeSilent(msg)

    def _wait_receipt(self, event_id: str, deadline_s: float) -> PersonAccepted | None:
        while time.monotonic() < deadline_s:
            try:
                message = self._messages.get(timeout=max(0.0, deadline_s - time.monotonic()))
                receipt = decode(PersonAccepted, message.payload)
            except queue.Empty:
                return None
            except SchemaError as error:
                _LOG.warning("unreadable", topic=message.topic, error=str(error))
                continue
            if receipt.event_id == event_id:
                return receipt
        return None
