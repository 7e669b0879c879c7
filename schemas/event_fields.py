"""Which field belongs to which event, and what each event says: the parts of the contract that no type can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from schemas.conversation import ConversationEvent, EventType
from schemas.errors import MessageMalformed
from schemas.people import PersonEvent, PersonEventType


@dataclass(frozen=True)
class EventFields:
    """What one type of event says, and with which fields; of a group in `needs`, one is enough."""

    says: str
    needs: tuple[tuple[str, ...], ...] = ()
    may: tuple[str, ...] = ()


E = TypeVar("E", ConversationEvent, PersonEvent)
K = TypeVar("K", EventType, PersonEventType)
EVERY_EVENT = ("event_id", "type", "revision", "num_speakers", "min_speakers", "max_speakers", "by")
EVERY_PERSON_EVENT = ("event_id", "type", "owner")
_TARGET = (("target_event_id", "target_write"),)

EVENT_FIELDS: Mapping[EventType, EventFields] = {
    EventType.STARTED: EventFields(
        "The conversation began. Optional: audio or segments begin one too.",
        may=("started_at", "owner", "language", "enrols", "temporary", "only_agent"),
    ),
    EventType.SEGMENTS: EventFields(
        "Pieces of the transcript, new or changed, and ids of those that are gone. What is not named stays as it is.",
        may=("segments", "removed"),
    ),
    EventType.COMPLETED: EventFields(
        "No more audio is to come but what is named. The labels then become final. Later audio opens it again.",
        may=("chunks", "last_audio_at"),
    ),
    EventType.DELETED: EventFields("Erase all of it, everywhere. Its id is never used again."),
    EventType.APPLIED: EventFields("The update of this number arrived and was stored.", needs=(("updated_version",),)),
    EventType.RESYNC: EventFields("Send the newest update again."),
    EventType.CORRECTED: EventFields("A person says who speaks.", needs=(("corrections",),), may=("by",)),
    EventType.UNDONE: EventFields("Take an event or a write back.", needs=_TARGET, may=("by",)),
    EventType.REDONE: EventFields("Bring back what was taken back.", needs=_TARGET, may=("by",)),
}

PERSON_EVENT_FIELDS: Mapping[PersonEventType, EventFields] = {
    PersonEventType.NAMED: EventFields("What the person is called.", needs=(("name",),), may=("revision",)),
    PersonEventType.CONSENTED: EventFields(
        "When the person agreed to be recognised.", needs=(("consent_date",),), may=("revision",)
    ),
    PersonEventType.OWNER: EventFields("Whether this person is the owner.", may=("is_owner", "revision")),
    PersonEventType.CONFIRMED: EventFields(
        "A voice that was heard is this person; it becomes a voiceprint.",
        needs=(("conversation_id",), ("speaker_id",)),
        may=("anyway", "by"),
    ),
    PersonEventType.FORGOTTEN: EventFields("Erase the person: name, voiceprints, samples. It cannot be undone."),
}


def check_fields(event: E) -> E:
    """Return an event, or refuse one that says what its type does not say: taken, that would be lost without a word.

    A field with the value that it has anyway says nothing; neither does one that this version does not know.

    Raises `MessageMalformed`.
    """
    homes_of: Mapping[str, tuple[str, ...]] = _HOMES if isinstance(event, ConversationEvent) else _PERSON_HOMES
    for name in event.model_fields_set:
        homes = homes_of.get(name)
        if homes and event.type not in homes and getattr(event, name) != type(event).model_fields[name].default:
            named = " or ".join(f"`{kind}`" for kind in homes)
            msg = f"a `{event.type}` event says nothing of {name}: send it in an event of type {named}"
            raise MessageMalformed(f"{msg}. Nothing of this event was taken.")
    return event


def _homes(tables: Mapping[K, EventFields], every: tuple[str, ...]) -> dict[str, tuple[K, ...]]:
    """Return by field the types of event that it belongs to, of fields that do not belong to every event."""
    names = {name for fields in tables.values() for name in _fields_of(fields)}.difference(every)
    return {name: tuple(kind for kind, fields in tables.items() if name in _fields_of(fields)) for name in names}


def _fields_of(fields: EventFields) -> set[str]:
    return {*fields.may, *(name for group in fields.needs for name in group)}


_HOMES, _PERSON_HOMES = _homes(EVENT_FIELDS, EVERY_EVENT), _homes(PERSON_EVENT_FIELDS, EVERY_PERSON_EVENT)
