"""The offer of a job to the agent that has its lease."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.agent import MAX_JOB_CHUNKS, AgentControl, ControlType, OfferedChunk
from schemas.failure import FailureCode
from vps_bridge.errors import Refusal
from vps_bridge.ledger.records import JobChunk, LeaseRecord
from vps_bridge.moments import to_moment

AUDIO_GONE = "the audio was unlinked before it was diarized: publish it again under a new chunk_id"
_NO_OFFER = "its description cannot be sent to an agent: update the bridge, then `omi-bridge retry` with this job"


def make_offer(lease: LeaseRecord, chunks: Sequence[JobChunk], ledger_id: str, expected_s: float) -> AgentControl:
    """Return the offer of a lease's job.

    Raises `Refusal` where there can be none, whatever the reason: one job that cannot be offered holds up no other.
    """
    if any(item.chunk.spool_name is None for item in chunks):
        raise Refusal(FailureCode.PAYLOAD_INCOMPLETE, AUDIO_GONE)
    if len(chunks) > MAX_JOB_CHUNKS:
        words = f"{len(chunks)} chunks do not fit an offer: publish chunks of a second or longer"
        raise Refusal(FailureCode.PAYLOAD_MALFORMED, words)
    try:
        return AgentControl(
            type=ControlType.OFFER,
            ledger_id=ledger_id,
            job_id=lease.job_id,
            lease_id=lease.lease_id,
            conversation_id=lease.conversation_id,
            attempt=lease.attempts + 1,
            expected_s=expected_s,
            max_speakers=lease.max_speakers,
            chunks=tuple(_offered(item) for item in chunks),
        )
    except (ValueError, ArithmeticError) as error:
        raise Refusal(FailureCode.PAYLOAD_MALFORMED, _NO_OFFER) from error


def _offered(item: JobChunk) -> OfferedChunk:
    chunk = item.chunk
    return OfferedChunk(
        chunk_id=chunk.chunk_id,
        bytes=chunk.bytes,
        sha256=chunk.sha256,
        encoding=chunk.encoding,
        sample_rate=chunk.sample_rate,
        channels=chunk.channels,
        start_s=item.start_s,
        captured_at=None if chunk.captured_at_s is None else to_moment(chunk.captured_at_s),
    )
