"""When jobs were offered to their agents, until a beat lists them. Times are monotonic seconds."""

from __future__ import annotations

import math
from collections.abc import Collection

ON_ITS_WAY_S = 1.0  # how long an offer or a `settled` may be on its way to an agent before it is sent again


class OfferTimes:
    """For each lease, when its job was offered first and last."""

    def __init__(self) -> None:
        """Start with none."""
        self._first_s: dict[str, float] = {}
        self._last_s: dict[str, float] = {}

    def note(self, lease_id: str, now_s: float) -> None:
        """Note that a lease's job is offered now."""
        self._first_s.setdefault(lease_id, now_s)
        self._last_s[lease_id] = now_s

    def forget(self, lease_id: str) -> None:
        """Forget a lease's offers: its agent has taken the job."""
        self._first_s.pop(lease_id, None)
        self._last_s.pop(lease_id, None)

    def keep_only(self, lease_ids: Collection[str]) -> None:
        """Forget all other leases."""
        for lease_id in self._first_s.keys() - set(lease_ids):
            self.forget(lease_id)

    def is_on_its_way(self, lease_id: str, now_s: float) -> bool:
        """Whether the last offer may not have arrived yet."""
        return now_s - self._last_s.get(lease_id, -math.inf) < ON_ITS_WAY_S

    def untaken_s(self, lease_id: str, now_s: float) -> float:
        """Return how long ago a job was first offered that no beat has listed since; 0 where one has."""
        return now_s - self._first_s.get(lease_id, now_s)
