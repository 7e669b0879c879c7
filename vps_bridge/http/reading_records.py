"""What programs and the page read of conversations, jobs and agents, as records. Times `…_at` are Unix seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from schemas.conversation import ConversationTurn, FailedAudio
from schemas.voice_people import Enrolment, VoicePerson
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.operator_actions import ActionResult
from vps_bridge.ledger.records import ConversationState


class ConversationSummary(BaseModel):
    """A conversation in a list."""

    conversation_id: str
    state: ConversationState
    reason: str | None = Field(description="What it waits for, or what of it failed.")
    last_activity_at: float
    started_at: float | None = Field(description="Zero of the transcript's clock, where the backend said it.")
    speakers: int = Field(description="Voices that have a number.")
    people: list[str] = Field(description="Who people say the voices are.")
    updated_version: int


class ConversationPage(BaseModel):
    """A part of the list of conversations, the one that something happened to last first."""

    conversations: list[ConversationSummary]
    next_offset: int | None = Field(
        description="Where the list goes on, also where this part has fewer than were asked for; null at its end."
    )


class SpokenPiece(BaseModel):
    """Neighbouring words of a segment that one speaker said."""

    start_s: float
    end_s: float
    speaker_id: int | None
    text: str
    estimated: bool


class LabelledSegment(BaseModel):
    """A segment of the transcript with its label, in seconds on the transcript's clock."""

    id: str
    start_s: float
    end_s: float
    text: str
    speaker: str | None
    speaker_id: int | None
    person_id: str | None = Field(description="Its own, else that of its voice.")
    is_user: bool
    by_person: bool = Field(description="A person labelled it: nothing overwrites that.")
    coverage: float | None = Field(description="Share of the segment that the speaker covers.")
    runner_up: str | None
    left_alone: str | None = Field(description="Why the last update did not decide its label; null where it did.")
    pieces: list[SpokenPiece]


class ListedVoice(BaseModel):
    """A voice of a conversation."""

    speaker_id: int
    speaker: str
    person_id: str | None
    speech_s: float
    segments: int
    known: VoicePerson | None = Field(description="Who it is or may be, as it was compared with the owner's people.")


class ConversationDetail(BaseModel):
    """A conversation with everything that is known of who speaks in it."""

    conversation_id: str
    state: ConversationState
    reason: str | None
    last_activity_at: float
    started_at: float | None
    owner: str | None = Field(description="Whose conversation it is; null where no event named anybody.")
    updated_version: int
    write: int = Field(description="The latest write of its history.")
    audio_s: float
    voices: list[ListedVoice]
    segments: list[LabelledSegment]
    turns: list[ConversationTurn] | None = Field(description="Overlap kept; null where there were too many to keep.")
    warnings: list[str]
    failures: list[FailedAudio]
    enrolment: Enrolment | None = Field(description="What became of it, where it enrols a person.")


class ListedJob(BaseModel):
    """A job."""

    job_id: str
    conversation_id: str
    state: JobState
    audio_s: float
    audio_estimated: bool
    attempts: int
    agent_id: str | None
    progress: float | None = Field(description="From 0 to 1, as its agent's last heartbeat says.")
    failure_code: str | None
    failure_message: str | None
    created_at: float
    ended_at: float | None


class JobPage(BaseModel):
    """The latest jobs, the oldest of them first, and how many there are in each state."""

    jobs: list[ListedJob]
    counts: dict[JobState, int] = Field(description="More than 10,000 of one state are not counted.")


class ListedAgent(BaseModel):
    """An agent, as its last heartbeat describes it."""

    agent_id: str
    allowed: bool
    is_live: bool = Field(description="Heard lately, and not stopped.")
    state: str | None
    last_seen_at: float | None
    engine: str | None
    model: str | None
    device: str | None
    speed_x_real_time: float | None
    memory_bytes: int | None = Field(description="Resident memory of agent and worker.")
    device_bytes: int | None
    jobs: int
    jobs_done: int
    jobs_failed: int
    last_error: str | None


class AgentPage(BaseModel):
    """Every agent by id."""

    agents: list[ListedAgent]


class ListedFailure(BaseModel):
    """Something that failed, why, and what can be done about it."""

    kind: Literal["job", "conversation", "audio"] = Field(
        description="A job; a conversation whose labels could not be worked out; audio that was not accepted."
    )
    conversation_id: str
    job_id: str | None = None
    code: str | None = None
    message: str
    remedy: str
    agent_id: str | None = None
    attempts: int | None = None
    at: float | None = Field(description="When it failed, or last failed.")
    can_retry: bool
    can_cancel: bool


class RecentWork(BaseModel):
    """Throughput and latency lately."""

    span_s: float = Field(description="How far back this reaches: three hours, less where very much happened.")
    labelled_audio_s: float = Field(description="Audio whose labels were worked out.")
    median_latency_s: float | None = Field(
        description="From a chunk's acceptance to the update that has it; null where nothing was labelled."
    )
    slow_latency_s: float | None = Field(description="The same, of the slowest 5 % the fastest.")


class OmiStatus(BaseModel):
    """What OMI's webhooks brought since the bridge started."""

    taken: int = Field(description="POSTs that are on disk.")
    turned_away: int = Field(description="POSTs that found no room: OMI drops what they held.")
    turned_away_at: float | None = Field(description="When that was last.")
    reason: str = Field(description="Why, and what to do.")
    kept_bytes: int = Field(description="Audio that waits for its conversation, and words' times.")


class BridgeStatus(BaseModel):
    """What waits, what failed and how much room there is."""

    chunks_waiting: int
    jobs_ready: int
    jobs_leased: int
    jobs_failed: int
    conversations_failed: int
    chunks_refused: int
    audio_bytes: int = Field(description="Audio that is kept on the bridge's disk.")
    disk_free_bytes: int
    oldest_at: float | None = Field(description="Since when the oldest of what waits has waited.")
    recent: RecentWork
    omi: OmiStatus | None = Field(description="null where the listener for OMI's webhooks is off.")
    failures: list[ListedFailure] = Field(description="The latest of each kind, latest first.")


class WebhookStatus(BaseModel):
    """The webhook: whether it is on, and what its receiver has not taken yet."""

    is_on: bool = Field(description="Whether OMI_WEBHOOK_URL names a receiver.")
    waiting: int = Field(description="Messages that the receiver has not taken yet.")
    oldest_at: float | None = Field(description="Since when the oldest of them has waited.")
    last_error: str | None = Field(description="Why the one that was tried last was not taken; null where none was.")
    last_error_at: float | None = Field(description="When that was.")


class JobAction(BaseModel):
    """What became of a retry or a cancellation."""

    job_id: str | None
    conversation_id: str | None
    outcome: ActionResult
    message: str
