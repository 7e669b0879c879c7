"""What only a ledger on a server has: several who write at once, a connection that is cut, a server that forgets."""

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import vps_bridge.ledger.ledger as opening
from schemas.conversation import ConversationEvent, EventType, Verdict
from tests.inbox import WAIT_S
from tests.postgres_server import RunningPostgres
from tests.vps_bridge.ledger.test_ledger import accept, add_job
from tests.vps_bridge.ledger_server import empty, server_of
from tests.vps_bridge.live_bridge import wait_until
from vps_bridge.database_server import name_connections
from vps_bridge.errors import CommitsInDoubt, LedgerUnavailable
from vps_bridge.ledger import Ledger, LedgerBusy, LedgerMissing
from vps_bridge.ledger.records import LeaseRecord
from vps_bridge.ledger.server_connection import LedgerServer
from vps_bridge.rules.assemble import JobPlan, PlannedChunk
from vps_bridge.rules.ownership import KnownBridge

MODEL = ("model", "1")


@pytest.fixture
def open_one(ledger_server: LedgerServer, tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """Opens the same ledger as often as it is called; the first time as the bridge does."""
    empty(ledger_server, tmp_path)
    opened: list[Ledger] = []

    def opener(*, timeout_s: float = 10.0, syncs: bool | None = None) -> Ledger:
        server = replace(ledger_server, timeout_s=timeout_s)
        root = tmp_path / str(len(opened))
        opened.append(Ledger(root, exclusive=not opened, server=server, sync_commits=syncs))
        return opened[-1]

    yield opener
    for ledger in opened:
        ledger.close()


def connection_of(ledger: Ledger) -> int:
    assert ledger._on_server is not None
    (number,) = ledger._on_server._own_ids()
    return number


def cut(postgres: RunningPostgres, ledger: Ledger) -> None:
    """End a ledger's connection, as a restart of the server does."""
    with postgres.superuser() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({connection_of(ledger)}, 60000)")


def test_what_was_not_on_disk_when_the_connection_ended_is_promised_to_nobody(
    postgres: RunningPostgres, open_one: Callable[..., Ledger]
) -> None:
    ledger = open_one()
    accept(ledger)
    ledger.sync()
    accept(ledger)
    cut(postgres, ledger)
    with pytest.raises(LedgerUnavailable, match="hung up"):
        ledger.chunks.of_conversation("c1")
    assert len(ledger.chunks.of_conversation("c1")) == 2, "it connects anew"
    with pytest.raises(LedgerUnavailable, match="asked again"):
        ledger.sync()
    ledger.sync()
    cut(postgres, ledger)
    with pytest.raises(LedgerUnavailable):
        accept(ledger)
    ledger.sync()  # nothing was under way when it ended


def test_nor_is_what_another_bridge_committed_and_this_one_only_read(
    postgres: RunningPostgres, open_one: Callable[..., Ledger]
) -> None:
    """It answers `accepted` for a chunk that it finds: that may not be on the server's disk yet either."""
    reader, writer = open_one(), open_one(syncs=False)
    accept(writer)
    assert len(reader.chunks.of_conversation("c1")) == 1
    cut(postgres, reader)
    with pytest.raises(LedgerUnavailable, match="hung up"):
        reader.conversations.dirty()
    assert reader.is_sync_due, "the bridge learns of it though it has nothing to tell"
    with pytest.raises(CommitsInDoubt, match="asked again"):
        reader.sync()
    assert not reader.is_sync_due


def test_a_server_that_does_not_answer_is_hung_up_on(open_one: Callable[..., Ledger]) -> None:
    ledger = open_one(timeout_s=0.5)
    stopped = connection_of(ledger)
    os.kill(stopped, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable, match="did not answer"):
            ledger.conversations.dirty()
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_of_several_bridges_one_gets_each_job_and_nobody_waits_for_another(open_one: Callable[..., Ledger]) -> None:
    ledgers = [open_one() for _ in range(3)]
    jobs = [add_job(ledgers[0], f"c{number}") for number in range(20)]
    together = threading.Barrier(len(ledgers))

    def grab(ledger: Ledger) -> list[str]:
        mine = []
        for job_id in jobs:
            together.wait(WAIT_S)
            if ledger.leases.grant(job_id, "mac", "i", MODEL) is not None:
                mine.append(job_id)
        return mine

    with ThreadPoolExecutor(len(ledgers)) as pool:
        found = [job_id for mine in pool.map(grab, ledgers) for job_id in mine]
    assert sorted(found) == sorted(jobs)
    assert len(ledgers[0].leases.current()) == len(jobs)
    assert [event.event for event in ledgers[0].jobs.events(jobs[0])] == ["granted"]


def store_together(lease: LeaseRecord, together: threading.Barrier, ledger: Ledger) -> bool:
    together.wait(WAIT_S)
    return ledger.jobs.store_result(lease, b"turns") is not None


def test_of_two_results_for_a_job_that_come_to_two_bridges_one_is_stored(open_one: Callable[..., Ledger]) -> None:
    first, second = open_one(), open_one()
    for number in range(10):
        job_id = add_job(first, f"c{number}")
        lease = first.leases.grant(job_id, "mac", "i", MODEL)
        assert lease is not None
        together = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            stored = pool.map(partial(store_together, lease, together), (first, second))
            assert sorted(stored) == [False, True]


def test_chunks_become_one_job_though_two_bridges_make_it(open_one: Callable[..., Ledger]) -> None:
    first, second = open_one(), open_one()
    chunk_id = accept(first)
    plan = JobPlan((PlannedChunk(chunk_id, None),), (chunk_id,))
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda ledger: ledger.jobs.add("c1", (plan,)), (first, second)))
    assert sorted(len(ids) for ids in made) == [0, 1]


