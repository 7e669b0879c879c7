from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AssignmentRules:
    """When a segment gets a label."""

    min_coverage: float = 0.5
    min_evidence_s: float = 0.25
    runner_up_share: float = 0.2
    runner_up_s: float = 1.0
