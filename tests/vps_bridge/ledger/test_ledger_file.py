"""A ledger in a file: private, held by one bridge, and asked by its indexes."""

import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import event

from vps_bridge.ledger import Ledger, LedgerBusy, LedgerMissing


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "bridge", exclusive=True)
    yield ledger
    ledger.close()


def test_files_are_private_and_one_bridge_holds_the_ledger(ledger, tmp_path):
    root = tmp_path / "bridge"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in root.glob("ledger.sqlite3*"))
    with pytest.raises(LedgerBusy, match="already runs"):
        Ledger(root, exclusive=True)
    beside = Ledger(root, exclusive=False)
    assert beside.ledger_id == ledger.ledger_id
    beside.close()


def test_a_command_finds_no_ledger_where_no_bridge_ran(tmp_path):
    with pytest.raises(LedgerMissing, match="omi-bridge run"):
        Ledger(tmp_path, exclusive=False)


def test_several_ledgers_are_opened_at_once_in_one_process(tmp_path):
    def open_one(number: int) -> str:
        with closing(Ledger(tmp_path / str(number), exclusive=True)) as ledger:
            return ledger.ledger_id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(open_one, range(12)))) == 12


def test_what_is_asked_twice_a_second_uses_an_index(ledger):
    statements = []
    with ledger._database.reading() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append((args[2], args[3])))
    ledger.chunks.uncovered_conversations()
    ledger.conversations.dirty()
    ledger.conversations.awaiting_final()
    ledger.conversations.unapplied()
    ledger.leases.current()
    asked = [(sql, values) for sql, values in statements if sql.startswith("SELECT")]
    assert len(asked) == 5
    with ledger._database.reading() as connection:
        for sql, values in asked:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert not [step for step in plan if step.startswith("SCAN") and "INDEX" not in step], (sql, plan)
