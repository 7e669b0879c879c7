"""Audio that gave no labels, as updates and commands tell of it. Commands import this and not the labelling."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.conversation import MAX_FAILURE_CHARS, FailedAudio
from schemas.failure import policy_of
from schemas.record import MAX_DURATION_S
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.records import JobRecord


def describe_failures(jobs: Iterable[JobRecord]) -> tuple[FailedAudio, ...]:
    """Return why jobs failed, in their order; nothing of the others."""
    return tuple(
        FailedAudio(
            job_id=job.job_id,
            code=job.failure_code or "",
            message=(job.failure_message or "")[:MAX_FAILURE_CHARS],
            remedy=policy_of(job.failure_code or "").remedy.format(job=job.job_id),
            audio_s=min(job.audio_s, MAX_DURATION_S),
        )
        for job in jobs
        if job.state is JobState.FAILED
    )
