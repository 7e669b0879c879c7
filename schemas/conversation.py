"""Messages about a conversation between backend and bridge: events, receipts, and updates of its labels."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from schemas.corrections import MAX_CORRECTIONS, Correction, CorrectionOutcome, SegmentId
from schemas.record import (
    VERSION_PATTERN,
    ByName,
    ByteCount,
    Count,
    Id,
    Message,
    Name,
    PersonName,
    PlainNumber,
    Ratio,
    Record,
    Seconds,
    Sha256,
    SignedSeconds,
    SpeakerHint,
    Text,
    Timestamp,
    check_hints,
    is_id,
)
from schemas.voice_people import Enrolment, Identity, VoicePerson

MAX_SEGMENTS = 20_000
MAX_WORDS, MAX_PIECES = 5_000, 500  # of a segment
WordIndex = Annotated[int, Field(ge=0, le=MAX_WORDS - 1)]
MAX_FAILURES, MAX_FAILURE_CHARS = 50, 500
MAX_PEOPLE = 1_000
_NEEDED_WHEN_NEW = "Needed where the segment is new (or was removed before)."


class Word(Record):
    """One word of a segment, in seconds on the transcript's clock."""

    text: Annotated[str, Field(max_length=200)]
    start_s: SignedSeconds
    end_s: SignedSeconds


