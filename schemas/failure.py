"""Why a job, a chunk or an event was refused: codes an operator can look up, and what follows from each."""

from __future__ import annotations

from dataclasses import dataclass
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
    ENGINE_OVER_LIMIT = "engine.over_limit"
    """The bridge's own: an agent worked on the job until the limit of its lease, and had no result."""
    LEASE_LOST = "lease.lost"
    LABELS_FAILED = "labels.failed"
    INGEST_FULL = "ingest.full"
    INGEST_TOO_LARGE = "ingest.too_large"
    CONVERSATION_DELETED = "conversation.deleted"
    CHUNK_ID_CONFLICT = "chunk.id_conflict"
    EVENT_ID_CONFLICT = "event.id_conflict"
    REVISION_STALE = "event.revision_stale"
    DISK_FULL = "disk.full"
    SPOOL_UNAVAILABLE = "spool.unavailable"
    """The bucket that audio is kept in cannot be used now."""
    CORRECTION_REFUSED = "correction.refused"
    UNDO_REFUSED = "undo.refused"
    PERSON_REFUSED = "person.refused"


@dataclass(frozen=True)
class FailurePolicy:
    """What follows from a failure code, on both sides and at every way in."""

    http_status: int
    """Of an HTTP answer that carries the code."""
    remedy: str
    """What an operator does about a job that failed so; `{job}` stands for the job's id."""
    counts_as_attempt: bool = False
    """The fault is the audio's or the engine's: one of the job's attempts is used up. Of the way, none is."""
    is_retryable: bool = False
    """The same audio, sent or diarized again, may succeed."""


_PUBLISH_AGAIN = "publish the audio again under a new chunk_id, then: omi-bridge cancel {job}"
_LOOK_AND_RETRY = "look at the agent's log (omi-agent logs), then: omi-bridge retry {job}"

FAILURE_POLICIES = {
    FailureCode.AUDIO_EMPTY: FailurePolicy(
        400, "there is nothing in it: omi-bridge cancel {job}", counts_as_attempt=True
    ),
    FailureCode.AUDIO_UNDECODABLE: FailurePolicy(422, f"listen to the audio; {_PUBLISH_AGAIN}", counts_as_attempt=True),
    FailureCode.AUDIO_TOO_LONG: FailurePolicy(
        413, "raise OMI_MAX_AUDIO_S of the agent, then: omi-bridge retry {job}", counts_as_attempt=True
    ),
    FailureCode.PAYLOAD_MALFORMED: FailurePolicy(422, _PUBLISH_AGAIN),
    FailureCode.PAYLOAD_INCOMPLETE: FailurePolicy(400, _PUBLISH_AGAIN, is_retryable=True),
    FailureCode.PAYLOAD_SHA256_MISMATCH: FailurePolicy(
        422, f"look after the disk of the bridge; {_PUBLISH_AGAIN}", is_retryable=True
    ),
    FailureCode.SCHEMA_UNSUPPORTED: FailurePolicy(
        422, "bring sender and reader to the same version, then: omi-bridge retry {job}"
    ),
    FailureCode.ENGINE_CRASHED: FailurePolicy(500, _LOOK_AND_RETRY, counts_as_attempt=True, is_retryable=True),
    FailureCode.ENGINE_FAILED: FailurePolicy(500, _LOOK_AND_RETRY, counts_as_attempt=True, is_retryable=True),
    FailureCode.ENGINE_TIMEOUT: FailurePolicy(
        500,
        "raise OMI_JOB_TIMEOUT_FACTOR of the agent, then: omi-bridge retry {job}",
        counts_as_attempt=True,
        is_retryable=True,
    ),
    FailureCode.ENGINE_OVER_LIMIT: FailurePolicy(
        500,
        "look at the agent's log (omi-agent logs), or raise OMI_LEASE_LIMIT_FACTOR of the bridge, "
        "then: omi-bridge retry {job}",
        counts_as_attempt=True,
        is_retryable=True,
    ),
    FailureCode.LABELS_FAILED: FailurePolicy(500, "see the bridge's log, then: omi-bridge retry CONVERSATION"),
    FailureCode.LEASE_LOST: FailurePolicy(500, _LOOK_AND_RETRY),
    FailureCode.INGEST_FULL: FailurePolicy(
        503, "nothing: publishers keep their audio until there is room; or start another agent", is_retryable=True
    ),
    FailureCode.INGEST_TOO_LARGE: FailurePolicy(
        413, "raise OMI_MAX_JOB_BYTES of the agent, then: omi-bridge retry {job}"
    ),
    FailureCode.CONVERSATION_DELETED: FailurePolicy(
        410, "what was deleted stays deleted: publish under another conversation id"
    ),
    FailureCode.CHUNK_ID_CONFLICT: FailurePolicy(409, _PUBLISH_AGAIN),
    FailureCode.EVENT_ID_CONFLICT: FailurePolicy(409, "send the event again under an event_id of its own"),
    FailureCode.REVISION_STALE: FailurePolicy(409, "nothing: what a higher revision said stands"),
    FailureCode.DISK_FULL: FailurePolicy(
        503, "make room on the disk (omi-bridge doctor, omi-agent doctor); it goes on by itself", is_retryable=True
    ),
    FailureCode.SPOOL_UNAVAILABLE: FailurePolicy(503, "look after the bucket (omi-bridge doctor)", is_retryable=True),
    FailureCode.CORRECTION_REFUSED: FailurePolicy(422, "see what there is to correct: omi-bridge show CONVERSATION"),
    FailureCode.PERSON_REFUSED: FailurePolicy(422, "see whom the owner knows: omi-bridge people list --owner OWNER"),
    FailureCode.UNDO_REFUSED: FailurePolicy(409, "see what can be taken back: omi-bridge history CONVERSATION"),
}
_UNKNOWN = FailurePolicy(500, _LOOK_AND_RETRY)


def policy_of(code: str) -> FailurePolicy:
    """Return what follows from a code; one that this program does not know counts no attempt and is not retried."""
    return FAILURE_POLICIES[FailureCode(code)] if code in set(FailureCode) else _UNKNOWN


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
