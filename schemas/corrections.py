"""Corrections: what a person says about who speaks, and what became of it in a conversation's labels."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from schemas.limits import MAX_SPEAKER_NUMBER
from schemas.record import Count, Id, Name, PersonName, PlainNumber, Record

MAX_CORRECTIONS, MAX_NAMED_SPEAKERS, MAX_NAMED_SEGMENTS = 100, 100, 2_000
SegmentId = Annotated[str, Field(min_length=1, max_length=200)]
SpeakerNumber = Annotated[int, Field(ge=0, le=MAX_SPEAKER_NUMBER), PlainNumber]
PersonId = Annotated[PersonName, Field(min_length=1)]
T = TypeVar("T")


def _each_once(named: tuple[T, ...]) -> tuple[T, ...]:
    """Return what is named, without what is named again."""
    return tuple(dict.fromkeys(named))


Speakers = Annotated[
    tuple[SpeakerNumber, ...],
    Field(max_length=MAX_NAMED_SPEAKERS, fail_fast=True),
    AfterValidator(_each_once),
]
Segments = Annotated[
    tuple[SegmentId, ...], Field(max_length=MAX_NAMED_SEGMENTS, fail_fast=True), AfterValidator(_each_once)
]


class CorrectionKind(StrEnum):
    """What a person says."""

    SAME_VOICE = "same_voice"
    OTHER_VOICE = "other_voice"
    SEGMENT_IS = "segment_is"
    VOICE_IS = "voice_is"
    VOICE_IS_NOT = "voice_is_not"


# Of each kind, the fields that say whom it is about: at least one of each group.
_NEEDED: dict[CorrectionKind, tuple[tuple[str, ...], ...]] = {
    CorrectionKind.SAME_VOICE: (("speaker_ids",),),
    CorrectionKind.OTHER_VOICE: (("segment_ids",),),
    CorrectionKind.SEGMENT_IS: (("segment_id",), ("speaker_id", "person_id")),
    CorrectionKind.VOICE_IS: (("speaker_id",), ("person_id",)),
    CorrectionKind.VOICE_IS_NOT: (("speaker_id",), ("person_id",)),
}


class Correction(Record):
    """One statement of a person: `same_voice` joins speakers, `other_voice` splits segments off, the others name."""

    kind: CorrectionKind
    speaker_ids: Speakers = Field(default=(), description="same_voice: two or more speaker numbers that are one voice.")
    segment_ids: Segments = Field(
        default=(), description="other_voice: segments of one voice that is not the voice they were given to."
    )
    segment_id: SegmentId | None = Field(default=None, description="segment_is: which segment.")
    speaker_id: SpeakerNumber | None = Field(default=None, description="segment_is, voice_is, voice_is_not.")
    person_id: PersonId | None = Field(default=None, description="segment_is (or speaker_id), voice_is, voice_is_not.")
    anyway: bool = Field(
        default=False,
        description="voice_is: the voice becomes a voiceprint also where it sounds unlike the person's others.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        missing = [group for group in _NEEDED[self.kind] if all(getattr(self, name) in (None, ()) for name in group)]
        if missing:
            needs = " and ".join(" or ".join(group) for group in missing)
            msg = f"a `{self.kind}` correction needs {needs}"
            raise ValueError(msg)
        if self.kind is CorrectionKind.SAME_VOICE and len(self.speaker_ids) < 2:  # noqa: PLR2004 - two are one
            msg = "a `same_voice` correction names two different speakers or more"
            raise ValueError(msg)
        return self


class CorrectionOutcome(Record):
    """What became of one correction: whether it reaches beyond the segments it names, and why not."""

    event_id: Id = Field(description="Of the `corrected` event, so that a backend knows its own.")
    write: Count = Field(description="Its number in the history, by which it can be undone.")
    kind: Name = Field(description="As in the correction; a reader must survive kinds it does not know.")
    outcome: Literal["spread", "alone", "void"] = Field(
        description="spread: it reaches the whole voice; alone: only the segments it names; void: nothing of it."
    )
    reason: Name | None = Field(
        default=None,
        description="contradicted: other labels of people say otherwise; sounds_different: the two voices do, say "
        "same_voice to join them; overridden: a later correction says otherwise; no_voice: nobody was heard there; "
        "cut: the segment was cut since, and what was cut off it has another label.",
    )
