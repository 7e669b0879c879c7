"""The ledger: what it promises holds in one transaction, and costs what there is to do."""

import itertools
import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from schemas.conversation import ConversationEvent, EventType, Verdict
from vps_bridge.ledger.agents import MAX_STRANGERS
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.operator_actions import ActionResult
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.ledger.tables import Base
from vps_bridge.rules.assemble import JobPlan, PlannedChunk
from vps_bridge.rules.lease import LeaseEnd

MODEL, OTHER_MODEL = ("model", "1"), ("model", "2")
NO_HINTS = SpeakerHints()
numbers = itertools.count()


def test_of_agents_that_are_not_allowed_the_latest_are_known_and_of_those_allowed_all(ledger):
    ledger.agents.set_allowed("mac", allowed=True)
    ledger.agents.set_allowed("never-heard", allowed=True)
    ledger.agents.note_heartbeat("mac", {})
    for number in range(MAX_STRANGERS + 20):
        ledger.agents.note_heartbeat(f"who-{number}", {"state": "online"})
    ledger.agents.note_heartbeat("who-30", {"state": "online"})
    ledger.agents.note_heartbeat("who-last", {"state": "online"})
    known = {agent.agent_id: agent.allowed for agent in ledger.agents.all()}
    assert len(known) == MAX_STRANGERS + 2
    assert {"mac", "never-heard", "who-30", "who-last", f"who-{MAX_STRANGERS + 19}"} <= known.keys()
    assert "who-0" not in known
    assert ledger.agents.allowed() == {"mac", "never-heard"}


def accept(ledger, conversation_id="c1", *, hints=NO_HINTS, final=False, **fields):
    chunk_id = f"k{next(numbers)}"
    new = NewChunk(
        **{
            "conversation_id": conversation_id,
            "chunk_id": chunk_id,
            "sha256": "0" * 64,
            "bytes": 1_000,
            "spool_name": f"s-{chunk_id}",
            "encoding": "wav",
            "duration_s": 30.0,
            **fields,
        }
    )
    ledger.chunks.accept(new, hints, final=final)
    return chunk_id


def add_job(ledger, conversation_id="c1", **fields):
    chunk_id = accept(ledger, conversation_id, **fields)
    (job_id,) = ledger.jobs.add(conversation_id, (JobPlan((PlannedChunk(chunk_id, None),), (chunk_id,)),))
    return job_id


def tell(ledger, kind, conversation_id="c1", **fields):
    event = ConversationEvent(event_id=f"e{next(numbers)}", type=kind, **fields)
    ledger.events.note(event, conversation_id, Verdict.ACCEPTED)


def assigned(ledger, *, final=False, done=(), conversation_id="c1", seen=None):
    dirty = ledger.conversations.get(conversation_id).dirty if seen is None else seen
    ledger.conversations.note_update(conversation_id, AssignedUpdate([], "key", b"{}", final, done, dirty))


def test_accepting_a_chunk_takes_a_final_conversation_back_up(ledger):
    job_id = add_job(ledger, final=True, hints=SpeakerHints(num=3))
    assert ledger.conversations.get("c1").completed
    assert ledger.conversations.get("c1").num_speakers == 3
    assigned(ledger, final=True)
    assert ledger.conversations.get("c1").final_at is not None
    accept(ledger, hints=SpeakerHints(maximum=5))
    record = ledger.conversations.get("c1")
    assert (record.final_at, record.num_speakers, record.max_speakers) == (None, 3, 5)
    assert ledger.jobs.get(job_id).state is JobState.READY


def store_result(ledger):
    (job,) = ledger.jobs.all(conversation_id="c1")
    ledger.jobs.store_result(ledger.leases.grant(job.job_id, "mac", "i", MODEL), b"turns")


