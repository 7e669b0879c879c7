"""Local speakers: who speaks in one job, as its engine names them. Without numpy: commands read these too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class LocalSpeaker:
    """A local speaker: a speaker's label within one job. In another job the same person has another label."""

    job_id: str
    speaker: str
