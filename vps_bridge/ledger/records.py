"""What the ledger hands out: frozen records, so that nobody writes past it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vps_bridge.rules.assemble import ChunkInfo


class JobState(StrEnum):
    """States of a job; `open` is a set of chunks that no job covers yet, so it has no row."""

    READY = "ready"
    LEASED = "leased"
    TURNS_STORED = "turns_stored"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ConversationState(StrEnum):
    """States of a conversation; `deleted` is a tombstone instead of a row."""

    WAITING = "waiting"
    DIRTY = "dirty"
    ASSIGNED = "assigned"
    FINAL = "final"


@dataclass(frozen=True)
class ChunkRecord:
    """An accepted chunk."""

    arrival: int
    conversation_id: str
    chunk_id: str
    sequence: int | None
    captured_at_s: float | None
    encoding: str
    sample_rate: int | None
    channels: int | None
    duration_s: float | None
    sha256: str
    bytes: int
    spool_name: str | None
    accepted_at: float
    covered: bool

    @property
    def info(self) -> ChunkInfo:
        """What assembling and relabelling need of it; its length as the header claims it."""
        return ChunkInfo(
            chunk_id=self.chunk_id,
            arrival=self.arrival,
            sequence=self.sequence,
            captured_at_s=self.captured_at_s,
            duration_s=self.duration_s,
            covered=self.covered,
            available=self.spool_name is not None,
        )


@dataclass(frozen=True)
class NewChunk:
    """A chunk about to be accepted; its audio is in the spool already."""

    conversation_id: str
    chunk_id: str
    sha256: str
    bytes: int
    spool_name: str
    encoding: str
    sequence: int | None = None
    captured_at_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class SpeakerHints:
    """What a publisher says about the number of speakers; None where it says nothing."""

    num: int | None = None
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True)
class ConversationRecord:
    """A conversation as the ledger knows it."""

    conversation_id: str
    state: ConversationState
    since_at: float
    started_at_s: float | None
    min_speakers: int | None
    max_speakers: int | None
    num_speakers: int | None
    completed: bool
    completed_chunks: int | None
    last_audio_at_s: float | None
    voices: Any
    dirty: int
    """How often something changed since the last assignment."""
    write_key: str | None
    updated_version: int
    applied_version: int
    updated_payload: bytes | None
    final_at: float | None
    embedding: tuple[str, str] | None = field(kw_only=True)


@dataclass(frozen=True)
class OpenEnd:
    """A completed conversation that has all its results: what decides whether it is final."""

    conversation_id: str
    chunks: int
    completed_chunks: int | None
    last_audio_at_s: float | None
    audio_until_s: float | None
    """Unix time up to which audio has come, where captured_at tells."""


@dataclass(frozen=True)
class LeaseRecord:
    """A lease on a job. `may_return`: it was lost, not ended, and its agent may have it back.

    `is_current`: the job is leased, and by this.
    """

    lease_id: str
    job_id: str
    conversation_id: str
    agent_id: str
    instance_id: str
    audio_s: float
    ended_reason: str | None = None
    may_return: bool = False
    is_current: bool = False


@dataclass(frozen=True)
class JobRecord:
    """A job and, where it is leased, who holds it."""

    number: int
    job_id: str
    conversation_id: str
    state: JobState
    audio_s: float
    attempts: int
    deaths: int
    lease_id: str | None
    failure_code: str | None
    failure_message: str | None
    created_at: float
    ended_at: float | None
    agent_id: str | None = None


@dataclass(frozen=True)
class FailedJob:
    """A failed job as an operator needs it."""

    job: JobRecord
    last_agent_id: str | None
    has_audio: bool
    """Whether all its audio is still kept, so that it can be tried again."""


@dataclass(frozen=True)
class JobChunk:
    """A chunk of a job and where the job wants it (None: right after the one before)."""

    chunk: ChunkRecord
    start_s: float | None
    fresh: bool


@dataclass(frozen=True)
class StoredResult:
    """A job's result as it came."""

    job_id: str
    number: int
    payload: bytes


@dataclass(frozen=True)
class Deleted:
    """What a deletion left to do outside the ledger."""

    spool_names: tuple[str, ...]
    leases: tuple[LeaseRecord, ...]


@dataclass(frozen=True)
class AgentRecord:
    """An agent on the books. `heartbeat` is the last one seen, as JSON."""

    agent_id: str
    allowed: bool
    first_seen_at: float
    last_seen_at: float | None
    heartbeat: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class QueueCounts:
    """How much waits."""

    chunks_waiting: int
    jobs_ready: int
    jobs_leased: int
    jobs_failed: int
    bytes: int
    oldest_at: float | None
