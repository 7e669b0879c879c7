"""The bridge's heartbeat: whether it takes audio, what waits, and why."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.record import ByName, ByteCount, Count, Id, Message, Name, Record, Seconds, Text, Timestamp


class BridgeState(StrEnum):
    """`offline` is the will; `stopped` was said in person."""

    ONLINE = "online"
    STOPPED = "stopped"
    OFFLINE = "offline"


class QueueState(Record):
    """How much work there is, and how old the oldest of it is."""

    chunks_waiting: Count = 0
    jobs_ready: Count = 0
    jobs_leased: Count = 0
    jobs_failed: Count = 0
    bytes: ByteCount = 0
    oldest_s: Seconds = 0.0


class BridgeHeartbeat(Message):
    """What the bridge is and has to do; retained, and the will (bridge -> everyone)."""

    SCHEMA: ClassVar[str] = "bridge-heartbeat"

    bridge_id: Id
    instance_id: Id
    ledger_id: Id
    state: BridgeState
    sent_at: Timestamp
    started_at: Timestamp
    accepting: bool = Field(default=True, description="False: the queue is full, keep your audio.")
    agents_live: Count = Field(default=0, description="Live and on the allow-list.")
    agents_waiting: Annotated[tuple[Id, ...], Field(max_length=100, fail_fast=True)] = Field(
        default=(), description="Live, but nobody has allowed them yet: `omi-bridge agents allow ID`."
    )
    queue: QueueState = QueueState()
    last_error: Text | None = None
    versions: ByName[Name] = {}
