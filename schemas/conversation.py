"""Messages about a conversation between backend and bridge: events, receipts, and updates of its labels."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.record import (
    VERSION_PATTERN,
    ByName,
    ByteCount,
    Count,
    Id,
    Message,
    Name,
    Ratio,
    Record,
    Seconds,
    Sha256,
    SignedSeconds,
    SpeakerCount,
    Text,
    Timestamp,
)

MAX_SEGMENTS = 20_000
MAX_FAILURES, MAX_FAILURE_CHARS = 50, 500
SegmentId = Annotated[str, Field(min_length=1, max_length=200)]


class Word(Record):
    """One word of a segment, in seconds on the transcript's clock."""

    text: Annotated[str, Field(max_length=200)]
    start_s: SignedSeconds
    end_s: SignedSeconds


class TranscriptSegment(Record):
    """A piece of the backend's transcript, in seconds on the transcript's clock."""

    id: SegmentId
    text: Text = ""
    start_s: SignedSeconds
    end_s: SignedSeconds
    speaker: Name | None = Field(default=None, description="The label speech-to-text gave, e.g. SPEAKER_00.")
    is_user: bool = False
    person_id: Name | None = None
    label_source: Literal["manual", "auto"] | None = Field(
        default=None, description="Who labelled it. Absent: a person or owner label counts as a human's."
    )
    words: Annotated[tuple[Word, ...], Field(max_length=5_000, fail_fast=True)] | None = None


class EventType(StrEnum):
    """What a backend's event reports."""

    STARTED = "started"
    SEGMENTS = "segments"
    COMPLETED = "completed"
    DELETED = "deleted"
    APPLIED = "applied"
    RESYNC = "resync"


class ConversationEvent(Message):
    """Something that happened to a conversation (backend -> bridge)."""

    SCHEMA: ClassVar[str] = "conversation-event"

    event_id: Id
    type: EventType
    revision: Count = Field(default=0, description="Per conversation; a lower one never overwrites a higher.")
    started_at: Timestamp | None = Field(default=None, description="Zero of the transcript's clock.")
    owner: Name | None = None
    language: Annotated[str, Field(max_length=35)] | None = None
    num_speakers: SpeakerCount | None = Field(default=None, description="A hint, as the other two.")
    min_speakers: SpeakerCount | None = None
    max_speakers: SpeakerCount | None = None
    segments: Annotated[tuple[TranscriptSegment, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    removed: Annotated[tuple[SegmentId, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    chunks: Count | None = Field(default=None, description="completed: how many chunks there were.")
    last_audio_at: Timestamp | None = None
    updated_version: Count | None = Field(default=None, description="applied: which update was applied.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type is EventType.APPLIED and self.updated_version is None:
            msg = "an `applied` event needs updated_version"
            raise ValueError(msg)
        ids = Counter(segment.id for segment in self.segments)
        repeated = sum(count > 1 for count in ids.values())
        if repeated:
            msg = f"{repeated} of {len(ids)} segment ids are there more than once: each segment needs an id of its own"
            raise ValueError(msg)
        return self


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


class SegmentLabel(Record):
    """The current label of one segment."""

    id: SegmentId
    speaker: Name | None = Field(default=None, description="SPEAKER_<nn>; absent: nobody can be named.")
    speaker_id: Annotated[int, Field(ge=0, le=10_000)] | None = None
    person_id: Name | None = None
    coverage: Ratio | None = Field(default=None, description="Share of the segment the speaker covers.")
    runner_up: Name | None = None


class LabelChange(Record):
    """A segment whose label this update changed."""

    id: SegmentId
    before: Name | None = None
    after: Name | None = None


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

    version: str = Field(default="1.1", pattern=VERSION_PATTERN, description="major.minor of the schema.")
    conversation_id: Id
    updated_version: Count
    state: Literal["live", "final"]
    reason: Name | None = None
    segments: Annotated[tuple[SegmentLabel, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    changed: Annotated[tuple[LabelChange, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    left_alone: Annotated[tuple[LeftAlone, ...], Field(max_length=MAX_SEGMENTS, fail_fast=True)] = ()
    left_alone_counts: ByName[Count] = {}
    voices: Annotated[tuple[VoiceChange, ...], Field(max_length=1_000, fail_fast=True)] = ()
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
