"""Every state of a job with every event, the forbidden ones too: the ledger does what the table says."""

import itertools
from pathlib import Path

import pytest

from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.job_states import (
    TRANSITIONS,
    JobEvent,
    JobState,
    state_after,
    states_before,
)
from vps_bridge.ledger.operator_actions import ActionResult
from vps_bridge.rules.lease import LeaseEnd

MODEL = ("model", "1")
DRAWING = Path(__file__).resolve().parents[3] / "docs" / "job-states.md"
CELLS = list(itertools.product(JobState, JobEvent))


def grant(ledger, job_id):
    return ledger.leases.grant(job_id, "mac", "i1", MODEL)


def lose(ledger, job_id):
    lease = grant(ledger, job_id)
    ledger.leases.end(lease.lease_id, LeaseEnd.AGENT_STALE)
    return lease


def assign(ledger, job_id):
    dirty = ledger.conversations.get("c").dirty
    ledger.conversations.note_update(
        "c", AssignedUpdate([], "key", b"{}", final=False, done_jobs=(job_id,), seen=dirty)
    )


def reach(ledger, state):
    """Return a job in this state that once had a lease which its agent lost, and that lease."""
    add_waiting_job(ledger, "c", "k", audio_s=30.0, final=False)
    (job,) = ledger.jobs.of_conversation("c")
    lost = lose(ledger, job.job_id)
    if state is JobState.LEASED:
        grant(ledger, job.job_id)
    elif state in (JobState.TURNS_STORED, JobState.DONE):
        ledger.jobs.store_result(lost, b"turns")
    if state is JobState.DONE:
        assign(ledger, job.job_id)
    elif state is JobState.FAILED:
        ledger.jobs.give_up(job.job_id, "engine.crashed", "words")
    elif state is JobState.CANCELLED:
        ledger.operator_actions.cancel(job.job_id)
    assert ledger.jobs.get(job.job_id).state is state
    return job.job_id, lost


def happen(ledger, event, job_id, lost):
    """Do through the ledger what the event says; return whether the ledger says that it was done."""
    job = ledger.jobs.get(job_id)
    match event:
        case JobEvent.GRANTED:
            return grant(ledger, job_id) is not None
        case JobEvent.LEASE_ENDED:
            return ledger.leases.end(job.lease_id or lost.lease_id, LeaseEnd.AGENT_STOPPED) is not None
        case JobEvent.LEASE_RETURNED:
            return ledger.leases.give_back(lost, "i1")
        case JobEvent.ATTEMPT_FAILED:
            return ledger.jobs.note_failure(job_id, "engine.crashed", "words", counted=True) is not None
        case JobEvent.STORED:
            return ledger.jobs.store_result(lost, b"turns")
        case JobEvent.LABELLED:
            assign(ledger, job_id)
            return job.state is JobState.TURNS_STORED
        case JobEvent.GIVEN_UP:
            return ledger.jobs.give_up(job_id, "engine.crashed", "words")
        case JobEvent.RETRIED:
            return ledger.operator_actions.retry(job_id) is ActionResult.RETRIED
        case JobEvent.CANCELLED:
            return ledger.operator_actions.cancel(job_id) is ActionResult.CANCELLED


@pytest.mark.parametrize(("state", "event"), CELLS, ids=str)
def test_the_ledger_does_what_the_table_says_and_forbids_the_rest(ledger, state, event):
    job_id, lost = reach(ledger, state)
    known = ledger.jobs.events(job_id)
    done = happen(ledger, event, job_id, lost)
    new = ledger.jobs.events(job_id)[len(known) :]
    if state in states_before(event):
        assert done
        assert ledger.jobs.get(job_id).state is TRANSITIONS[event][state]
        assert [item.event for item in new] == [event]
    else:
        assert not done
        assert ledger.jobs.get(job_id).state is state
        assert new == [], "what is forbidden leaves no event"


@pytest.mark.parametrize("event", JobEvent)
def test_an_event_leaves_a_job_in_one_state_wherever_it_came_from(event):
    assert set(TRANSITIONS[event].values()) == {state_after(event)}


def test_no_event_leads_out_of_done_and_cancelled():
    final = {state for state in JobState if not any(state in states_before(event) for event in JobEvent)}
    assert final == {JobState.DONE, JobState.CANCELLED}


def test_purged_audio_gives_up_what_waits_and_nothing_else(ledger):
    job_id, _ = reach(ledger, JobState.LEASED)
    lease_id = ledger.jobs.get(job_id).lease_id
    ledger.operator_actions.give_up_audio("c")
    assert ledger.jobs.get(job_id).state is JobState.FAILED
    assert ledger.leases.find(lease_id).lease_end is LeaseEnd.AUDIO_PURGED
    last = ledger.jobs.events(job_id)[-1]
    assert (last.event, last.by, last.lease_id, last.detail) == (
        JobEvent.GIVEN_UP,
        "operator",
        lease_id,
        "payload.incomplete",
    )
    assert ledger.operator_actions.retry(job_id) is ActionResult.AUDIO_GONE


def test_events_say_who_did_what_in_order(ledger):
    job_id, lost = reach(ledger, JobState.READY)
    ledger.leases.give_back(lost, "i1")
    ledger.jobs.note_failure(job_id, "engine.crashed", "It crashed.", counted=True)
    ledger.jobs.give_up(job_id, "engine.crashed", "It crashed.")
    ledger.operator_actions.retry(job_id)
    second = ledger.leases.grant(job_id, "studio", "i9", MODEL)
    ledger.jobs.store_result(second, b"turns")
    assign(ledger, job_id)
    happened = ledger.jobs.events(job_id)
    assert [(item.event.value, item.by, item.detail) for item in happened] == [
        ("granted", "mac", None),
        ("lease_ended", "bridge", "agent_stale"),
        ("lease_returned", "mac", None),
        ("attempt_failed", "mac", "engine.crashed"),
        ("given_up", "bridge", "engine.crashed"),
        ("retried", "operator", None),
        ("granted", "studio", None),
        ("stored", "studio", None),
        ("labelled", "bridge", None),
    ]
    assert happened[3].message == "It crashed."
    assert [item.at for item in happened] == sorted(item.at for item in happened)
    ledger.conversations.delete("c")
    assert ledger.jobs.events(job_id) == [], "they go with their conversation"


def drawn() -> str:
    """The table of states as a diagram and as a table, in Markdown."""
    arrows = [
        f"    {before} --> {after}: {event}" for event, moves in TRANSITIONS.items() for before, after in moves.items()
    ]
    head = ["| state | " + " | ".join(JobEvent) + " |", "|---" * (len(JobEvent) + 1) + "|"]
    rows = [
        f"| {state} | " + " | ".join(TRANSITIONS[event].get(state, "–") for event in JobEvent) + " |"
        for state in JobState
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> ready", *arrows, "```", "", *head, *rows])


def test_the_drawing_in_the_docs_is_the_table():
    assert drawn() in DRAWING.read_text(), "put what `drawn()` returns into docs/job-states.md"
