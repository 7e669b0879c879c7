"""The result of a job: who spoke when, in seconds from the start of the job and with labels local to the job."""

from __future__ import annotations

import struct
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.record import (
    MAX_DURATION_S,
    VERSION_PATTERN,
    ByName,
    Count,
    Id,
    Message,
    Name,
    Ratio,
    Record,
    Seconds,
    Text,
)

MAX_TURNS = 20_000  # four hours with a change of speaker every 0.7 s
MAX_SPEAKERS = 100
MAX_CHUNKS = 5_000
MAX_EMBEDDING_BYTES = 4 * 4096
MAX_SAMPLES = 1_500
MAX_SAMPLE_NUMBERS = 512  # of one embedding; 256 in WeSpeaker and Resemblyzer
SPEECH_STEP_S = 0.1
MAX_SAMPLE_SPEECH_BYTES = 13  # 100 steps: a window of 10 s
MAX_VARIANCE = 1e6
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


def _refuse_not_finite(data: bytes) -> bytes:
    """Refuse float16 numbers that are NaN or infinite: all five bits of their exponent are set (IEEE 754)."""
    high_bytes = data[1::2]
    if len(high_bytes.translate(None, _NOT_FINITE)) != len(high_bytes):
        msg = "NaN and infinity are not numbers here"
        raise ValueError(msg)
    return data


_EXPONENT = 0x7C  # its bits in the higher byte of a float16
_NOT_FINITE = bytes(byte for byte in range(256) if byte & _EXPONENT == _EXPONENT)
Halves = Annotated[
    bytes, Field(max_length=2 * MAX_SAMPLES * MAX_SAMPLE_NUMBERS, strict=True), AfterValidator(_refuse_not_finite)
]


class VoiceSamples(Record):
    """One embedding for each short piece of speech of one speaker, in columns of equally many rows.

    With them all jobs of a conversation are clustered together, as the engine would have clustered one recording.
    """

    count: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = Field(description="How many samples; rows of each column.")
    every: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1, description="Of a long job samples are taken from every n-th window only; this is n."
    )
    times_s: Annotated[bytes, Field(max_length=12 * MAX_SAMPLES, strict=True)] = Field(
        description="float32, little endian: start and end in the job, and seconds of clean speech of each sample."
    )
    speech: Annotated[bytes, Field(max_length=MAX_SAMPLE_SPEECH_BYTES * MAX_SAMPLES, strict=True)] = Field(
        default=b"",
        description="One bit for each 0.1 s from the start on, highest bit first: whether this speaker speaks. "
        "Empty where every sample is speech from start to end.",
    )
    embeddings: Halves = Field(description="float16, little endian: the embeddings as the network gave them.")
    plda: Halves = Field(default=b"", description="float16: the embeddings in the space of the engine's PLDA.")
    phi: Annotated[bytes, Field(max_length=4 * MAX_SAMPLE_NUMBERS, strict=True)] = Field(
        default=b"", description="float32: the PLDA's between-speaker variances, one for each of its numbers."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        columns = {"embeddings": 2, "plda": 2, "speech": 1}
        if len(self.times_s) != 12 * self.count or not self.embeddings:
            msg = "a column has not as many rows as there are samples"
            raise ValueError(msg)
        if any(len(getattr(self, name)) % (self.count * width) for name, width in columns.items()):
            msg = "a column cannot be divided into as many rows as there are samples"
            raise ValueError(msg)
        if 2 * len(self.plda) != self.count * len(self.phi):
            msg = "plda and phi do not fit each other"
            raise ValueError(msg)
        times_s = struct.unpack(f"<{3 * self.count}f", self.times_s)
        if not all(
            0 <= start_s <= end_s <= MAX_DURATION_S and 0 <= clean_s <= MAX_DURATION_S
            for start_s, end_s, clean_s in zip(times_s[::3], times_s[1::3], times_s[2::3], strict=True)
        ):
            msg = "a sample ends before it starts, or has times that are none"
            raise ValueError(msg)
        if not all(0 <= variance <= MAX_VARIANCE for variance in struct.unpack(f"<{len(self.phi) // 4}f", self.phi)):
            msg = "phi holds numbers that are no variances"
            raise ValueError(msg)
        return self


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


class UndecodedChunk(Record):
    """A chunk that could not be decoded while others of its job could: no label comes from its audio."""

    chunk_id: Id
    message: Text = Field(description="What is wrong with it.")


class SpeakerTurns(Message):
    """The result of a job (agent -> bridge): the results topic."""

    SCHEMA: ClassVar[str] = "speaker-turns"
    ENCODING: ClassVar[str] = "msgpack"

    version: str = Field(default="1.2", pattern=VERSION_PATTERN, description="major.minor of the schema.")
    conversation_id: Id
    job_id: Id
    lease_id: Id
    attempt: Count = 0
    agent_id: Id
    engine: EngineDescription
    duration_s: Seconds = 0.0
    chunks: Annotated[tuple[ChunkSpan, ...], Field(max_length=MAX_CHUNKS, fail_fast=True)] = ()
    undecoded: Annotated[tuple[UndecodedChunk, ...], Field(max_length=MAX_CHUNKS, fail_fast=True)] = Field(
        default=(), description="In none of `chunks`: the job is diarized without them. Since 1.2."
    )
    turns: Annotated[tuple[SpeakerTurn, ...], Field(max_length=MAX_TURNS, fail_fast=True)] = Field(
        description="Overlap kept: two speakers at once are two turns."
    )
    exclusive_turns: Annotated[tuple[SpeakerTurn, ...], Field(max_length=MAX_TURNS, fail_fast=True)] = Field(
        description="The same speakers, one at a time: what labels segments."
    )
    speakers: Annotated[tuple[SpeakerVoice, ...], Field(max_length=MAX_SPEAKERS, fail_fast=True)] = ()
    voice_samples: VoiceSamples | None = Field(default=None, description="Since 1.1; null from an older agent.")
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
