"""Pauses between attempts, which double up to the longest."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Backoff:
    """The pause before the next attempt, in seconds. Immutable: each method returns a new value."""

    min_s: float
    max_s: float
    pause_s: float

    @classmethod
    def start(cls, min_s: float, max_s: float) -> Backoff:
        """Begin with the shortest pause."""
        return cls(min_s, max_s, min(min_s, max_s))

    def longer(self) -> Backoff:
        """Return the backoff after one more attempt: its pause is doubled, up to the longest."""
        return replace(self, pause_s=min(2.0 * self.pause_s, self.max_s))

    def restarted(self) -> Backoff:
        """Return the backoff with the shortest pause again, for when the reason to wait is gone."""
        return Backoff.start(self.min_s, self.max_s)

    def jittered_s(self) -> float:
        """Return half the pause to all of it, at random, so that clients of one broker do not all reconnect at once."""
        return random.uniform(self.pause_s / 2, self.pause_s)  # noqa: S311 - spreading load, not a secret
