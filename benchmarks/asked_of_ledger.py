"""What bridge, page, metrics and programs ask of a ledger again and again, or while somebody waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks.grown_ledger import MODEL
from schemas.conversation import ConversationEvent, EventType, Verdict
from vps_bridge.admission import MAX_KNOWN
from vps_bridge.http.metrics import BridgeMetrics
from vps_bridge.http.reading import list_conversations, list_jobs, read_status, read_webhook
from vps_bridge.intake.people_view import PeopleReader
from vps_bridge.labelling.forget_voices import FORGOTTEN
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.records import ConversationState, NewChunk, SpeakerHints

DAY_S = 86_400.0
OWNER, PERSON, OLD = "owner7", "anna", "c700"
Questions = dict[str, Callable[[], object]]


def list_questions(ledger: Ledger) -> Questions:
    """Return all of it by name. A ledger of `grown_ledger` has answers to each."""
    return {**_of_every_message(ledger), **_of_every_tick(ledger), **_of_a_sweep(ledger), **_of_a_start(ledger)} | {
        **_of_the_page(ledger),
        **_of_programs(ledger),
        **_of_people(ledger),
        **_of_omi(ledger),
    }


def _of_every_message(ledger: Ledger) -> Questions:
    numbers = count()

    def claim() -> None:
        ((job, *_),) = ledger.jobs.ready({MODEL}, leased=set(), resting=set(), limit=1)
        assert ledger.leases.grant(job.job_id, "mac", f"i{next(numbers)}", MODEL)

    def tell() -> None:
        event = ConversationEvent(event_id=f"new{next(numbers)}", type=EventType.STARTED)
        ledger.events.find_answer(event, "c500")
        ledger.events.note(event, "c500", Verdict.ACCEPTED)

    def accept() -> None:
        new = NewChunk("new", f"k{next(numbers)}", "0" * 64, 1_000, "s", "wav", duration_s=10.0)
        ledger.chunks.find("new", new.chunk_id)
        ledger.chunks.accept(new, SpeakerHints(), final=False)

    def delete() -> None:
        ledger.conversations.delete(f"c{600 + next(numbers)}")

    return {
        "claiming a job": claim,
        "leases that run": ledger.leases.current,
        "an event": tell,
        "a chunk": accept,
        "a deletion": delete,
        "a conversation's chunks": lambda: ledger.chunks.of_conversation(OLD),
        "a conversation's jobs": lambda: ledger.jobs.of_conversation(OLD),
    }


def _of_every_tick(ledger: Ledger) -> Questions:
    return {
        "chunks in no job": ledger.chunks.uncovered_conversations,
        "conversations to label": ledger.conversations.dirty,
        "conversations that may end": ledger.conversations.awaiting_final,
        "updates not confirmed": ledger.conversations.unapplied,
        "deletions not finished": ledger.conversations.unfinished_deletions,
        "the counts of a heartbeat": ledger.jobs.counts,
        "what the webhook sends next": lambda: ledger.webhook.next(()),
    }


def _of_a_sweep(ledger: Ledger) -> Questions:
    now = time.time()

    def settle() -> None:
        ledger.kept_voices.note_settled(ledger.kept_voices.with_samples(now - 3 * DAY_S))

    def forget() -> None:
        ledger.kept_voices.note_forgotten(ledger.kept_voices.with_voices(FORGOTTEN.encode(), now - 30 * DAY_S, 20))

    return {
        "times ahead of the clock": lambda: ledger.chunks.clamp_future_times(time.time()),
        "audio that is due": lambda: ledger.chunks.expired(
            final_before=now - DAY_S, failed_before=now - 7 * DAY_S, accepted_before=now - 7 * DAY_S
        ),
        "audio that is due, the disk full": lambda: ledger.chunks.expired(
            final_before=now, failed_before=now - 7 * DAY_S, accepted_before=now - 7 * DAY_S
        ),
        "jobs whose audio is gone": ledger.jobs.without_audio,
        "samples that are due": settle,
        "voices that are due": forget,
        "enrolments": ledger.people.enrolments,
        "temporary conversations": lambda: ledger.conversations.temporary(quiet_since=now - 3_600),
        "what can be packed": lambda: ledger.packs.idle(now - 3 * DAY_S, 100),
    }


def _of_a_start(ledger: Ledger) -> Questions:
    return {
        "the latest open conversations": lambda: ledger.conversations.latest_open(MAX_KNOWN),
        "names in the spool": ledger.chunks.spool_names,
    }


def _of_the_page(ledger: Ledger) -> Questions:
    def page(**fields: Any) -> Callable[[], object]:  # noqa: ANN401 - of the list
        wanted: dict[str, Any] = {"search": "", "state": None, "offset": 0, "limit": 50, **fields}
        return lambda: list_conversations(ledger, stale_s=30.0, **wanted)

    def jobs(state: JobState | None) -> Callable[[], object]:
        return lambda: list_jobs(ledger, state=state, conversation_id=None, limit=100)

    return {
        "the page: conversations": page(),
        "the page: 20 screens on": page(offset=1_000),
        "the page: those that wait": page(state=ConversationState.WAITING),
        "the page: those that are final": page(state=ConversationState.FINAL),
        "the page: those that failed": page(state=ConversationState.FAILED),
        "the page: why they wait": page(waits_for="job failed"),
        "the page: a search": page(search="nobody"),
        "the page: jobs": jobs(None),
        "the page: jobs that wait": jobs(JobState.READY),
        "the page: jobs that failed": jobs(JobState.FAILED),
        "the page: jobs that are cancelled": jobs(JobState.CANCELLED),
        "the page: status and failures": lambda: read_status(ledger),
        "the page: the webhook": lambda: read_webhook(ledger),
        "the page: what changed": ledger.listing.marks,
    }


def _of_programs(ledger: Ledger) -> Questions:
    metrics = BridgeMetrics(stale_s=30.0, dropped=lambda: 0)
    return {
        "metrics": lambda: metrics.render(ledger, None),  # type: ignore[arg-type] # it reads no store
    }


def _of_people(ledger: Ledger) -> Questions:
    people = PeopleReader(ledger)
    return {
        "owners": people.list_owners,
        "people of an owner": lambda: people.list_people(OWNER),
        "where a person was heard": lambda: people.show(OWNER, PERSON),
        "all of a person": lambda: people.export(OWNER, PERSON),
        "enrolments of a person": lambda: ledger.people.enrolling(OWNER, PERSON),
        "a decision about a person": lambda: ledger.people.decide(OWNER, PERSON, "asks", OLD),
        "a person forgotten": lambda: ledger.people.forget("owner9", PERSON),
    }


def _of_omi(ledger: Ledger) -> Questions:
    return {
        "labels that OMI was not told": lambda: ledger.omi.next_untold(()),
        "deleted conversations of OMI's": ledger.omi.deleted,
        "conversations that wait for OMI's audio": ledger.omi.waiting,
        "live conversations": ledger.omi.live,
        "a user's conversations near a moment": lambda: ledger.omi.of_user(OWNER, time.time() - DAY_S),
    }
