from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AlignmentRules:
    """When the clock of the audio is believed."""

    max_shift_s: float = 30.0
