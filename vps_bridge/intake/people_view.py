"""What is known of people, as it is told: lists, one person, and everything of one person for taking along."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from schemas.codec import decode
from schemas.record import Record
from schemas.turns import SpeakerTurns
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.people import PersonRecord, PrintRecord


class PrintView(Record):
    """A voiceprint, without the vector."""

    source: str
    """`conversation`: a person confirmed a voice there; `enrolment`: a conversation that is thrown away."""
    conversation_id: str
    embedding_space: str
    clean_s: float


class PersonView(Record):
    """A person of an owner."""

    person_id: str
    name: str | None
    is_owner: bool
    consent_date: str | None
    created_at_s: float
    """Unix time."""
    revision: int = 0
    """Of the latest event about it; an event of a lower one changes nothing."""
    prints: tuple[PrintView, ...] = ()


class OwnerList(Record):
    """Every owner of people or of conversations; null: what names no owner."""

    owners: tuple[str | None, ...]


class PeopleList(Record):
    """All people of an owner."""

    owner: str | None
    people: tuple[PersonView, ...]


class ExportedPrint(PrintView):
    """A voiceprint as it is kept."""

    vector: tuple[float, ...]


class Decision(Record):
    """What was decided about a person: learned, unlearned, asks, little_speech, …, and the events that were taken."""

    at_s: float
    what: str
    conversation_id: str | None
    similarity: float | None


class HeardIn(Record):
    """A voice of a conversation that is this person."""

    conversation_id: str
    speaker_id: int
    identity: str


class PersonDetail(PersonView):
    """A person, what was decided of it and where it was heard."""

    decisions: tuple[Decision, ...]
    heard_in: tuple[HeardIn, ...]


class ExportedVoice(Record):
    """How a voice of a conversation that is this person sounds in one job."""

    conversation_id: str
    speaker_id: int
    clean_s: float
    vector: tuple[float, ...]


class SaidOf(Record):
    """What somebody corrected about a person in a conversation."""

    conversation_id: str
    write: int
    in_force: bool
    corrections: tuple[dict[str, Any], ...]


class PersonExport(PersonDetail):
    """All that is known of a person."""

    voiceprints: tuple[ExportedPrint, ...]
    heard_voices: tuple[ExportedVoice, ...]
    said_of: tuple[SaidOf, ...]


class PeopleReader:
    """Reads the people of an owner."""

    def __init__(self, ledger: Ledger) -> None:
        """Read this ledger."""
        self._ledger = ledger

    def list_people(self, owner: str) -> PeopleList:
        """Return everybody whom an owner knows."""
        prints = self._ledger.people.known_to(owner).prints
        people = tuple(_view(person, prints) for person in self._ledger.people.of_owner(owner))
        return PeopleList(owner=owner or None, people=people)

    def list_owners(self) -> OwnerList:
        """Return every owner of people or of conversations."""
        return OwnerList(owners=tuple(owner or None for owner in self._ledger.people.owners()))

    def show(self, owner: str, person_id: str) -> PersonDetail | None:
        """Return one person, or None where the owner knows nobody of that id."""
        person = self._ledger.people.get(owner, person_id)
        if person is None:
            return None
        view = _view(person, self._ledger.people.known_to(owner).prints)
        return PersonDetail(
            **view.model_dump(),
            decisions=tuple(
                Decision(at_s=each.at, **{name: value for name, value in asdict(each).items() if name != "at"})
                for each in self._ledger.people.decisions(owner, person_id)
            ),
            heard_in=tuple(self._heard_in(owner, person_id)),
        )

    def export(self, owner: str, person_id: str) -> PersonExport | None:
        """Return all that is known of a person."""
        person = self.show(owner, person_id)
        if person is None:
            return None
        own = [each for each in self._ledger.people.known_to(owner).prints if each.person_id == person_id]
        said = self._ledger.people.corrections_about(owner, person_id)
        return PersonExport(
            **person.model_dump(),
            voiceprints=tuple(_export(each) for each in own),
            heard_voices=tuple(self._heard_voices(owner, person_id)),
            said_of=tuple(
                SaidOf(
                    conversation_id=name,
                    write=kept.write,
                    in_force=kept.in_force,
                    corrections=tuple(one for one in kept.said if one.get("person_id") == person_id),
                )
                for name, kept in said
            ),
        )

    def _heard_voices(self, owner: str, person_id: str) -> Iterator[ExportedVoice]:
        # Imported here: every command imports this file, and only this needs numpy.
        from vps_bridge.labelling.forget_voices import erased_speakers  # noqa: PLC0415
        from vps_bridge.labelling.take_apart import settle_samples  # noqa: PLC0415

        for name, voices in sorted(self._ledger.people.naming(owner, person_id).items()):
            number_of = {
                member: voice.speaker_id
                for voice in VoiceBook.from_json(voices).voices
                if person_id in (voice.person_id, voice.matched_person)
                for member in voice.members
            }
            results = [decode(SpeakerTurns, found.payload) for found in self._ledger.jobs.results(name)]
            for result in settle_samples(results) if number_of else ():
                erased = erased_speakers(result.warnings, [voice.speaker for voice in result.speakers])
                for voice in result.speakers:
                    number = number_of.get(LocalSpeaker(result.job_id, voice.speaker))
                    if number is not None and voice.embedding is not None and voice.speaker not in erased:
                        yield ExportedVoice(
                            conversation_id=name,
                            speaker_id=number,
                            clean_s=voice.clean_speech_s,
                            vector=_numbers(voice.embedding),
                        )

    def _heard_in(self, owner: str, person_id: str) -> list[HeardIn]:
        found = []
        for name, voices in sorted(self._ledger.people.naming(owner, person_id).items()):
            for voice in VoiceBook.from_json(voices).voices:
                if person_id in (voice.person_id, voice.matched_person):
                    identity = "confirmed" if voice.person_id == person_id else "matched"
                    found.append(HeardIn(conversation_id=name, speaker_id=voice.speaker_id, identity=identity))
        return found


def _view(person: PersonRecord, prints: tuple[PrintRecord, ...]) -> PersonView:
    facts = {name: value for name, value in asdict(person).items() if name not in ("owner", "created_at")}
    own = tuple(PrintView.model_validate(asdict(each)) for each in prints if each.person_id == person.person_id)
    return PersonView(**facts, created_at_s=person.created_at, prints=own)


def _export(found: PrintRecord) -> ExportedPrint:
    return ExportedPrint.model_validate({**asdict(found), "vector": _numbers(found.vector)})


def _numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)
