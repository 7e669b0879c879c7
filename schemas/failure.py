"""Why a job, a chunk or an event was refused: codes an operator can look up."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from schemas.record import Count, Id, Message, Name, Sha256, Text


class FailureCode(StrEnum):
    """Every way in which a piece of work can fail. The name before the dot is the owner of the fault."""

    AUDIO_EMPTY = "audio.empty"
    AUDIO_UNDECODABLE = "audio.undecodable"
    AUDIO_TOO_LONG = "audio.too_long"
    PAYLOAD_MALFORMED = "payload.malformed"
    PAYLOAD_INCOMPLETE = "payload.incomplete"
    PAYLOAD_SHA256_MISMATCH = "payload.sha256_mismatch"
    SCHEMA_UNSUPPORTED = "schema.unsupported"
    ENGINE_CRASHED = "engine.crashed"
    ENGINE_FAILED = "engine.failed"
    ENGINE_TIMEOUT = "engine.timeout"
    LEASE_LOST = "lease.lost"
    INGEST_FULL = "ingest.full"
    INGEST_TOO_LARGE = "ingest.too_large"
    CONVERSATION_DELETED = "conversation.deleted"
    CHUNK_ID_CONFLICT = "chunk.id_conflict"
    REVISION_STALE = "event.revision_stale"
    DISK_FULL = "disk.full"


class JobFailure(Message):
    """One attempt at a job that failed, or (from the bridge) audio or an event it refused."""

    SCHEMA: ClassVar[str] = "job-failure"

    conversation_id: Id
    job_id: Id | None = Field(default=None, description="Absent where the bridge refused a chunk or an event.")
    lease_id: Id | None = None
    chunk_id: Id | None = None
    event_id: Id | None = None
    attempt: Count = 0
    sha256: Sha256 | None = None
    code: Name = Field(description="A FailureCode; a reader must survive codes it does not know.")
    retryable: bool = False
    message: Text = Field(description="What happened and what to do about it. Never audio, text or names.")
