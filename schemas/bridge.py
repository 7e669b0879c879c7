"""The bridge's heartbeat: whether it accepts audio, and how much work waits."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.heartbeat import Heartbeat
from schemas.record import VERSION_PATTERN, ByName, ByteCount, Count, Id, Name, Record, Seconds, Text

Agents = Annotated[tuple[Id, ...], Field(max_length=100, fail_fast=True)]


class BridgeState(StrEnum):
    """The state of the bridge: `offline` is what its will says, `stopped` what it says itself."""

    ONLINE = "online"
    STOPPED = "stopped"
    OFFLINE = "offline"


class QueueState(Record):
    """How much work there is, and the age of the oldest."""

    chunks_waiting: Count = 0
    jobs_ready: Count = 0
    jobs_leased: Count = 0
    jobs_failed: Count = 0
    conversations_failed: Count = Field(default=0, description="Their labels could not be worked out.")
    bytes: ByteCount = 0
    oldest_s: Seconds = 0.0
    chunks_refused: Count = Field(
        default=0, description="In the last 7 days, of the latest 1,000: `omi-bridge failed`."
    )


class WebhookState(Record):
    """What the webhook's receiver has not confirmed yet."""

    waiting: Count = 0
    oldest_s: Seconds = Field(default=0.0, description="The age of the oldest.")
    last_error: Text | None = Field(default=None, description="Of what waits, why it was not taken the last time.")


class BridgeHeartbeat(Heartbeat):
    """The state of the bridge and its queue; retained, and used as its will (bridge -> everyone)."""

    SCHEMA: ClassVar[str] = "bridge-heartbeat"

    # 1.1: `agents_live_ids`, for backends, which may not read the agents' own heartbeats. 1.2: `webhook`.
    version: str = Field(default="1.2", pattern=VERSION_PATTERN, description="major.minor of the schema.")
    bridge_id: Id
    ledger_id: Id
    state: BridgeState
    accepting: bool = Field(default=True, description="False: the queue is full, keep your audio.")
    agents_live: Count = Field(default=0, description="Live and on the allow-list.")
    agents_live_ids: Agents = Field(default=(), description="Their ids, the first hundred. Since 1.1.")
    agents_waiting: Agents = Field(
        default=(), description="Live, but nobody has allowed them yet: `omi-bridge agents allow ID`."
    )
    queue: QueueState = QueueState()
    messages_dropped: Count = Field(
        default=0, description="Since the start: too many of one sender, or of agents that are not allowed."
    )
    webhook: WebhookState | None = Field(default=None, description="Absent where there is none. Since 1.2.")
    last_error: Text | None = None
    versions: ByName[Name] = {}