@pytest.mark.parametrize(
    "happens",
    [
        lambda ledger: tell(ledger, EventType.STARTED),
        lambda ledger: tell(ledger, EventType.SEGMENTS, removed=("s1",)),
        lambda ledger: tell(ledger, EventType.COMPLETED),
        lambda ledger: tell(ledger, EventType.APPLIED, updated_version=1),
        lambda ledger: tell(ledger, EventType.RESYNC),
        accept,
        store_result,
        lambda ledger: ledger.conversations.note_undo("c1"),
    ],
    ids=["started", "segments", "completed", "applied", "resync", "chunk", "result", "undo"],
)
def test_a_conversation_is_quiet_only_since_what_happened_last(ledger, happens):
    add_job(ledger)
    a_month_ago = time.time() - 30 * 86_400
    with ledger._database.writing() as connection:
        connection.execute(text(f"UPDATE conversations SET last_activity_at = {a_month_ago}"))
        connection.execute(text(f"UPDATE chunks SET accepted_at = {a_month_ago}"))
    assert ledger.conversations.quiet_since(time.time() - 86_400) == ["c1"]
    assigned(ledger, final=True)
    assert ledger.conversations.quiet_since(time.time() - 86_400) == ["c1"], "the bridge's own work is no activity"
    happens(ledger)
    assert ledger.conversations.quiet_since(time.time() - 86_400) == []


def test_a_change_during_an_assignment_asks_for_another(ledger):
    add_job(ledger)
    tell(ledger, EventType.STARTED, started_at=datetime.now(UTC))
    seen = ledger.conversations.get("c1").dirty
    ledger.conversations.note_undo("c1")  # another process: `omi-bridge undo`
    assigned(ledger, seen=seen)
    assert ledger.conversations.dirty() == ["c1"]
    assigned(ledger)
    assert ledger.conversations.dirty() == []


def test_a_conversation_ends_when_no_chunk_and_no_job_is_open(ledger):
    accept(ledger)
    tell(ledger, EventType.COMPLETED, chunks=2)
    assert ledger.conversations.awaiting_final() == [], "a chunk is in no job yet"
    job_id = add_job(ledger, "c2", captured_at_s=1000.0)
    tell(ledger, EventType.COMPLETED, "c2", chunks=4)
    assert ledger.conversations.awaiting_final() == [], "its job waits"
    lease = ledger.leases.grant(job_id, "a", "i", MODEL)
    ledger.jobs.store_result(lease, b"turns")
    (end,) = ledger.conversations.awaiting_final()
    assert (end.conversation_id, end.chunks, end.completed_chunks, end.audio_until_s) == ("c2", 1, 4, 1030.0)
    assigned(ledger, conversation_id="c2", final=True, done=(job_id,))
    assert ledger.conversations.awaiting_final() == []
    assert ledger.jobs.get(job_id).state is JobState.DONE


def test_a_result_counts_once_and_from_any_lease(ledger):
    job_id = add_job(ledger)
    old = ledger.leases.grant(job_id, "a", "i1", MODEL)
    ledger.leases.end(old.lease_id, LeaseEnd.AGENT_STALE)
    new = ledger.leases.grant(job_id, "b", "i2", MODEL)
    assert ledger.jobs.store_result(old, b"first")
    assert not ledger.jobs.store_result(new, b"second")
    assert [result.payload for result in ledger.jobs.results("c1")] == [b"first"]


def test_the_decoded_length_replaces_an_estimate(ledger):
    job_id = add_job(ledger, duration_s=5.0, duration_estimated=True, bytes=90_000)
    before = ledger.jobs.get(job_id)
    assert (before.audio_s, before.audio_estimated) == (45.0, True), "a lease for as much as the bytes may hold"
    (chunk,) = ledger.chunks.of_conversation("c1")
    assert (chunk.info.duration_s, chunk.info.is_estimated) == (5.0, True)
    lease = ledger.leases.grant(job_id, "a", "i", MODEL)
    assert ledger.jobs.store_result(lease, b"turns", {chunk.chunk_id: 10_800.0, "of-another-job": 7.0})
    (chunk,) = ledger.chunks.of_conversation("c1")
    assert (chunk.info.duration_s, chunk.info.is_estimated) == (10_800.0, False)
    after = ledger.jobs.get(job_id)
    assert (after.audio_s, after.audio_estimated) == (10_800.0, False)


