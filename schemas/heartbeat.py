"""What the heartbeats of bridges and agents have in common, and which of two processes under one name stops."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.record import Id, Message, Timestamp

SAME_AGE_S = 2.0  # of two that began within this long the instance ids decide: a beat takes a moment to arrive
MAX_UPTIME_S = 1e10


class Heartbeat(Message):
    """A process that is alive."""

    instance_id: Id
    sent_at: Timestamp
    started_at: Timestamp
    uptime_s: Annotated[float, Field(ge=0, le=MAX_UPTIME_S)] | None = Field(
        default=None, description="How long this instance runs, by no wall clock; ages are compared by it."
    )

    @property
    def age_s(self) -> float:
        """How long its sender had been running; of one that does not say, by the sender's own wall clock."""
        return (self.sent_at - self.started_at).total_seconds() if self.uptime_s is None else self.uptime_s


def must_yield(own_uptime_s: float, own_instance_id: str, other: Heartbeat) -> bool:
    """Say whether we stop for another running process under our name: the younger does; of equals, the greater id.

    Neither one's wall clock counts: two machines' clocks differ, and one may be set while the other runs.
    """
    if abs(other.age_s - own_uptime_s) < SAME_AGE_S:
        return own_instance_id > other.instance_id
    return other.age_s > own_uptime_s