class TranscriptSegment(Record):
    """A piece of the backend's transcript, in seconds on the transcript's clock, or an update of one.

    In an update a field that is missing is no change, and null takes away what was there. What an event of a higher
    revision said of a field stays. Where other words elsewhere get an id, a person whom the event does not name does
    not speak them. A segment that is new needs `start_s` and `end_s`.
    """

    id: SegmentId
    text: Annotated[
        Text, BeforeValidator(lambda text: "" if text is None else text, json_schema_input_type=Text | None)
    ] = ""
    start_s: Annotated[SignedSeconds, PlainNumber] = Field(default=0.0, description=_NEEDED_WHEN_NEW)
    end_s: Annotated[SignedSeconds, PlainNumber] = Field(default=0.0, description=_NEEDED_WHEN_NEW)
    speaker: Name | None = Field(default=None, description="The label speech-to-text gave, e.g. SPEAKER_00.")
    is_user: Annotated[
        bool, BeforeValidator(lambda flag: False if flag is None else flag, json_schema_input_type=bool | None)
    ] = False
    person_id: Annotated[PersonName | None, BeforeValidator(lambda name: None if name == "" else name)] = None
    label_source: Literal["manual", "auto"] | None = Field(
        default=None, description="Who labelled it. Null: a person or owner label counts as a human's."
    )
    words: Annotated[tuple[Word, ...], Field(max_length=MAX_WORDS, fail_fast=True)] | None = None

    @property
    def has_times(self) -> bool:
        """Whether its sender said where it begins and ends."""
        return {"start_s", "end_s"} <= self.model_fields_set

    @model_serializer(mode="wrap")
    def _keep_what_was_said(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Leave out what its sender did not name, and keep the nulls that it did."""
        written = {name: value for name, value in write(self).items() if name in self.model_fields_set}
        nulls = [name for name in self.model_fields_set if info.exclude_none and getattr(self, name) is None]
        return written | dict.fromkeys(nulls)


class EventType(StrEnum):
    """What a backend's event reports."""

    STARTED = "started"
    SEGMENTS = "segments"
    COMPLETED = "completed"
    DELETED = "deleted"
    APPLIED = "applied"
    RESYNC = "resync"
    CORRECTED = "corrected"
    UNDONE = "undone"
    REDONE = "redone"


class ConversationEvent(Message):
    """Something that happened to a conversation (backend -> bridge)."""

    SCHEMA: ClassVar[str] = "conversation-event"

    version: str = Field(default="1.3", pattern=VERSION_PATTERN, description="major.minor of the schema.")
    event_id: Id
    type: EventType
    revision: Count = Field(default=0, description="Per conversation; a lower one never overwrites a higher.")
    started_at: Timestamp | None = Field(default=None, description="Zero of the transcript's clock.")
    owner: PersonName | None = Field(
        default=None, description="started: whose conversation it is, and whose people speak."
    )
    enrols: Id | None = Field(
        default=None,
        description="started: the one voice of this conversation is this person's and becomes a voiceprint; all else "
        "is thrown away once `updated` has told the outcome. Since 1.2.",
    )
    temporary: bool = Field(
        default=False,
        description="started, of a new conversation: a test. It is in no list, and is deleted with `deleted`, with the "
        "next start of the bridge, or after an hour. Since 1.3.",
    )
    only_agent: Id | None = Field(
        default=None, description="started, with temporary: no other agent gets its audio. Since 1.3."
    )
    language: Annotated[str, Field(max_length=35)] | None = None
    num_speakers: SpeakerHint = Field(default=None, description="A hint, as the other two.")
    min_speakers: SpeakerHint = None
    max_speakers: SpeakerHint = None
    segments: Annotated[tuple[TranscriptSegment, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    removed: Annotated[tuple[SegmentId, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    chunks: Count | None = Field(default=None, description="completed: how many chunks there were.")
    last_audio_at: Timestamp | None = None
    updated_version: Count | None = Field(default=None, description="applied: which update was applied.")
    corrections: Annotated[tuple[Correction, ...], Field(max_length=MAX_CORRECTIONS, fail_fast=True)] = Field(
        default=(), description="corrected: what a person says, taken as a whole or not at all. Since 1.1."
    )
    by: PersonName | None = Field(default=None, description="corrected, undone, redone: who says so, for the history.")
    target_event_id: Id | None = Field(
        default=None, description="undone, redone: the event to take back or to bring back; wins over target_write."
    )
    target_write: Count | None = Field(
        default=None, description="undone, redone: the write of the history to take back or to bring back."
    )

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        if self.type is EventType.APPLIED and self.updated_version is None:
            msg = "an `applied` event needs updated_version"
            raise ValueError(msg)
        if self.type is EventType.CORRECTED and not self.corrections:
            msg = "a `corrected` event needs corrections"
            raise ValueError(msg)
        has_target = self.target_event_id is not None or self.target_write is not None
        if self.type in (EventType.UNDONE, EventType.REDONE) and not has_target:
            msg = f"an `{self.type}` event needs target_event_id or target_write"
            raise ValueError(msg)
        check_hints(self.min_speakers, self.max_speakers)
        return self

    @model_validator(mode="after")
    def _check_segments(self) -> Self:
        places: dict[str, list[int]] = {}
        for place, segment in enumerate(self.segments):
            places.setdefault(segment.id, []).append(place)
        repeated = [name for name, found in places.items() if len(found) > 1]
        if repeated:
            first, second, *_ = places[repeated[0]]
            msg = (
                f"{len(repeated)} of {len(places)} segment ids are there more than once: segments {first} and {second} "
                f"have the same id{_shown(repeated[0])}. Each segment needs an id of its own"
            )
            raise ValueError(msg)
        both = next((name for name in self.removed if name in places), None)
        if both is not None:
            msg = f"segment {places[both][0]}{_shown(both)} is both sent and removed: send it or remove it"
            raise ValueError(msg)
        return self


def _shown(segment_id: str) -> str:
    """Name an id in an error; not one that may be a piece of text."""
    return f" {segment_id!r}" if is_id(segment_id) else ""


class Verdict(StrEnum):
    """The bridge's answer to audio, an event, a result or a failure that was offered."""

    ACCEPTED = "accepted"
    STORED = "stored"
    DUPLICATE = "duplicate"
    DISCARDED = "discarded"
    REFUSED = "refused"


class Accepted(Message):
    """The bridge's receipt for a chunk or an event; once it is `accepted`, the sender need not keep it."""

    SCHEMA: ClassVar[str] = "accepted"

    conversation_id: Id
    chunk_id: Id | None = None
    event_id: Id | None = None
    sha256: Sha256 | None = None
    bytes: ByteCount = 0
    verdict: Verdict
    reason: Name | None = Field(default=None, description="A FailureCode where refused or discarded.")
    message: Text | None = None


class SegmentPiece(Record):
    """Neighbouring words of a segment that one speaker said; times are in seconds on the transcript's clock."""

    start_s: SignedSeconds
    end_s: SignedSeconds
    first_word: WordIndex = Field(description="Index into the segment's words, as is last_word, which belongs to it.")
    last_word: WordIndex
    speaker: Name | None = Field(default=None, description="SPEAKER_<nn>; absent: nobody can be named.")
    speaker_id: Annotated[int, Field(ge=0, le=10_000)] | None = None
    estimated: bool = Field(
        default=False,
        description="Its words have no times: they are counted in the segment's text split at white space, and the cut "
        "is where a sentence ends near a change of speaker.",
    )


class SegmentLabel(Record):
    """The current label of one segment."""

    id: SegmentId
    speaker: Name | None = Field(default=None, description="SPEAKER_<nn>; absent: nobody can be named.")
    speaker_id: Annotated[int, Field(ge=0, le=10_000)] | None = None
    person_id: Name | None = None
    identity: Identity | None = Field(
        default=None, description="Where person_id comes from: confirmed or matched; see `people`. Since 1.3."
    )
    coverage: Ratio | None = Field(default=None, description="Share of the segment the speaker covers.")
    runner_up: Name | None = None
    pieces: Annotated[tuple[SegmentPiece, ...], Field(max_length=MAX_PIECES, fail_fast=True)] | None = Field(
        default=None,
        description="Who said which words, where the speaker changes within the segment; absent: it is not cut. "
        "The label above is that of the whole segment, for who cannot split it.",
    )


class LabelChange(Record):
    """A segment whose label this update changed."""

    id: SegmentId
    before: Name | None = None
    after: Name | None = None
    matched_before: Name | None = Field(default=None, description="The person whom a voiceprint named. Since 1.3.")
    matched_after: Name | None = None


class LeftAlone(Record):
    """A segment whose label this update did not change, and why."""

    id: SegmentId
    reason: Name


class VoiceChange(Record):
    """A speaker number that is new, was merged into another, was split, or is no longer used."""

    change: Literal["new", "merged", "split", "retired"]
    speaker_id: Count
    into: Count | None = None


class ConversationTurn(Record):
    """One turn under the conversation's speaker numbers, in seconds on the transcript's clock."""

    start_s: SignedSeconds
    end_s: SignedSeconds
    speaker_id: Count


class FailedAudio(Record):
    """A job that failed: no label comes from its audio until somebody does what the remedy says."""

    job_id: Id
    code: Name = Field(description="A FailureCode; a reader must survive codes it does not know.")
    message: Annotated[str, Field(max_length=MAX_FAILURE_CHARS)] = Field(description="What happened.")
    remedy: Name = Field(description="What an operator does about it.")
    audio_s: Seconds = Field(description="About how much audio it is.")


class ConversationUpdated(Message):
    """The conversation's labels after an assignment (bridge -> backend); answered by `applied`."""

    SCHEMA: ClassVar[str] = "conversation-updated"

    version: str = Field(default="1.3", pattern=VERSION_PATTERN, description="major.minor of the schema.")
    conversation_id: Id
    updated_version: Count
    write: Count | None = Field(
        default=None, description="The latest write in the history: what `undone` takes back. Since 1.2."
    )
    state: Literal["live", "final"]
    reason: Name | None = Field(
        default=None,
        description="Begins with `too_large` where the labels fit no packet of the broker: `segments` is empty and "
        "changes nothing, read them over HTTP. Where nearly all fits, `turns`, then `changed` and `left_alone`, then "
        "`coverage`, `runner_up` and `pieces` are left out without a reason.",
    )
    segments: Annotated[tuple[SegmentLabel, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    changed: Annotated[tuple[LabelChange, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    left_alone: Annotated[tuple[LeftAlone, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    left_alone_counts: ByName[Count] = {}
    voices: Annotated[tuple[VoiceChange, ...], Field(max_length=1_000, fail_fast=True)] = ()
    corrections: Annotated[tuple[CorrectionOutcome, ...], Field(max_length=1_000, fail_fast=True)] = Field(
        default=(), description="Every correction in force, the latest last, and what became of it. Since 1.2."
    )
    people: Annotated[tuple[VoicePerson, ...], Field(max_length=MAX_PEOPLE, fail_fast=True)] = Field(
        default=(), description="Who each voice is, or may be; at most one for each. Since 1.3."
    )
    enrolment: Enrolment | None = Field(default=None, description="What became of an enrolment. Since 1.3.")
    speakers: Count = 0
    turns: Annotated[tuple[ConversationTurn, ...], Field(max_length=20_000, fail_fast=True)] | None = Field(
        default=None, description="Left out where it would not fit a broker's default limit."
    )
    warnings: Annotated[tuple[Name, ...], Field(max_length=50, fail_fast=True)] = Field(
        default=(), description="What is odd about the audio or the times, with numbers and what to do where known."
    )
    failed_jobs: Count = Field(default=0, description="Jobs that failed, so that some audio gave no label.")
    failures: Annotated[tuple[FailedAudio, ...], Field(max_length=MAX_FAILURES, fail_fast=True)] = Field(
        default=(), description="The first of them, with reasons. Since 1.1."
    )
    audio_s: Seconds = 0.0
