"""What the ledger returns: frozen records, since changes are made only by its own methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vps_bridge.ledger.job_states import JobEvent, JobState
from vps_bridge.rules.assemble import ChunkInfo
from vps_bridge.rules.completion import CompletionFacts
from vps_bridge.rules.lease import LeaseEnd

TYPICAL_BYTES_PER_S = 8_000.0
"""64 kbit/s: for audio whose length nothing tells."""


class ConversationState(StrEnum):
    """States of a conversation, worked out when they are shown; `deleted` is a tombstone instead of a row."""

    WAITING = "waiting"
    DIRTY = "dirty"
    ASSIGNED = "assigned"
    FINAL = "final"
    FAILED = "failed"


LIVE = "omi-live-"
"""The ids of conversations that show OMI's live segments begin so, and with when they began."""


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
    """None only of chunks that an earlier version accepted."""
    duration_estimated: bool
    captured_error_s: float
    sha256: str
    bytes: int
    spool_name: str | None
    accepted_at: float
    covered: bool

    @property
    def info(self) -> ChunkInfo:
        """What assembling and relabelling need of it; its length as decoded, else as measured or estimated."""
        unknown_s = self.bytes / TYPICAL_BYTES_PER_S
        return ChunkInfo(
            chunk_id=self.chunk_id,
            arrival=self.arrival,
            sequence=self.sequence,
            captured_at_s=self.captured_at_s,
            captured_error_s=self.captured_error_s,
            duration_s=unknown_s if self.duration_s is None else self.duration_s,
            is_estimated=self.duration_estimated or self.duration_s is None,
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
    duration_estimated: bool = False
    captured_error_s: float = 0.0


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
    last_activity_at: float
    """When an event, audio, a result, a retry or an undo came last."""
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
    label_tries: int = 0
    """Attempts at its labels that came to nothing, in a row, with the one under way."""
    set_aside: str | None = None
    """Why nothing works out its labels any more: they could not be, several times."""
    owner: str | None = None
    """Whose it is, as its `started` event says; None where no event says."""
    enrols: str | None = None
    """The person whose voice it is to teach; nothing of it is kept."""
    started_revision: int = -1
    """Of its latest `started` event; -1: none has come."""
    stripped: bool = False
    """Of an enrolment: its outcome is told, and its audio and results are thrown away."""
    packed_at: float | None = None
    """Since when its rows are packed (Unix time); None where they are not."""
    embedding: tuple[str, str] | None = field(kw_only=True)


FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class CorrectionRecord:
    """A `corrected` event as it is kept."""

    write: int
    """Its number in the conversation's history."""
    event_id: str
    said: Any
    """The corrections, as JSON; those about a person who was forgotten since have the member `FORGOTTEN`."""
    anchors: Any
    """What it was about when it was said, as JSON: `vps_bridge.labelling.corrections`."""
    voices_before: Any
    """The published voices before it came into force; where it is not in force, those before it went."""
    in_force: bool = True
    """False while it is undone."""
    teaches: bool = True
    """False where all whom it names were forgotten since."""

    @property
    def teaching(self) -> tuple[bool, ...]:
        """Of each of the corrections, whether it may make a voiceprint: not where its person was forgotten since."""
        return tuple(self.teaches and FORGOTTEN not in one for one in self.said)


@dataclass(frozen=True)
class LeaseRecord:
    """A lease on a job."""

    lease_id: str
    job_id: str
    conversation_id: str
    agent_id: str
    instance_id: str
    audio_s: float
    lease_end: LeaseEnd | None = None
    """Why it ended; None while it runs, and where a result came before it ended."""
    is_current: bool = False
    """The job is leased, and by this lease."""
    attempts: int = 0
    """At the job so far."""
    max_speakers: int | None = None
    """At most so many speakers are in the conversation, as its backend says."""


@dataclass(frozen=True)
class JobRecord:
    """A job and, where it is leased, who holds it."""

    number: int
    job_id: str
    conversation_id: str
    state: JobState
    audio_s: float
    audio_estimated: bool
    attempts: int
    deaths: int
    lease_id: str | None
    failure_code: str | None
    failure_message: str | None
    created_at: float
    ended_at: float | None
    agent_id: str | None = None


@dataclass(frozen=True)
class JobEventRecord:
    """Something that happened to a job."""

    at: float
    """Unix time: for people only."""
    event: JobEvent
    by: str
    """The agent's id, `bridge` or `operator`."""
    lease_id: str | None
    detail: str | None
    """A failure code, or why a lease ended."""
    message: str | None
    """What a failure said, in words."""


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
class KeptResult:
    """A result was kept that was not before."""

    apart: tuple[str, ...]
    """The ids of the jobs that were made, one each, of the chunks that could not be decoded."""


@dataclass(frozen=True)
class Deleted:
    """What a deletion left to do outside the ledger."""

    spool_names: tuple[str, ...]
    leases: tuple[LeaseRecord, ...]
    finished: bool = False
    """Whether that was done: nothing is left but the tombstone."""


@dataclass(frozen=True)
class AgentRecord:
    """An agent. `heartbeat` is its latest one, as JSON."""

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
    conversations_failed: int
    bytes: int
    oldest_at: float | None
    chunks_refused: int = 0
    """Of those that are remembered."""


def describe_completion(conversation: ConversationRecord, chunks: Sequence[ChunkRecord]) -> CompletionFacts:
    """Return what decides about a conversation's end."""
    ends_s = [chunk.captured_at_s + (chunk.duration_s or 0.0) for chunk in chunks if chunk.captured_at_s is not None]
    return CompletionFacts(
        conversation_id=conversation.conversation_id,
        chunks=len(chunks),
        completed_chunks=conversation.completed_chunks,
        last_audio_at_s=conversation.last_audio_at_s,
        audio_until_s=max(ends_s, default=None),
    )