def test_a_chunk_of_an_earlier_version_without_a_length_is_estimated_by_its_bytes(ledger):
    accept(ledger, duration_s=None, bytes=40_000)
    (chunk,) = ledger.chunks.of_conversation("c1")
    assert (chunk.info.duration_s, chunk.info.is_estimated) == (5.0, True)


def test_a_lost_lease_returns_and_an_ended_one_does_not(ledger):
    job_id = add_job(ledger)
    for end in LeaseEnd:
        lease = ledger.leases.grant(job_id, "a", "i1", MODEL)
        ledger.leases.end(lease.lease_id, end)
        assert ledger.leases.give_back(ledger.leases.find(lease.lease_id), "i2") is end.may_return
        if end.may_return:
            assert ledger.leases.find(lease.lease_id).instance_id == "i2"
            ledger.leases.end(lease.lease_id, LeaseEnd.OVER_LIMIT)
    lease = ledger.leases.grant(job_id, "a", "i1", MODEL)
    assert ledger.jobs.note_failure(job_id, "engine.crashed", "words", counted=True).attempts == 1
    assert not ledger.leases.give_back(ledger.leases.find(lease.lease_id), "i1"), "it failed: it is no lost lease"


def test_a_conversation_keeps_the_model_of_its_first_lease(ledger):
    first, second = add_job(ledger), add_job(ledger)
    assert ledger.leases.grant(first, "a", "i", MODEL)
    assert ledger.leases.grant(second, "b", "i", OTHER_MODEL) is None
    assert waiting(ledger, limit=9, model=OTHER_MODEL) == []
    assert [found.embedding for found in ledger.jobs.ready({MODEL}, leased={"c1"}, resting=set(), limit=9)] == [MODEL]


def waiting(ledger, *, limit, leased=frozenset(), resting=frozenset(), model=MODEL, newest_first=False):
    found = ledger.jobs.ready({model}, leased=set(leased), resting=set(resting), limit=limit, newest_first=newest_first)
    return [each.job.job_id for each in found]


def test_a_long_upload_hides_nobody(ledger):
    long = [add_job(ledger, "long") for _ in range(5)]
    late = add_job(ledger, "late")
    assert waiting(ledger, limit=2) == [long[0], late]
    assert waiting(ledger, limit=3) == [*long[:3], late], "where there are too few conversations, more of each"
    assert waiting(ledger, limit=1, leased={"long"}) == [late]
    assert waiting(ledger, limit=1, resting={late, long[0]}) == [long[1]]
    assert waiting(ledger, limit=2, leased={"late", "long"}) == [*long[:2], late]


def test_who_comes_last_has_every_other_place_of_a_backlog(ledger):
    archive = [add_job(ledger, f"archive-{number}") for number in range(6)]
    today = [add_job(ledger, "today") for _ in range(2)]
    assert waiting(ledger, limit=2) == archive[:2]
    assert waiting(ledger, limit=1, newest_first=True) == today[:1], "the oldest job of the newest conversation"
    assert waiting(ledger, limit=4, newest_first=True) == [today[0], archive[0], archive[1], archive[2]]
    assert waiting(ledger, limit=3, leased={"today"}, newest_first=True) == [archive[5], archive[0], archive[4]]
    assert waiting(ledger, limit=1, resting={today[0], *archive[3:]}, newest_first=True) == [today[1]]
    assert waiting(ledger, limit=1, newest_first=True, model=OTHER_MODEL) == today[:1]
    assert sorted(waiting(ledger, limit=7, newest_first=True)) == sorted([*archive, today[0]])
    assert waiting(ledger, limit=9, newest_first=True) == [*archive, *today], "all of them: nobody waits longer"


