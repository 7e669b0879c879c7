"""A job that waits in a ledger, without a bridge or audio."""

from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.rules.assemble import JobPlan, PlannedChunk


def add_waiting_job(ledger: Ledger, conversation_id: str, chunk_id: str, *, audio_s: float, final: bool) -> None:
    """Accept one chunk, and make it a job of its own."""
    new = NewChunk(
        conversation_id=conversation_id,
        chunk_id=chunk_id,
        sha256="0" * 64,
        bytes=1_000,
        spool_name=f"s-{chunk_id}",
        encoding="wav",
        duration_s=audio_s,
    )
    ledger.chunks.accept(new, SpeakerHints(), final=final)
    ledger.jobs.add(conversation_id, (JobPlan((PlannedChunk(chunk_id, None),), (chunk_id,)),))
