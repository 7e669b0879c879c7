"""Events about people as they arrive: decoded, taken once, and answered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import structlog

from schemas.codec import decode, read_envelope
from schemas.conversation import Verdict
from schemas.errors import SchemaError
from schemas.event_fields import check_fields
from schemas.failure import FailureCode
from schemas.people import PersonAccepted, PersonEvent
from schemas.topics import Topics
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.errors import Refusal, event_id_conflict
from vps_bridge.intake.people import People
from vps_bridge.intake.people_view import PeopleReader
from vps_bridge.ledger import Ledger
from vps_bridge.publisher import Publisher

_LOG = structlog.get_logger(__name__)


class PersonEvents(PeopleReader):
    """Takes what backends say of people, and tells what is known. Runs on the bridge's own thread only."""

    def __init__(
        self,
        topics: Topics,
        ledger: Ledger,
        store: ConversationStore,
        publisher: Publisher,
        note_change: Callable[[str], None],
    ) -> None:
        """Use this ledger and store; `note_change` is called with a conversation whose labels may be out of date."""
        super().__init__(ledger)
        self._topics, self._publisher, self._note_change = topics, publisher, note_change
        self._people = People(ledger, store)

    def take_event(self, person_id: str, data: bytes) -> PersonAccepted:
        """Take an event with all that follows from it, and return its receipt, which is sent too."""
        receipt = self._take(person_id, data)
        self._publisher.send(self._topics.person_accepted(person_id), receipt)
        return receipt

    def _take(self, person_id: str, data: bytes) -> PersonAccepted:
        try:
            event = check_fields(decode(PersonEvent, data))
        except SchemaError as error:
            envelope, sha256 = read_envelope(PersonEvent, data), hashlib.sha256(data).hexdigest()
            refusal = Refusal(FailureCode(error.code), str(error))
            return _refused(person_id, envelope.event_id, refusal, sha256)
        answer = self._ledger.people.find_answer(person_id, event)
        if answer is None:
            try:
                self._people.accept(person_id, event)
            except Refusal as refusal:
                return _refused(person_id, event.event_id, refusal)
            answer = Verdict.ACCEPTED, None
            if event.conversation_id is not None:
                self._note_change(event.conversation_id)
            _LOG.info("person_event", what=event.type)
        verdict, reason = answer
        if reason == FailureCode.EVENT_ID_CONFLICT:
            return _refused(person_id, event.event_id, event_id_conflict(event.event_id))
        return PersonAccepted(person_id=person_id, event_id=event.event_id, verdict=verdict, reason=reason)


def _refused(person_id: str, event_id: str | None, refusal: Refusal, sha256: str | None = None) -> PersonAccepted:
    _LOG.warning("person_event_refused", code=refusal.code, error=refusal.message)
    return PersonAccepted(
        person_id=person_id,
        event_id=event_id,
        sha256=sha256,
        verdict=Verdict.REFUSED,
        reason=refusal.code,
        message=refusal.message,
    )
