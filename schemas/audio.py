"""Messages that carry audio: from the backend to the bridge, and in parts from the bridge to one agent."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.record import (
    VERSION_PATTERN,
    ByteCount,
    Count,
    Id,
    Message,
    PlainNumber,
    Record,
    Seconds,
    Sha256,
    SpeakerHint,
    Timestamp,
    check_hints,
)

MAX_PART_BYTES = 1_500_000  # so that its message stays below the 2,000,000 bytes that Mosquitto 2.1 takes by default
Encoding = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,31}$")]
# Headerless samples, little endian, interleaved; every other encoding is a file with a header of its own.
RAW_SAMPLE_BYTES = {"pcm_s16le": 2, "pcm_u8": 1, "pcm_mulaw": 1, "pcm_alaw": 1, "pcm_f32le": 4}
RAW_ENCODINGS = tuple(RAW_SAMPLE_BYTES)
SampleRate = Annotated[int, Field(ge=1_000, le=768_000, description="Hz"), PlainNumber]
Channels = Annotated[int, Field(ge=1, le=16), PlainNumber]


class ChunkDescription(Record):
    """The description of a chunk by its publisher, the same over MQTT and HTTP."""

    chunk_id: Id | None = Field(default=None, description="Default: from sequence, else captured_at and sha256.")
    sequence: Count | None = Field(default=None, description="n-th chunk of the conversation.")
    captured_at: Timestamp | None = Field(default=None, description="Absolute time of the first sample.")
    captured_error_s: Annotated[Seconds, PlainNumber] = Field(
        default=0.0, description="Where captured_at is an estimate: how far it may be off. Since 1.1."
    )
    encoding: Encoding = Field(default="auto", description="A container name, `auto`, or a raw encoding.")
    sample_rate: SampleRate | None = Field(default=None, description="Needed for raw encodings. Hz.")
    channels: Channels | None = Field(default=None, description="Needed for raw encodings.")
    duration_s: Annotated[Seconds | None, PlainNumber] = None
    num_speakers: SpeakerHint = None
    min_speakers: SpeakerHint = None
    max_speakers: SpeakerHint = None
    final: bool = Field(
        default=False,
        description="No more audio follows in this conversation; what comes all the same opens it again, and its "
        "receipt says so.",
    )

    @model_validator(mode="after")
    def _check_description(self) -> Self:
        if self.encoding in RAW_ENCODINGS and (self.sample_rate is None or self.channels is None):
            msg = f"the raw encoding {self.encoding} needs sample_rate and channels"
            raise ValueError(msg)
        check_hints(self.min_speakers, self.max_speakers)
        return self


class AudioPayload(ChunkDescription, Message):
    """A chunk of a conversation's audio, whole or one part of it (backend -> bridge).

    A part has `byte_offset` and `total_bytes`; parts of one chunk repeat all other fields.
    """

    SCHEMA: ClassVar[str] = "audio-payload"
    ENCODING: ClassVar[str] = "msgpack"
    MAX_ENCODED_BYTES: ClassVar[int] = 64 * 2**20

    version: str = Field(default="1.1", pattern=VERSION_PATTERN, description="major.minor of the schema.")
    conversation_id: Id
    sha256: Sha256 = Field(description="Of the whole chunk.")
    byte_offset: ByteCount = 0
    total_bytes: ByteCount | None = Field(default=None, description="Of the whole chunk; absent when whole.")
    part_sha256: Sha256 | None = Field(default=None, description="Of this part; needed where it is a part.")
    audio: Annotated[bytes, Field(strict=True)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        total = len(self.audio) if self.total_bytes is None else self.total_bytes
        if self.byte_offset + len(self.audio) > total:
            msg = "byte_offset and the audio reach past total_bytes"
            raise ValueError(msg)
        if not self.is_whole and (self.part_sha256 is None or self.chunk_id is None):
            msg = "a part needs chunk_id and part_sha256"
            raise ValueError(msg)
        return self

    @property
    def is_whole(self) -> bool:
        """Whether this message carries the whole chunk."""
        return self.total_bytes is None or (self.byte_offset == 0 and self.total_bytes == len(self.audio))


class AudioPart(Message):
    """A range of one chunk of a leased job (bridge -> the agent that asked for it)."""

    SCHEMA: ClassVar[str] = "audio-part"
    ENCODING: ClassVar[str] = "msgpack"

    job_id: Id
    lease_id: Id
    chunk_id: Id
    byte_offset: ByteCount
    total_bytes: ByteCount
    part_sha256: Sha256
    audio: Annotated[bytes, Field(max_length=MAX_PART_BYTES, strict=True)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.byte_offset + len(self.audio) > self.total_bytes:
            msg = "byte_offset and the audio reach past total_bytes"
            raise ValueError(msg)
        return self
