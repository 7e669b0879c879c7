"""What is said of people, taken in: names, confirmed voices, and forgetting. Safe beside a running bridge."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from schemas.codec import decode, encode
from schemas.conversation import Verdict
from schemas.corrections import Correction, CorrectionKind
from schemas.failure import FailureCode
from schemas.people import PersonEvent, PersonEventType
from schemas.text import is_blank
from schemas.turns import SpeakerTurns
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.errors import Refusal
from vps_bridge.intake.corrections import Corrections
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.people import NOBODY

_ONE_DAY = timedelta(days=1)  # east of us it is tomorrow already


def check_consent(agreed: date | None) -> None:
    """Raise `Refusal` where the day on which a person is said to have agreed is still to come."""
    if agreed is not None and agreed > datetime.now(UTC).date() + _ONE_DAY:
        msg = f"consent_date {agreed} is still to come: send the day on which the person agreed"
        raise Refusal(FailureCode.PERSON_REFUSED, msg)


def check_enrolment(conversation_id: str, ledger: Ledger, store: ConversationStore) -> None:
    """Raise `Refusal` where a conversation that people want to keep is said to be an enrolment: all of it would go."""
    record, stored = ledger.conversations.get(conversation_id), store.read(conversation_id)
    if record is not None and record.enrols is not None:
        return
    if (stored is not None and stored.segments) or (record is not None and record.final_at is not None):
        msg = (
            "enrols: this conversation has a transcript or final labels, and all of an enrolment is thrown away: send "
            "the recording under an id of its own, or say who the voice is (`confirmed`)"
        )
        raise Refusal(FailureCode.PERSON_REFUSED, msg)


class People:
    """People of all owners; nothing of one owner's ever reaches another's."""

    def __init__(self, ledger: Ledger, store: ConversationStore) -> None:
        """Write into this ledger and this store."""
        self._ledger, self._store = ledger, store
        self._corrections = Corrections(ledger, store)

    def accept(self, person_id: str, event: PersonEvent) -> None:
        """Do what an event says, and keep that it was accepted.

        Raises:
            Refusal: it names what is not there, or what is another owner's; nothing was changed.
        """
        if event.name is not None and is_blank(event.name):
            raise Refusal(
                FailureCode.PERSON_REFUSED, "the name has no character that can be seen: send what people read"
            )
        check_consent(event.consent_date)
        if event.type is PersonEventType.CONFIRMED:
            self._confirm(person_id, event)
        elif event.type is PersonEventType.FORGOTTEN:
            self.forget(event.owner or NOBODY, person_id)
        self._ledger.people.note(person_id, event, Verdict.ACCEPTED)

    def _confirm(self, person_id: str, event: PersonEvent) -> None:
        """Take it as the correction that it is: in the conversation's history, and undone like any other."""
        name = event.conversation_id or ""
        conversation = self._ledger.conversations.get(name)
        if conversation is None or (conversation.owner or NOBODY) != (event.owner or NOBODY):
            msg = f"this owner has no conversation {name}: name the owner that its `started` event named"
            raise Refusal(FailureCode.PERSON_REFUSED, msg)
        said = Correction(
            kind=CorrectionKind.VOICE_IS, speaker_id=event.speaker_id, person_id=person_id, anyway=event.anyway
        )
        self._corrections.correct(name, event.event_id, [said], by=event.by)

    def forget(self, owner: str, person_id: str) -> None:
        """Erase a person: name, voiceprints, decisions, and how the voice sounds in conversations that name it.

        The ids of its events stay, so that none that comes late brings it back. Done again it does no harm.
        """
        for name in self._ledger.people.enrolling(owner, person_id):
            self._ledger.conversations.mark_deleted(name)  # first: it would bring the person back
        # The voices before the person: whoever is interrupted between finds them by the person's id once more.
        done = self._forget_sounds(owner, person_id, done=set())
        self._ledger.people.forget(owner, person_id)
        self._forget_sounds(owner, person_id, done=done)  # in which a running bridge recognised the person meanwhile
        self._ledger.sync()
        self._ledger.forget_deleted_pages()

    def _forget_sounds(self, owner: str, person_id: str, *, done: set[str]) -> set[str]:
        """Forget how the person sounds in the owner's conversations but those that are done; return which were."""
        naming = self._ledger.people.naming(owner, person_id).keys() - done
        for name in naming:
            conversation = self._ledger.conversations.get(name)
            book = VoiceBook.from_json(conversation.voices) if conversation and conversation.voices else VoiceBook()
            numbers = {
                voice.speaker_id for voice in book.voices if person_id in (voice.person_id, voice.matched_person)
            }
            if numbers:
                self._forget_voices(name, book, frozenset(numbers))
        return done | naming

    def _forget_voices(self, name: str, book: VoiceBook, numbers: frozenset[int]) -> None:
        # Imported here: every command imports this file, and only this needs numpy.
        from vps_bridge.labelling.forget_voices import forget_numbers  # noqa: PLC0415

        results = [decode(SpeakerTurns, found.payload) for found in self._ledger.jobs.results(name)]
        payloads = {result.job_id: encode(result) for result in forget_numbers(results, book, numbers)}
        self._ledger.jobs.replace_results(payloads)