def test_audio_that_comes_for_a_conversation_which_another_bridge_deletes_is_not_kept(
    open_one: Callable[..., Ledger],
) -> None:
    first, second = open_one(), open_one()
    accept(first)
    second.conversations.delete("c1")
    accept(first)
    assert first.chunks.of_conversation("c1") == []


def test_labels_of_a_conversation_are_one_bridges_at_a_time_until_it_ends(open_one: Callable[..., Ledger]) -> None:
    first, second = open_one(), open_one()
    assert first.take_labels("c1")
    assert not second.take_labels("c1")
    assert second.take_labels("c2")
    first.give_labels("c1")
    assert second.take_labels("c1")
    second.close()
    wait_until(lambda: first.take_labels("c2"), "the end of the other's locks")


def test_a_bridge_hears_of_what_others_write_and_not_of_its_own(open_one: Callable[..., Ledger]) -> None:
    bridge, command = open_one(), open_one()
    heard, words = threading.Event(), list[str]()

    def note(found: Collection[str]) -> None:
        words.extend(found)
        heard.set()

    news = bridge.listen(note)
    while not heard.is_set():  # until it listens
        command.agents.set_allowed("mac", allowed=True)
        heard.wait(0.1)
    other = open_one(syncs=False)
    words.clear()
    bridge.tell("jobs")
    bridge.sync()
    accept(other)
    other.tell("audio c1")
    time.sleep(0.2)
    assert not words, "another bridge announces what it wrote with its receipts"
    other.sync()
    wait_until(lambda: words == ["audio c1"], "the other bridge's word")
    other.tell("no'word")
    other.sync()
    wait_until(lambda: words == ["audio c1", ""], "that there is something to look for")
    news.close()


def test_bridges_of_other_ids_share_a_ledger_and_nobody_else_has_it_beside_them(
    open_one: Callable[..., Ledger], ledger_server: LedgerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "HOLD_S", 0.3)

    def take(name: str, bridge_id: str | None) -> Ledger:
        return Ledger(tmp_path / name, exclusive=True, server=ledger_server, bridge_id=bridge_id)

    alone = open_one()
    with pytest.raises(LedgerBusy, match="another omi-bridge runs as a on"):
        take("other", "a")
    alone.close()
    first, second = take("first", "a"), take("second", "b")
    with pytest.raises(LedgerBusy, match="OMI_BRIDGE_ID of its own"):
        take("third", "b")
    with pytest.raises(LedgerBusy, match="another omi-bridge runs on"):
        take("third", None)
    second.close()
    take("third", "b").close()
    first.close()
    take("third", None).close()


def test_a_bridge_that_hangs_in_a_transaction_is_ended_on_the_server_by_who_takes_its_place(
    open_one: Callable[..., Ledger], ledger_server: LedgerServer, tmp_path: Path
) -> None:
    other = open_one()
    other.close()  # its tables are there, and nobody has it alone
    servers = [replace(ledger_server, name=name_connections(name), timeout_s=60.0) for name in ("hung", "live")]
    hung, live = (
        Ledger(tmp_path / server.name, exclusive=True, server=server, bridge_id=server.name) for server in servers
    )
    bridge = KnownBridge("hung", "i", is_ready=True, left_s=0.0)
    assert live.bridges.join(bridge) == []
    transaction = hung._database.writing("c1")
    transaction.__enter__().exec_driver_sql("UPDATE bridges SET ready = false")  # as its beat does
    assert live.bridges.drop_dead(["hung"]) == 1
    accept(live)  # nobody holds the conversation any more
    with pytest.raises(LedgerUnavailable, match="hung up"):
        transaction.__exit__(None, None, None)
    live.bridges.beat(bridge)
    accept(hung)  # it wakes, and joins anew
    hung.close()
    live.close()


def test_a_bridge_learns_from_its_beat_that_it_was_taken_for_dead(open_one: Callable[..., Ledger]) -> None:
    ledger = open_one()
    own = KnownBridge("own", "i", is_ready=True, left_s=60.0)
    ledger.bridges.join(own)
    assert ledger.bridges.beat(own)
    assert ledger.bridges.beat(replace(own, left_s=0.0))
    assert not ledger.bridges.beat(own), "its time was over"
    assert ledger.bridges.beat(own)
    ledger.bridges.beat(replace(own, left_s=0.0))
    ledger.bridges.drop_dead(["own"])
    assert not ledger.bridges.beat(own), "another one has dropped it"


def test_a_command_finds_no_ledger_in_a_new_database(postgres: RunningPostgres, tmp_path: Path) -> None:
    with pytest.raises(LedgerMissing, match="omi-bridge run"):
        Ledger(tmp_path, exclusive=False, server=server_of(postgres, postgres.new_database()))


def test_text_that_the_server_cannot_keep_is_no_poison(open_one: Callable[..., Ledger]) -> None:
    ledger = open_one()
    event = ConversationEvent(event_id="e", type=EventType.STARTED, owner="some\0body", language="d\0e")
    ledger.events.note(event, "c1", Verdict.ACCEPTED)
    record = ledger.conversations.get("c1")
    assert record is not None
    assert record.owner == "some\ufffdbody"
    job_id = add_job(ledger)
    ledger.jobs.give_up(job_id, "x", "why\0")


def test_the_doctor_learns_what_keeps_the_ledger(open_one: Callable[..., Ledger]) -> None:
    facts = open_one().describe_server()
    assert facts is not None
    assert facts.risks == ()
    assert int(facts.version.split(".")[0]) >= 13
