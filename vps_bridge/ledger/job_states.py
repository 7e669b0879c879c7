"""The states of a job and the events that change them: one table, from which the ledger makes its statements.

docs/job-states.md draws it. `open` has no row in the ledger: chunks that no job covers yet.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is."""

    READY = "ready"
    """It waits for an agent."""
    LEASED = "leased"
    """An agent works on it."""
    TURNS_STORED = "turns_stored"
    """Its result is here; the labels of its conversation are not worked out with it yet."""
    DONE = "done"
    """Its result is in the labels of its conversation."""
    FAILED = "failed"
    """Given up by the bridge; an operator may retry it, and a late result still counts."""
    CANCELLED = "cancelled"
    """Given up by an operator, for good: a late result is discarded."""


class JobEvent(StrEnum):
    """What happens to a job."""

    GRANTED = "granted"
    """An agent got a lease on it."""
    LEASE_ENDED = "lease_ended"
    """The lease ended without a result or a failure; `LeaseEnd` says why."""
    LEASE_RETURNED = "lease_returned"
    """The agent of a lost lease turned up still holding the job, and has its lease back."""
    ATTEMPT_FAILED = "attempt_failed"
    """The agent of the current lease reported a failure, or worked on the job until the lease's limit."""
    STORED = "stored"
    """A result was stored, under whichever of the job's leases."""
    LABELLED = "labelled"
    """The labels of the conversation were worked out with its result."""
    GIVEN_UP = "given_up"
    """It failed for good: too many attempts, hopeless audio, or its audio is gone."""
    RETRIED = "retried"
    """An operator lets it wait again, with all its attempts."""
    CANCELLED = "cancelled"
    """An operator gave it up."""


TRANSITIONS: dict[JobEvent, dict[JobState, JobState]] = {
    JobEvent.GRANTED: {JobState.READY: JobState.LEASED},
    JobEvent.LEASE_ENDED: {JobState.LEASED: JobState.READY},
    JobEvent.LEASE_RETURNED: {JobState.READY: JobState.LEASED},
    JobEvent.ATTEMPT_FAILED: {JobState.LEASED: JobState.READY},
    JobEvent.STORED: {
        JobState.READY: JobState.TURNS_STORED,
        JobState.LEASED: JobState.TURNS_STORED,
        JobState.FAILED: JobState.TURNS_STORED,
    },
    JobEvent.LABELLED: {JobState.TURNS_STORED: JobState.DONE},
    JobEvent.GIVEN_UP: {JobState.READY: JobState.FAILED, JobState.LEASED: JobState.FAILED},
    JobEvent.RETRIED: {JobState.FAILED: JobState.READY},
    JobEvent.CANCELLED: {
        JobState.READY: JobState.CANCELLED,
        JobState.LEASED: JobState.CANCELLED,
        JobState.FAILED: JobState.CANCELLED,
    },
}
"""event -> state before -> state after. What is not here is forbidden: the statement that makes it changes no row."""

UNFINISHED = (JobState.READY, JobState.LEASED)
"""An agent has still to work on it."""
WITH_RESULT = (JobState.TURNS_STORED, JobState.DONE)


def states_before(event: JobEvent) -> tuple[JobState, ...]:
    """Return the states in which a job may be for this to happen to it."""
    return tuple(TRANSITIONS[event])


def state_after(event: JobEvent) -> JobState:
    """Return the state in which it leaves a job: the same from wherever it came."""
    (state,) = set(TRANSITIONS[event].values())
    return state