def test_deleting_leaves_a_tombstone_and_nothing_else(ledger):
    job_id = add_job(ledger, spool_name="s-gone")
    lease = ledger.leases.grant(job_id, "a", "i", MODEL)
    ledger.jobs.store_result(lease, b"turns of a deleted conversation")
    tell(ledger, EventType.STARTED)
    accept(ledger, "c2")
    deleted = ledger.conversations.delete("c1")
    assert deleted.spool_names == ("s-gone",)
    ledger.forget_deleted_pages()
    with ledger._database.reading() as connection:
        for table in Base.metadata.tables.values():
            rows = [str(row) for row in connection.execute(table.select())]
            assert table.name == "tombstones" or not [row for row in rows if "'c1'" in row or job_id in row]
    assert ledger.conversations.is_deleted("c1")
    assert ledger.conversations.get("c2") is not None
    assert ledger.conversations.delete("c1").spool_names == ()
    assert not [p for p in ledger.root.iterdir() if b"turns of a deleted" in p.read_bytes()]


def test_audio_is_due_when_final_long_enough_or_too_old(ledger):
    done, failed, waiting = add_job(ledger, "done"), add_job(ledger, "failed"), add_job(ledger, "waiting")
    ledger.jobs.store_result(ledger.leases.grant(done, "a", "i", MODEL), b"turns")
    ledger.jobs.give_up(failed, "engine.crashed", "words")
    for name, jobs in (("done", (done,)), ("failed", ())):
        assigned(ledger, conversation_id=name, final=True, done=jobs)
    future = datetime.now(UTC).timestamp() + 60

    def due(**limits):
        return {
            chunk.conversation_id
            for chunk in ledger.chunks.expired(
                **{"final_before": 0, "failed_before": 0, "accepted_before": 0, **limits}
            )
        }

    assert due() == set()
    assert due(final_before=future) == {"done"}
    assert due(final_before=future, failed_before=future) == {"done", "failed"}
    assert due(accepted_before=future) == {"done", "failed", "waiting"}
    ledger.chunks.mark_unlinked([chunk.arrival for chunk in ledger.chunks.of_conversation("waiting")])
    assert ledger.jobs.without_audio() == [waiting]


def test_a_clock_set_back_keeps_no_audio_longer(ledger):
    done, failed = add_job(ledger, "done"), add_job(ledger, "failed")
    ledger.jobs.store_result(ledger.leases.grant(done, "a", "i", MODEL), b"turns")
    ledger.jobs.give_up(failed, "engine.crashed", "words")
    for name, jobs in (("done", (done,)), ("failed", ())):
        assigned(ledger, conversation_id=name, final=True, done=jobs)
    yesterday = datetime.now(UTC).timestamp() - 24 * 3600

    def due(at):
        return {
            chunk.conversation_id
            for chunk in ledger.chunks.expired(final_before=at, failed_before=at, accepted_before=at - 7 * 24 * 3600)
        }

    assert due(yesterday) == set()
    ledger.chunks.clamp_future_times(yesterday)
    assert due(yesterday - 1) == set()
    assert due(yesterday) == {"done", "failed"}


def test_a_clock_set_forward_makes_nothing_older_that_came_since_a_bridge_began(ledger):
    add_job(ledger, "before")
    began_at = time.time()
    add_job(ledger, "since")
    ledger.chunks.shift_times(began_at, 1_000.0)
    ledger.chunks.clamp_future_times(time.time() + 1_000.0)
    limits = {"final_before": 0.0, "failed_before": 0.0}
    expired = ledger.chunks.expired(accepted_before=began_at + 999.0, **limits)
    assert {chunk.conversation_id for chunk in expired} == {"before"}
    assert ledger.conversations.get("since").last_activity_at >= began_at + 1_000.0


