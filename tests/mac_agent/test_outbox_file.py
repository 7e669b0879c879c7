from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mac_agent.outbox import EntryKind, Outbox, OutboxEntry, OutboxError, inspect_outbox
from tests.hand_clock import HandClock

ROOT = Path(__file__).parents[2]


def entry(job_id: str = "job-1", lease_id: str = "lease-1", payload: bytes = b"turns") -> OutboxEntry:
    return OutboxEntry(job_id, lease_id, "ledger-1", "conversation-1", EntryKind.TURNS, payload)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def open_outbox(tmp_path, clock):
    opened = []

    def open_it() -> Outbox:
        outbox = Outbox(tmp_path / "outbox.sqlite", retry_s=15, retry_max_s=300, clock=clock)
        opened.append(outbox)
        return outbox

    yield open_it
    for outbox in opened:
        outbox.close()


def test_entries_survive_a_new_process_in_their_order_and_are_due_at_once(open_outbox):
    first = open_outbox()
    for number in range(5):
        first.put(entry(f"job-{number}"))
        first.note_offered(f"job-{number}")
    first.settle("job-2")
    first.close()
    again = open_outbox()
    assert [each.job_id for each in again.due()] == ["job-0", "job-1", "job-3", "job-4"]
    assert again.get("job-3") == entry("job-3")


def test_what_put_returned_from_survives_kill_9(tmp_path, open_outbox):
    script = f"""
from pathlib import Path
from mac_agent.outbox import EntryKind, Outbox, OutboxEntry
outbox = Outbox(Path({str(tmp_path / "outbox.sqlite")!r}), retry_s=15, retry_max_s=300)
for number in range(100_000):
    outbox.put(OutboxEntry(f"job-{{number}}", "lease-1", "ledger-1", "conversation-1", EntryKind.TURNS, b"x" * 5000))
    print(number, flush=True)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 30:
            child.kill()
            break
    reported = [int(line), *(int(rest) for rest in child.stdout.read().split())]
    child.wait()
    child.stdout.close()
    kept = {each.job_id for each in open_outbox().entries()}
    assert kept >= {f"job-{number}" for number in range(max(reported) + 1)}


def test_a_file_damaged_anywhere_ends_no_agent_and_no_doctor(tmp_path, open_outbox):
    """What is in it is computed again, so a damaged one is replaced; where the damage touches nothing, all is kept."""
    file = tmp_path / "outbox.sqlite"
    first, entries = open_outbox(), [entry(f"job-{number}", payload=b"x" * 3_000) for number in range(20)]
    for each in entries:
        first.put(each)
    first.close()
    whole, outcomes = file.read_bytes(), {"kept": 0, "replaced": 0}
    for seed in range(60):
        drawn, data = random.Random(seed), bytearray(whole)
        start, count = drawn.randrange(len(data)), drawn.choice((1, 8, 100, 4096, 40_000))
        data[start : start + count] = drawn.randbytes(len(data[start : start + count]))
        for path in tmp_path.glob("outbox.sqlite*"):
            path.unlink()
        file.write_bytes(data)
        facts = inspect_outbox(file)
        outbox = open_outbox()
        assert not outbox.entries() or len(outbox.entries()) == 20
        outcomes["kept" if outbox.entries() else "replaced"] += 1
        assert facts.damage is None or not outbox.entries(), seed
        outbox.put(entry("new"))
        outbox.close()
        assert open_outbox().get("new") == entry("new")
    assert all(count > 5 for count in outcomes.values()), outcomes


def test_pauses_double_up_to_the_longest_and_start_again_for_a_new_listener(open_outbox, clock):
    outbox = open_outbox()
    outbox.put(entry())
    pauses = []
    for _ in range(7):
        assert outbox.due() == [entry()]
        outbox.note_offered("job-1")
        offered_s = clock.now_s
        while not outbox.due():
            clock.now_s += 1
        pauses.append(clock.now_s - offered_s)
    assert pauses == [15, 30, 60, 120, 240, 300, 300]
    outbox.note_offered("job-1")
    outbox.make_due()
    assert outbox.due() == [entry()]
    outbox.note_offered("job-1")
    clock.now_s += 15
    assert outbox.due() == [entry()]


def test_a_later_entry_takes_the_place_of_an_earlier_one_of_its_job(open_outbox):
    outbox = open_outbox()
    outbox.put(entry(payload=b"first"))
    outbox.put(entry(lease_id="lease-2", payload=b"second"))
    outbox.close()
    assert open_outbox().entries() == [entry(lease_id="lease-2", payload=b"second")]


def test_settled_turns_leave_no_trace_in_the_file(tmp_path, open_outbox):
    outbox = open_outbox()
    outbox.put(entry(payload=b"a-voice-embedding" * 500))
    outbox.settle("job-1")
    outbox.close()
    connection = sqlite3.connect(tmp_path / "outbox.sqlite")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    left = b"".join(path.read_bytes() for path in tmp_path.glob("outbox.sqlite*"))
    assert b"a-voice-embedding" not in left


def test_the_file_is_private(tmp_path, open_outbox):
    open_outbox().put(entry())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("outbox.sqlite*")} == {0o600}


def test_a_file_of_another_version_is_replaced(tmp_path, open_outbox):
    connection = sqlite3.connect(tmp_path / "outbox.sqlite")
    connection.execute("CREATE TABLE entries (job_id TEXT)")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    outbox = open_outbox()
    outbox.put(entry())
    assert outbox.entries() == [entry()]


def test_a_file_that_is_no_database_is_replaced(tmp_path, open_outbox):
    (tmp_path / "outbox.sqlite").write_bytes(b"not a database, though long enough to look like one" * 100)
    outbox = open_outbox()
    outbox.put(entry())
    assert outbox.entries() == [entry()]


def test_an_outbox_that_cannot_be_opened_says_what_to_do(tmp_path):
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(OutboxError, match="Check its owner"):
        Outbox(tmp_path / "outbox.sqlite", retry_s=1, retry_max_s=1)


def test_settled_turns_leave_no_trace_in_the_log_of_a_file_in_use(tmp_path, open_outbox, clock):
    outbox = open_outbox()
    outbox.put(entry(payload=b"whose voice it was" * 100))
    outbox.settle("job-1")
    clock.now_s += 60
    outbox.tidy()
    assert b"whose voice" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
