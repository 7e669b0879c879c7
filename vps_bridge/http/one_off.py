"""One-off requests: `POST /api/diarize` makes a temporary conversation per request and deletes it with the answer.

Runs on the bridge's own thread. The audio is handled like any other: chunk, job, lease, turns, linking.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from schemas.audio import ChunkDescription
from schemas.codec import decode, encode
from schemas.conversation import ConversationEvent, ConversationTurn, ConversationUpdated, EventType, Verdict
from schemas.failure import FailureCode
from vps_bridge.errors import NoAgent, Refusal
from vps_bridge.intake.intake import Intake
from vps_bridge.intake.taken import Taken
from vps_bridge.intake.upload import Upload
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState
from vps_bridge.mailbox import BridgeBusy

Turns = tuple[ConversationTurn, ...]


class StartedRequest(NamedTuple):
    """A request whose file is here."""

    answer: Future[Turns]
    later: Future[Taken] | None
    """Where the file is on its way into a bucket: what becomes of it, to be handed to `go_on`."""


class OneOffRequests:
    """The requests that wait for their answer, by the id of their temporary conversation."""

    def __init__(self, intake: Intake, ledger: Ledger, *, is_alone: Callable[[], bool] = lambda: True) -> None:
        """Start with none; `end_all` deletes the conversations that an earlier run left.

        `is_alone`: whether no other bridge runs on the ledger, whose requests would be among them.
        """
        self._intake, self._ledger, self._is_alone = intake, ledger, is_alone
        self._waiting: dict[str, Future[Turns]] = {}

    def check_agent(self) -> None:
        """Raise `NoAgent` where no agent could do the work now."""
        if not self._intake.live_agents():
            msg = "no agent is live and allowed: start `omi-agent run`, then `omi-bridge agents allow ID`"
            raise NoAgent(msg)

    def start(self, conversation_id: str, description: ChunkDescription, upload: Upload) -> StartedRequest:
        """Make a temporary conversation of a file; the answer is set once that conversation is deleted again.

        Raises `NoAgent` or `Refusal`; a `Refusal` may also be set as the answer.
        """
        self.check_agent()
        answer = self._waiting[conversation_id] = Future[Turns]()
        answer.set_running_or_notify_cancel()  # the waiting thread cannot cancel it any more: only this one ends it
        self._ledger.conversations.open_temporary(conversation_id)
        taken = self._intake.take_upload(conversation_id, description, upload)
        if taken.later is None:
            self.go_on(conversation_id, taken)
        return StartedRequest(answer, taken.later)

    def go_on(self, conversation_id: str, taken: Taken) -> None:
        """Have a request's conversation diarized, now that it is known whether its file was taken. Raises `Refusal`."""
        receipt = taken.receipt
        if receipt is None or receipt.verdict is not Verdict.ACCEPTED:
            self.abandon(conversation_id)
            code = FailureCode(receipt.reason) if receipt and receipt.reason else FailureCode.PAYLOAD_INCOMPLETE
            raise Refusal(code, (receipt.message if receipt else None) or "the audio was not accepted: send it again")
        self._send_event(conversation_id, EventType.COMPLETED, chunks=1)

    def answer_if_final(self, conversation_id: str) -> None:
        """Answer a request whose conversation has become final; ignore conversations that are not temporary."""
        if conversation_id not in self._waiting:
            return
        record = self._ledger.conversations.get(conversation_id)
        if record is None or record.final_at is None or record.updated_payload is None:
            return
        refusal = self._find_failure(conversation_id)
        turns = decode(ConversationUpdated, record.updated_payload).turns
        answer = self._waiting.pop(conversation_id)
        try:
            self._delete(conversation_id)
        except BaseException:
            self._waiting[conversation_id] = answer  # at the next look
            raise
        if refusal is None and turns is None:
            msg = "more turns than an answer holds: send such audio to /v1/conversations/{id}/audio"
            refusal = Refusal(FailureCode.AUDIO_TOO_LONG, msg)
        if refusal is not None:
            answer.set_exception(refusal)
        else:
            answer.set_result(turns or ())

    def note_deleted(self, conversation_id: str) -> None:
        """Refuse the request whose conversation was deleted by somebody else, if it waits."""
        answer = self._waiting.pop(conversation_id, None)
        if answer is not None:
            msg = "the conversation of this request was deleted before it was answered: ask again"
            answer.set_exception(Refusal(FailureCode.CONVERSATION_DELETED, msg))

    def fail(self, conversation_id: str, reason: str) -> None:
        """Refuse the request whose conversation has failed, if it waits."""
        answer = self._waiting.pop(conversation_id, None)
        if answer is not None:
            answer.set_exception(Refusal(FailureCode.LABELS_FAILED, f"no labels could be worked out: {reason}"))
            self._delete(conversation_id)

    def abandon(self, conversation_id: str) -> None:
        """Delete a request's conversation unanswered; one that is answered or unknown is no error."""
        if self._waiting.pop(conversation_id, None) is not None:
            self._delete(conversation_id)

    def end_all(self) -> None:
        """Fail every request that waits, and delete all temporary conversations, also those of an earlier run.

        Where other bridges run, only our own: what is left of those that died is deleted when it is old.
        """
        names = list(self._waiting)
        for answer in self._waiting.values():
            answer.set_exception(BridgeBusy("the bridge is stopping"))
        self._waiting.clear()
        for conversation_id in self._ledger.conversations.temporary() if self._is_alone() else names:
            self._delete(conversation_id)

    def look(self) -> None:
        """Answer the requests whose conversations another bridge has ended, or this one while the ledger was away."""
        for conversation_id in tuple(self._waiting):
            record = self._ledger.conversations.peek(conversation_id)
            if record is None:
                self.note_deleted(conversation_id)
            elif record.set_aside is not None:
                self.fail(conversation_id, record.set_aside)
            else:
                self.answer_if_final(conversation_id)

    def _find_failure(self, conversation_id: str) -> Refusal | None:
        for job in self._ledger.jobs.all(conversation_id=conversation_id, states=(JobState.FAILED, JobState.CANCELLED)):
            code = job.failure_code if job.failure_code in set(FailureCode) else FailureCode.ENGINE_FAILED
            return Refusal(FailureCode(code), job.failure_message or "the job failed: see the agent's log")
        return None

    def _delete(self, conversation_id: str) -> None:
        self._send_event(conversation_id, EventType.DELETED)

    def _send_event(self, conversation_id: str, kind: EventType, *, chunks: int | None = None) -> None:
        event = ConversationEvent(event_id=f"e-{secrets.token_hex(12)}", type=kind, chunks=chunks)
        self._intake.take_event(conversation_id, encode(event))