def test_an_update_waits_until_its_version_is_applied(ledger):
    add_job(ledger)
    assigned(ledger)
    assigned(ledger)
    assert ledger.conversations.unapplied() == [("c1", 2)]
    tell(ledger, EventType.APPLIED, updated_version=1)
    assert ledger.conversations.unapplied() == [("c1", 2)]
    tell(ledger, EventType.APPLIED, updated_version=9)
    assert ledger.conversations.get("c1").applied_version == 2, "what was never sent cannot be applied"
    assert ledger.conversations.unapplied() == []
    tell(ledger, EventType.RESYNC)
    assert ledger.conversations.unapplied() == [("c1", 2)]


@pytest.mark.parametrize("named", [{"chunks": 3}, {"last_audio_at": datetime.fromtimestamp(2000.0, UTC)}], ids=str)
def test_more_audio_than_has_come_opens_a_final_conversation_again(ledger, named):
    store_at, end = {"captured_at_s": 1000.0}, datetime.fromtimestamp(1030.0, UTC)
    add_job(ledger, **store_at)
    store_result(ledger)
    tell(ledger, EventType.COMPLETED, chunks=1)
    assigned(ledger, final=True)
    tell(ledger, EventType.COMPLETED, chunks=1, last_audio_at=end)
    assert ledger.conversations.get("c1").final_at is not None, "all of that is here"
    tell(ledger, EventType.COMPLETED)
    assert ledger.conversations.get("c1").final_at is not None, "nothing is named"
    tell(ledger, EventType.COMPLETED, **named)
    assert ledger.conversations.get("c1").final_at is None
    assert ledger.conversations.find_completion("c1") is not None


def test_a_model_with_which_nothing_was_found_keeps_a_conversation_from_no_other_agent(ledger):
    first, second = add_job(ledger), add_job(ledger)
    lost, failed = ledger.leases.grant(first, "a", "i", MODEL), ledger.leases.grant(second, "a", "i", MODEL)
    ledger.jobs.note_failure(second, "engine.crashed", "words", counted=True)
    assert ledger.leases.grant(second, "b", "i", OTHER_MODEL) is None, "an agent of the first model works on it"
    ledger.leases.end(lost.lease_id, LeaseEnd.AGENT_STALE)
    other = ledger.leases.grant(second, "b", "i", OTHER_MODEL)
    assert other is not None
    assert not ledger.leases.give_back(ledger.leases.find(lost.lease_id), "i", MODEL), "voices of two are not compared"
    assert failed.lease_id != other.lease_id
    ledger.jobs.store_result(other, b"turns")
    assert ledger.leases.grant(first, "a", "i", MODEL) is None, "from now on it stays with the model of its result"
    assert ledger.leases.grant(first, "b", "i", OTHER_MODEL) is not None


def test_a_late_result_keeps_its_conversation_for_its_model(ledger):
    first, second = add_job(ledger), add_job(ledger)
    lease = ledger.leases.grant(first, "a", "i", MODEL)
    ledger.leases.end(lease.lease_id, LeaseEnd.AGENT_STALE)
    ledger.jobs.store_result(ledger.leases.find(lease.lease_id), b"turns", late_model=MODEL)
    assert ledger.leases.grant(second, "b", "i", OTHER_MODEL) is None
    assert ledger.leases.grant(second, "a", "i", MODEL) is not None


def test_a_retry_and_a_lease_that_is_given_back_choose_the_model_anew(ledger):
    job_id = add_job(ledger)
    lease = ledger.leases.grant(job_id, "a", "i", MODEL)
    ledger.leases.end(lease.lease_id, LeaseEnd.AGENT_STALE)
    assert ledger.conversations.get("c1").embedding is None
    assert ledger.leases.give_back(ledger.leases.find(lease.lease_id), "i", MODEL)
    assert ledger.conversations.get("c1").embedding == MODEL
    ledger.jobs.give_up(job_id, "engine.crashed", "words")
    assert ledger.operator_actions.retry(job_id) is ActionResult.RETRIED
    assert ledger.leases.grant(job_id, "b", "i", OTHER_MODEL) is not None
