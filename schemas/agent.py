"""Messages between an agent and the bridge: offers, requests for audio, settlements, and the agent's heartbeat."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from schemas.audio import Channels, Encoding, SampleRate
from schemas.conversation import Verdict
from schemas.heartbeat import Heartbeat
from schemas.record import (
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
    SpeakerCount,
    Text,
    Timestamp,
)
from schemas.turns import EngineDescription

MAX_JOB_CHUNKS = 5_000


class ByteRange(Record):
    """Bytes `start` (inclusive) to `end` (exclusive) of a chunk."""

    start: ByteCount
    end: ByteCount

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end <= self.start:
            msg = "a byte range needs an end past its start"
            raise ValueError(msg)
        return self


MAX_WANT_PARTS = 64
"""Parts asked for in one message, and sent in answer to it."""


class AgentWant(Message):
    """Asks for the audio of a leased job that an agent does not have yet (agent -> bridge)."""

    SCHEMA: ClassVar[str] = "agent-want"

    job_id: Id
    lease_id: Id
    chunk_id: Id
    ranges: Annotated[tuple[ByteRange, ...], Field(min_length=1, max_length=MAX_WANT_PARTS, fail_fast=True)]


class ControlType(StrEnum):
    """What a message from the bridge to an agent asks for or reports."""

    OFFER = "offer"
    SETTLED = "settled"
    CANCEL = "cancel"
    DRAIN = "drain"
    PING = "ping"


class OfferedChunk(Record):
    """A chunk of an offered job, and its place in the job."""

    chunk_id: Id
    bytes: ByteCount
    sha256: Sha256
    encoding: Encoding
    sample_rate: SampleRate | None = None
    channels: Channels | None = None
    start_s: Seconds | None = Field(default=None, description="In the job; null: right after the chunk before.")
    captured_at: Timestamp | None = Field(
        default=None,
        description="For other readers: our agents need only start_s, the bridge places audio.",
    )


class AgentControl(Message):
    """A message from the bridge to one agent: an offer, a settlement, a cancellation, a request to drain, or a ping."""

    SCHEMA: ClassVar[str] = "agent-control"

    type: ControlType
    ledger_id: Id
    job_id: Id | None = None
    lease_id: Id | None = None
    conversation_id: Id | None = None
    attempt: Count = 0
    expected_s: Seconds = Field(
        default=0.0, description="How long the bridge expects the work to take; the lease's limit follows from it."
    )
    max_speakers: SpeakerCount | None = None
    chunks: Annotated[tuple[OfferedChunk, ...], Field(max_length=MAX_JOB_CHUNKS, fail_fast=True)] = ()
    verdict: Verdict | None = Field(default=None, description="settled: what became of the result.")
    reason: Name | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type in (ControlType.OFFER, ControlType.SETTLED, ControlType.CANCEL) and self.job_id is None:
            msg = f"`{self.type}` needs job_id"
            raise ValueError(msg)
        if self.type is ControlType.OFFER and not (self.lease_id and self.conversation_id and self.chunks):
            msg = "an offer needs lease_id, conversation_id and chunks"
            raise ValueError(msg)
        if self.type is ControlType.SETTLED and self.verdict is None:
            msg = "`settled` needs a verdict"
            raise ValueError(msg)
        return self


class AgentState(StrEnum):
    """The state of an agent: `offline` is what the will says of a broken connection, `stopped` the agent itself."""

    STARTING = "starting"
    ONLINE = "online"
    DRAINING = "draining"
    STOPPED = "stopped"
    OFFLINE = "offline"


UP_STATES = frozenset({AgentState.STARTING, AgentState.ONLINE, AgentState.DRAINING})
"""What an agent says of itself as long as its process runs."""


class HeldJobState(StrEnum):
    """How far a job is on the agent."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    RUNNING = "running"
    OUTBOX = "outbox"


class HeldJob(Record):
    """A job an agent holds."""

    job_id: Id
    lease_id: Id
    state: HeldJobState
    progress: Ratio = 0.0


class MemoryUse(Record):
    """Bytes in use: resident memory of agent and worker, and memory of the device."""

    agent_rss_bytes: ByteCount = 0
    worker_rss_bytes: ByteCount = 0
    device_bytes: ByteCount = 0


class AgentHeartbeat(Heartbeat):
    """The state of an agent and the jobs it holds; retained, and used as its will (agent -> bridge, `watch`)."""

    SCHEMA: ClassVar[str] = "agent-heartbeat"

    agent_id: Id
    state: AgentState
    engine: EngineDescription | None = None
    jobs: Annotated[tuple[HeldJob, ...], Field(max_length=100, fail_fast=True)] = ()
    free_capacity: Count = 0
    speed_x_real_time: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    memory: MemoryUse = MemoryUse()
    jobs_done: Count = 0
    jobs_failed: Count = 0
    last_error: Text | None = None
    versions: ByName[Name] = {}
    notes: ByName[Name] = Field(
        default={}, description="What an operator may wonder about, by name: why this engine, why this mode, …"
    )
