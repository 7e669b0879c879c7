"""Which field belongs to which event, and what each event says: the parts of the contract that no type can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.conversation import EventType
from schemas.people import PersonEventType


@dataclass(frozen=True)
class EventFields:
    """What one type of event says, and with which fields; of a group in `needs`, one is enough."""

    says: str
    needs: tuple[tuple[str, ...], ...] = ()
    may: tuple[str, ...] = ()


EVERY_EVENT = ("event_id", "type", "revision", "num_speakers", "min_speakers", "max_speakers")
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
