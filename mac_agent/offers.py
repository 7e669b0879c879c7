"""What an agent does with an offer, a settlement or a cancellation, given what it holds. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from schemas.agent import HeldJobState

if TYPE_CHECKING:
    from schemas.agent import AgentControl, OfferedChunk


@dataclass(frozen=True)
class Held:
    """A job this agent holds, in whatever state."""

    lease_id: str
    ledger_id: str
    state: HeldJobState
    chunks: tuple[OfferedChunk, ...] = ()
    """Empty in the outbox, which needs them no more."""
    is_failure: bool = False
    """In the outbox: a failure rather than a result."""


class OfferAction(Enum):
    """What to do with an offer."""

    ACCEPT = auto()
    """A new job: make room and ask for its audio."""
    KEEP = auto()
    """The same offer again: go on; if audio is missing, ask at once."""
    RELEASE = auto()
    """The same job and audio under a new lease: take the lease, keep the work; if audio is missing, ask at once."""
    RESTART = auto()
    """The same job with other chunks: forget what there is and begin anew."""
    RESEND = auto()
    """It is done already: offer the result at once. A result counts under any lease."""
    IGNORE_FOREIGN = auto()
    """Another bridge offers a job that is held for a first one."""
    IGNORE_FULL = auto()
    """No room; the bridge offers again."""
    IGNORE_NOT_READY = auto()
    """Starting, draining or stopping; the bridge offers again, or elsewhere."""


def decide_offer(
    offer: AgentControl, held: Held | None, *, active_jobs: int, max_jobs: int, ready: bool
) -> OfferAction:
    """Decide on an offer.

    Args:
        offer: of type `offer`.
        held: this agent's own entry for the offered job, if any.
        active_jobs: jobs received, queued or running here.
        max_jobs: how many of these may be.
        ready: whether the engine is loaded and the agent is not draining.
    """
    if held is not None and offer.ledger_id != held.ledger_id:
        return OfferAction.IGNORE_FOREIGN
    if held is not None and not _wants_another_attempt(offer, held):
        return _decide_held(offer, held)
    if not ready:
        return OfferAction.IGNORE_NOT_READY
    if active_jobs >= max_jobs:
        return OfferAction.IGNORE_FULL
    return OfferAction.ACCEPT if held is None else OfferAction.RESTART


def _wants_another_attempt(offer: AgentControl, held: Held) -> bool:
    """Whether the job failed here and is offered anew: a failure counts only from its own lease."""
    return held.state is HeldJobState.OUTBOX and held.is_failure and offer.lease_id != held.lease_id


def _decide_held(offer: AgentControl, held: Held) -> OfferAction:
    if held.state is HeldJobState.OUTBOX:
        return OfferAction.RESEND
    if offer.chunks != held.chunks:
        return OfferAction.RESTART
    return OfferAction.KEEP if offer.lease_id == held.lease_id else OfferAction.RELEASE


def ends_job(control: AgentControl, held: Held | None) -> bool:
    """Say whether a `settled` or `cancel` is meant for what this agent holds.

    A late settlement of an earlier lease must not end the work under a newer one, and only the bridge that granted
    a lease may end it. A result in the outbox is another matter: it counts under any lease of its job.
    """
    if held is None or control.ledger_id != held.ledger_id:
        return False
    if control.lease_id is None or control.lease_id == held.lease_id:
        return True
    return held.state is HeldJobState.OUTBOX and not held.is_failure
