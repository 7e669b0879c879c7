"""What the ways into the bridge (MQTT, HTTP) need of it: taking audio and events in."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from schemas.agent import AgentHeartbeat
from schemas.audio import ChunkDescription
from schemas.conversation import Accepted
from vps_bridge.errors import Refusal
from vps_bridge.intake.counts import BridgeCounts
from vps_bridge.intake.history import ConversationHistory
from vps_bridge.intake.person_events import PersonEvents
from vps_bridge.intake.taken import Taken
from vps_bridge.intake.upload import ArrivedFile
from vps_bridge.ledger.records import ChunkRecord


class Intake(Protocol):
    """Takes in what has arrived over HTTP, with everything that follows from it. For the bridge's own thread only."""

    @property
    def people(self) -> PersonEvents:
        """What takes events about people, and tells who is known."""
        ...

    @property
    def counts(self) -> BridgeCounts:
        """What was counted since the start. This may be read from any thread."""
        ...

    def check_room(self, size_bytes: int) -> None:
        """Raise `Refusal` where the bridge has no room for this much more audio."""
        ...

    def take_upload(
        self, conversation_id: str, description: ChunkDescription, upload: ArrivedFile, sha256: str | None = None
    ) -> Taken:
        """Take an uploaded chunk; `sha256` is the hash its publisher states, if it states one.

        Where audio is kept in a bucket, the outcome comes later, and the file has to stay until then.
        """
        ...

    def audio_file(self, chunk: ChunkRecord) -> Path:
        """Return an accepted chunk's file, and wait for it where it has to come. For any thread but the bridge's own.

        Raises `FileNotFoundError` where it is gone, and `StoreUnavailable` where it cannot be had now.
        """
        ...

    def note_refused(self, conversation_id: str, chunk_id: str | None, refusal: Refusal, size_bytes: int) -> None:
        """Note audio that was refused before it was read: an operator shall find it."""
        ...

    def take_event(self, conversation_id: str, data: bytes) -> Accepted | None:
        """Take an event with all that follows from it, and return its receipt."""
        ...

    def read_history(self, conversation_id: str) -> ConversationHistory | None:
        """Return every change of a conversation's labels; None where it was never heard of or is deleted."""
        ...

    def live_agents(self) -> list[AgentHeartbeat]:
        """Return the latest heartbeats of the agents that are live and allowed."""
        ...
