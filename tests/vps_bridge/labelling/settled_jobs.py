"""Jobs as they are once their voice samples are kept no more."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.codec import decode, encode
from schemas.turns import EngineDescription, SpeakerTurns
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.take_apart import settle_samples


def settled(jobs: Sequence[JobEvidence]) -> tuple[JobEvidence, ...]:
    """Return the jobs after settling, through the messages that the ledger keeps; none has samples any more."""
    results = [
        SpeakerTurns(
            conversation_id="c",
            job_id=job.job_id,
            lease_id="l",
            agent_id="mac",
            engine=EngineDescription(
                name="any", embedding_model=job.embedding_model, embedding_revision=job.embedding_revision
            ),
            chunks=job.chunks,
            turns=job.turns,
            exclusive_turns=job.exclusive_turns,
            speakers=job.speakers,
            voice_samples=job.voice_samples,
        )
        for job in jobs
    ]
    kept = [decode(SpeakerTurns, encode(result)) for result in settle_samples(results)]
    assert all(result.voice_samples is None for result in kept)
    return tuple(JobEvidence.from_result(result) for result in kept)
