"""Messages about a person between backend and bridge: what the backend says of somebody, and the receipts.

People belong to an owner, as conversations do. Nothing of one owner's people is ever matched, listed or erased for
another; events that name no owner are about the people of nobody in particular, an owner of their own.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from schemas.conversation import Verdict
from schemas.record import Count, Id, Message, Name, PersonName, Sha256, Text


class PersonEventType(StrEnum):
    """What a backend's event says of a person."""

    NAMED = "named"
    CONSENTED = "consented"
    OWNER = "owner"
    CONFIRMED = "confirmed"
    FORGOTTEN = "forgotten"


def _refuse_number(day: Any) -> Any:  # noqa: ANN401 - anything, before validation
    # pydantic would take a number for seconds since 1970, and a time for its date.
    if not isinstance(day, date) and not (isinstance(day, str) and len(day) == len("2026-05-04")):
        msg = "write the date as YYYY-MM-DD"
        raise ValueError(msg)
    return day


_NEEDED: dict[PersonEventType, tuple[str, ...]] = {
    PersonEventType.NAMED: ("name",),
    PersonEventType.CONSENTED: ("consent_date",),
    PersonEventType.CONFIRMED: ("conversation_id", "speaker_id"),
}


class PersonEvent(Message):
    """Something that a backend says of a person (backend -> bridge), under the person's id."""

    SCHEMA: ClassVar[str] = "person-event"
    MAX_ENCODED_BYTES: ClassVar[int] = 16_384

    event_id: Id
    type: PersonEventType
    owner: PersonName | None = Field(default=None, description="Whose person it is, as in `started` of a conversation.")
    revision: Count = Field(
        default=0, description="named, consented, owner: per person; a lower one never overwrites a higher."
    )
    name: Annotated[PersonName, Field(min_length=1)] | None = Field(
        default=None, description="named: what the person is called."
    )
    consent_date: Annotated[date, BeforeValidator(_refuse_number)] | None = Field(
        default=None, description="consented: when the person agreed to be recognised."
    )
    is_owner: bool = Field(
        default=True, description="owner: whether this person is the owner; one is, an earlier one is not any more."
    )
    conversation_id: Id | None = Field(default=None, description="confirmed: where the person was heard.")
    speaker_id: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="confirmed: the number of the voice that is this person; it becomes a voiceprint."
    )
    anyway: bool = Field(default=False, description="confirmed: also where it sounds unlike the person's others.")
    by: PersonName | None = Field(default=None, description="confirmed: who says so, for the history.")

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        missing = [name for name in _NEEDED.get(self.type, ()) if getattr(self, name) is None]
        if missing:
            msg = f"a `{self.type}` event needs {' and '.join(missing)}"
            raise ValueError(msg)
        return self


class PersonAccepted(Message):
    """The bridge's receipt for a person's event."""

    SCHEMA: ClassVar[str] = "person-accepted"

    person_id: Id
    event_id: Id | None = None
    sha256: Sha256 | None = Field(default=None, description="Of the payload, where it could not be read.")
    verdict: Verdict
    reason: Name | None = Field(default=None, description="A FailureCode where refused or discarded.")
    message: Text | None = None
