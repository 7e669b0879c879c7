"""The desk: who speaks when in this file? A conversation is made for each question and deleted with its answer.

Runs on the bridge's own thread. The way of the audio is the same as any other's: chunk, job, lease, turns, linking.
"""

from __future__ import annotations

import secrets
from concurrent.futures import Future
from typing import Protocol

import structlog

from schemas.agent import AgentHeartbeat
from schemas.audio import ChunkDescription
from schemas.codec import decode, encode
from schemas.conversation import Accepted, ConversationEvent, ConversationTurn, ConversationUpdated, EventType, Verdict
from schemas.failure import FailureCode
from vps_bridge.errors import Refusal
from vps_bridge.intake.ingest import Taken
from vps_bridge.intake.upload import Upload
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import JobState
from vps_bridge.mailbox import BridgeBusy

_LOG = structlog.get_logger(__name__)
Turns = tuple[ConversationTurn, ...]


class NoAgent(Exception):
    """Nobody is there to diarize."""


class Intake(Protocol):
    """How audio and events enter the bridge, whichever door they take. For the bridge's own thread only."""

    def check_room(self, size_bytes: int) -> None:
        """Raise `Refusal` where so much more audio would be too much."""
        ...

    def take_upload(
        self, conversation_id: str, told: ChunkDescription, upload: Upload, sha256: str | None = None
    ) -> Taken:
        """Take a chunk that has streamed in; `sha256` is what the publisher says it has."""
        ...

    def take_event(self, conversation_id: str, data: bytes) -> Accepted | None:
        """Take an event with all that follows from it, and return its receipt."""
        ...

    def live_agents(self) -> list[AgentHeartbeat]:
        """Return the last beats of the agents that are live and allowed."""
        ...


class OneOffRequests:
    """The questions that wait for an answer."""

    def __init__(self, intake: Intake, ledger: Ledger) -> None:
        """Begin with no question; `clear` ends those of an earlier run."""
        self._intake, self._ledger = intake, ledger
        self._waiting: dict[str, Future[Turns]] = {}

    def check_agent(self) -> None:
        """Raise `NoAgent` where a question cannot be answered now."""
        if not self._intake.live_agents():
            msg = "no agent is live and allowed: start `omi-agent run`, then `omi-bridge agents allow ID`"
            raise NoAgent(msg)

    def ask(self, conversation_id: str, told: ChunkDescription, upload: Upload) -> Future[Turns]:
        """Take a question into a conversation of its own; the answer is set once that conversation is deleted.

        Raises `NoAgent` or `Refusal`; a `Refusal` may be set as the answer too.
        """
        self.check_agent()
        answer = self._waiting[conversation_id] = Future[Turns]()
        answer.set_running_or_notify_cancel()  # from here on nobody but this thread ends it
        self._ledger.conversations.open_throwaway(conversation_id)
        receipt = self._intake.take_upload(conversation_id, told, upload).receipt
        if receipt is None or receipt.verdict is not Verdict.ACCEPTED:
            self.drop(conversation_id)
            code = FailureCode(receipt.reason) if receipt and receipt.reason else FailureCode.PAYLOAD_INCOMPLETE
            raise Refusal(code, (receipt.message if receipt else None) or "the audio was not accepted: send it again")
        self._tell(conversation_id, EventType.COMPLETED, chunks=1)
        return answer

    def look(self, conversation_id: str) -> None:
        """Answer a question whose conversation has become final; any other conversation is none of ours."""
        if conversation_id not in self._waiting:
            return
        record = self._ledger.conversations.get(conversation_id)
        if record is None or record.final_at is None or record.updated_payload is None:
            return
        refusal = self._why_failed(conversation_id)
        turns = decode(ConversationUpdated, record.updated_payload).turns
        answer = self._waiting.pop(conversation_id)
        self._delete(conversation_id)
        if refusal is None and turns is None:
            msg = "more turns than an answer holds: send such audio to /v1/conversations/{id}/audio"
            refusal = Refusal(FailureCode.AUDIO_TOO_LONG, msg)
        if refusal is not None:
            answer.set_exception(refusal)
        else:
            answer.set_result(turns or ())

    def note_deleted(self, conversation_id: str) -> None:
        """Tell who waits that the conversation is gone, whoever deleted it."""
        answer = self._waiting.pop(conversation_id, None)
        if answer is not None:
            msg = "the conversation of this question was deleted before it was answered: ask again"
            answer.set_exception(Refusal(FailureCode.CONVERSATION_DELETED, msg))

    def drop(self, conversation_id: str) -> None:
        """Nobody waits for this answer any more; an answered or unknown question is no error."""
        if self._waiting.pop(conversation_id, None) is not None:
            self._delete(conversation_id)

    def clear(self) -> None:
        """Delete every conversation of a question, also of an earlier run; whoever waits learns that it is over."""
        for answer in self._waiting.values():
            answer.set_exception(BridgeBusy("the bridge is stopping"))
        self._waiting.clear()
        for conversation_id in self._ledger.conversations.throwaways():
            self._delete(conversation_id)

    def _why_failed(self, conversation_id: str) -> Refusal | None:
        for job in self._ledger.jobs.all(conversation_id=conversation_id, states=(JobState.FAILED, JobState.CANCELLED)):
            code = job.failure_code if job.failure_code in set(FailureCode) else FailureCode.ENGINE_FAILED
            return Refusal(FailureCode(code), job.failure_message or "the job failed: see the agent's log")
        return None

    def _delete(self, conversation_id: str) -> None:
        self._tell(conversation_id, EventType.DELETED)

    def _tell(self, conversation_id: str, kind: EventType, *, chunks: int | None = None) -> None:
        event = ConversationEvent(event_id=f"e-{secrets.token_hex(12)}", type=kind, chunks=chunks)
        self._intake.take_event(conversation_id, encode(event))
