from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, order=True)
class LocalSpeaker:
    """A speaker as one job names it."""

    job_id: str
    speaker: str


@dataclass(frozen=True)
class SpeakerLink:
    """A person's word on two local speakers; it wins over everything measured."""

    kind: Literal["must", "cannot"]
    a: LocalSpeaker
    b: LocalSpeaker


@dataclass(frozen=True)
class LinkingRules:
    """When two local speakers are one voice."""

    min_clean_speech_s: float = 3.0
