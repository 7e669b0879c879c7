"""Local speakers: who speaks in one job, as its engine names them. Without numpy: commands read these too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class LocalSpeaker:
    """A local speaker: a speaker's label within one job. In another job the same person has another label."""

    job_id: str
    speaker: str

    def part(self, name: str) -> LocalSpeaker:
        """Return whoever is parted off this one under a name."""
        return LocalSpeaker(self.job_id, f"{self.speaker} /{name}")

    def is_part_of(self, other: LocalSpeaker) -> bool:
        """Whether this one was parted off the other, or off a part of it."""
        return self.job_id == other.job_id and self.speaker.startswith(other.part("").speaker)
