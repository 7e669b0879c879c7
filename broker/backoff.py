"""How long to wait before the next attempt: pauses that double up to the longest."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Backoff:
    """The pause before the next attempt, in seconds. A value: each step returns a new one."""

    min_s: float
    max_s: float
    pause_s: float

    @classmethod
    def start(cls, min_s: float, max_s: float) -> Backoff:
        """Begin with the shortest pause."""
        return cls(min_s, max_s, min(min_s, max_s))

    def longer(self) -> Backoff:
        """Return it after one more attempt: the pause is doubled, up to the longest."""
        return replace(self, pause_s=min(2.0 * self.pause_s, self.max_s))

    def restarted(self) -> Backoff:
        """Return it with the shortest pause again: an attempt succeeded, or there is a new partner."""
        return Backoff.start(self.min_s, self.max_s)

    def jittered_s(self) -> float:
        """Return the pause less up to half of it, at random: clients that lost one broker must not return in step."""
        return random.uniform(self.pause_s / 2, self.pause_s)  # noqa: S311 - spreading load, not a secret
