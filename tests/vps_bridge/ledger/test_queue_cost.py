"""What a job costs the ledger does not grow with the jobs that wait: counted in SQLite's own steps, not in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vps_bridge.ledger.sqlite_steps import count_steps
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.ledger import Ledger

MODEL = ("m", "1")
STEPS_AT_ONCE = 10
SHORT, LONG = 60, 300  # the ledger looks at 50 jobs that wait at once


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "bridge", exclusive=True)
    yield opened
    opened.close()


def queue_up(ledger: Ledger, first: int, last: int, *, conversations: int) -> None:
    """One chunk and one job for each number, in so many conversations."""
    for number in range(first, last):
        add_waiting_job(ledger, f"c{number % conversations}", f"chunk-{number}", audio_s=60.0, final=True)


def deliver_one(ledger: Ledger, *, newest_first: bool = False) -> None:
    """All that the bridge asks its ledger for, for one job, from the grant to the end of its conversation."""
    for held in ledger.leases.current():
        ledger.jobs.get(held.job_id)
    ((job, *_),) = ledger.jobs.ready({MODEL}, leased=set(), resting=set(), limit=1, newest_first=newest_first)
    lease = ledger.leases.grant(job.job_id, "mac", "i-1", MODEL)
    assert lease is not None
    (item,) = ledger.jobs.chunks(job.job_id)
    assert ledger.jobs.find_chunk(job.job_id, item.chunk.chunk_id) == item.chunk
    assert ledger.jobs.store_result(lease, b"turns")
    assert ledger.conversations.is_to_assign(job.conversation_id)
    ledger.conversations.find_completion(job.conversation_id)
    assert job.conversation_id in ledger.conversations.dirty()
    ledger.conversations.note_nothing_new(job.conversation_id, final=True, done_jobs=(job.job_id,), seen=1)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_job_costs_the_same_however_many_conversations_wait(ledger: Ledger, newest_first: bool) -> None:
    def deliver() -> None:
        deliver_one(ledger, newest_first=newest_first)

    queue_up(ledger, 0, SHORT, conversations=LONG)
    deliver()
    short = count_steps(ledger, deliver, at_once=STEPS_AT_ONCE)
    queue_up(ledger, SHORT, LONG, conversations=LONG)
    long = count_steps(ledger, deliver, at_once=STEPS_AT_ONCE)
    assert 0 < long <= 1.5 * short


def test_one_grant_reads_less_than_many(ledger: Ledger) -> None:
    def find(limit: int) -> None:
        assert len(ledger.jobs.ready({MODEL}, leased=set(), resting=set(), limit=limit)) == limit

    queue_up(ledger, 0, SHORT, conversations=LONG)
    find(1)
    one = count_steps(ledger, lambda: find(1), at_once=STEPS_AT_ONCE)
    assert 0 < 4 * one < count_steps(ledger, lambda: find(40), at_once=STEPS_AT_ONCE)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_job_costs_the_same_however_many_wait_in_its_conversation(ledger: Ledger, newest_first: bool) -> None:
    def grant() -> None:
        ((job, *_),) = ledger.jobs.ready({MODEL}, leased=set(), resting=set(), limit=1, newest_first=newest_first)
        assert ledger.leases.grant(job.job_id, "mac", "i-1", MODEL)
        (item,) = ledger.jobs.chunks(job.job_id)
        assert ledger.jobs.find_chunk(job.job_id, item.chunk.chunk_id)

    queue_up(ledger, 0, SHORT, conversations=1)
    grant()
    short = count_steps(ledger, grant, at_once=STEPS_AT_ONCE)
    queue_up(ledger, SHORT, LONG, conversations=1)
    long = count_steps(ledger, grant, at_once=STEPS_AT_ONCE)
    assert 0 < long <= 1.5 * short


def test_the_count_of_steps_sees_work_that_grows(ledger: Ledger) -> None:
    queue_up(ledger, 0, SHORT, conversations=LONG)
    short = count_steps(ledger, ledger.jobs.all, at_once=STEPS_AT_ONCE)
    queue_up(ledger, SHORT, LONG, conversations=LONG)
    assert count_steps(ledger, ledger.jobs.all, at_once=STEPS_AT_ONCE) > 5 * short


def test_a_beat_of_one_agent_reads_its_own_leases_alone(ledger: Ledger) -> None:
    queue_up(ledger, 0, 20, conversations=20)
    for number, (job, *_) in enumerate(ledger.jobs.ready({MODEL}, leased=set(), resting=set(), limit=20)):
        assert ledger.leases.grant(job.job_id, f"mac-{number % 10}", "i-1", MODEL)
    mine = ledger.leases.of_agent("mac-3")
    assert len(mine) == 2
    assert mine == [lease for lease in ledger.leases.current() if lease.agent_id == "mac-3"]
    assert ledger.leases.of_agent("nobody") == []
