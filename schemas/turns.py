"""The result of a job: who spoke when, in seconds from the start of the job and with labels local to the job."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from schemas.record import ByName, Count, Id, Message, Name, Ratio, Record, Seconds

MAX_TURNS = 20_000  # four hours with a change of speaker every 0.7 s
MAX_SPEAKERS = 100
MAX_EMBEDDING_BYTES = 4 * 4096
LocalLabel = Annotated[str, Field(min_length=1, max_length=64)]


class SpeakerTurn(Record):
    """One stretch of speech of one local speaker, in seconds from the job's first sample."""

    start_s: Seconds
    end_s: Seconds
    speaker: LocalLabel

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end_s < self.start_s:
            msg = "a turn ends before it starts"
            raise ValueError(msg)
        return self


class SpeakerVoice(Record):
    """The voice of one local speaker of a job."""

    speaker: LocalLabel
    clean_speech_s: Seconds = Field(description="Seconds of speech by nobody else behind the embedding.")
    embedding: Annotated[bytes, Field(max_length=MAX_EMBEDDING_BYTES, strict=True)] | None = Field(
        default=None, description="float32, little endian, unit length; null with too little clean speech."
    )


class EngineDescription(Record):
    """The engine that diarized; embeddings are comparable only within one embedding model and revision."""

    name: Name
    model: Name = ""
    revision: Name = ""
    device: Name = ""
    mode: Name = ""
    embedding_model: Name = ""
    embedding_revision: Name = ""


class AudioQuality(Record):
    """Measurements of the decoded audio, for a person who wonders why a result is poor."""

    peak: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    clipped_ratio: Ratio = 0.0
    rms_dbfs: Annotated[float, Field(ge=-400, le=200)] = -400.0


class ChunkSpan(Record):
    """The place of a chunk in the decoded job. The bridge never decodes, so it learns the exact times from this."""

    chunk_id: Id
    start_s: Seconds
    duration_s: Seconds


class SpeakerTurns(Message):
    """The result of a job (agent -> bridge): the results topic."""

    SCHEMA: ClassVar[str] = "speaker-turns"
    ENCODING: ClassVar[str] = "msgpack"

    conversation_id: Id
    job_id: Id
    lease_id: Id
    attempt: Count = 0
    agent_id: Id
    engine: EngineDescription
    duration_s: Seconds = 0.0
    chunks: Annotated[tuple[ChunkSpan, ...], Field(max_length=5_000, fail_fast=True)] = ()
    turns: Annotated[tuple[SpeakerTurn, ...], Field(max_length=MAX_TURNS, fail_fast=True)] = Field(
        description="Overlap kept: two speakers at once are two turns."
    )
    exclusive_turns: Annotated[tuple[SpeakerTurn, ...], Field(max_length=MAX_TURNS, fail_fast=True)] = Field(
        description="The same speakers, one at a time: what labels segments."
    )
    speakers: Annotated[tuple[SpeakerVoice, ...], Field(max_length=MAX_SPEAKERS, fail_fast=True)] = ()
    quality: AudioQuality = AudioQuality()
    timings_ms: ByName[Annotated[float, Field(ge=0, le=1e9)]] = {}
    warnings: Annotated[tuple[Name, ...], Field(max_length=50, fail_fast=True)] = ()

    @model_validator(mode="after")
    def _bound_labels(self) -> Self:
        """Refuse more labels than there may be speakers: comparing them all costs the square of their number."""
        labels = {turn.speaker for turn in (*self.turns, *self.exclusive_turns)}
        labels.update(speaker.speaker for speaker in self.speakers)
        if len(labels) > MAX_SPEAKERS:
            msg = f"{len(labels)} different speakers, more than {MAX_SPEAKERS}"
            raise ValueError(msg)
        return self
