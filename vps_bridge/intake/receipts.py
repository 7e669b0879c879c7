"""What publishers are told of what they sent: receipts, and refusals with the failure that operators see."""

from __future__ import annotations

import structlog

from schemas.conversation import Accepted, Verdict
from schemas.failure import FailureCode, JobFailure
from schemas.topics import Topics
from vps_bridge.errors import Refusal
from vps_bridge.publisher import Publisher

_LOG = structlog.get_logger(__name__)
AFTER_END = "it came after the end of its conversation, which is open again: mark the last chunk `final`, and no other"


class Receipts:
    """Makes receipts, sends them, and returns them for doors that answer by themselves."""

    def __init__(self, topics: Topics, publisher: Publisher, bridge_id: str) -> None:
        """Send on these topics; failures under the bridge's own id."""
        self._topics, self._publisher, self._bridge_id = topics, publisher, bridge_id

    def send_chunk(
        self,
        conversation_id: str,
        chunk_id: str,
        *,
        sha256: str,
        size_bytes: int,
        verdict: Verdict,
        reason: FailureCode | None = None,
        is_late: bool = False,
    ) -> Accepted:
        """Send the receipt of a chunk; `is_late`: it came after the end of its conversation."""
        if is_late:
            _LOG.warning("audio_after_end", conversation=conversation_id, chunk=chunk_id, remedy=AFTER_END)
        receipt = Accepted(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            sha256=sha256,
            bytes=size_bytes,
            verdict=verdict,
            reason=reason,
            message=AFTER_END if is_late else None,
        )
        self._publisher.send(self._topics.accepted(conversation_id), receipt)
        return receipt

    def send_event(self, conversation_id: str, event_id: str, verdict: Verdict, reason: str | None = None) -> Accepted:
        """Send the receipt of an event."""
        receipt = Accepted(conversation_id=conversation_id, event_id=event_id, verdict=verdict, reason=reason)
        self._publisher.send(self._topics.accepted(conversation_id), receipt)
        return receipt

    def send_refusal(
        self,
        conversation_id: str,
        refusal: Refusal,
        *,
        sha256: str,
        chunk_id: str | None = None,
        event_id: str | None = None,
    ) -> Accepted:
        """Send a refusing receipt to the publisher, and a failure under the bridge's own id for operators."""
        _LOG.warning("refused", conversation=conversation_id, chunk=chunk_id, code=refusal.code, error=refusal.message)
        receipt = Accepted(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            event_id=event_id,
            sha256=sha256,
            verdict=Verdict.REFUSED,
            reason=refusal.code,
            message=refusal.message,
        )
        failure = JobFailure(
            conversation_id=conversation_id,
            chunk_id=chunk_id,
            event_id=event_id,
            sha256=sha256,
            code=refusal.code,
            retryable=refusal.is_retryable,
            message=refusal.message,
        )
        self._publisher.send(self._topics.accepted(conversation_id), receipt)
        self._publisher.send(self._topics.failure(conversation_id, self._bridge_id), failure)
        return receipt
