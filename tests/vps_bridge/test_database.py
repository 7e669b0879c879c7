"""The one connection of a process to a SQLite file."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlite3 import OperationalError

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from tests.inbox import WAIT_S
from vps_bridge.database import Database, open_database
from vps_bridge.errors import DatabaseMoved
from vps_bridge.ledger.ledger import MIGRATIONS
from vps_bridge.ledger.tables import MetaRow

KEYS = select(MetaRow.key).order_by(MetaRow.key)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "file.sqlite3", MIGRATIONS)
    yield opened
    opened.close()


def put(database: Database, *keys: object) -> None:
    with database.writing() as connection:
        for key in keys:
            connection.execute(insert(MetaRow), {"key": key, "value": "words"})


def keys(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.scalars(KEYS))


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(database: Database) -> None:
    put(database, "a")
    with pytest.raises(IntegrityError):
        put(database, "b", "a")
    with pytest.raises(ProgrammingError):
        put(database, "c", object())  # what SQLite cannot take
    assert keys(database) == ["a"]
    put(database, "b")
    assert keys(database) == ["a", "b"]


def test_what_another_process_wrote_is_read_and_what_it_holds_is_waited_for(database: Database, tmp_path: Path) -> None:
    other = open_database(tmp_path / "file.sqlite3", MIGRATIONS)
    put(other, "theirs")
    assert keys(database) == ["theirs"]
    with ThreadPoolExecutor(1) as pool:
        with other.writing() as connection:
            connection.execute(insert(MetaRow), {"key": "also theirs", "value": "words"})
            assert keys(database) == ["theirs"], "what is not committed is not seen"
            waiting = pool.submit(put, database, "ours")
        waiting.result(WAIT_S)
    assert keys(other) == ["also theirs", "ours", "theirs"]
    other.close()


def test_who_reads_sees_one_moment(database: Database, tmp_path: Path) -> None:
    other = open_database(tmp_path / "file.sqlite3", MIGRATIONS)
    put(other, "a")
    with database.reading() as connection:
        assert list(connection.scalars(KEYS)) == ["a"]
        put(other, "b")
        assert list(connection.scalars(KEYS)) == ["a"]
    assert keys(database) == ["a", "b"]
    other.close()


def test_a_transaction_within_a_transaction_is_refused_and_never_waits_for_itself(database: Database) -> None:
    with pytest.raises(OperationalError, match="within a transaction"), database.writing():
        put(database, "inner")
    assert keys(database) == []
    put(database, "after")
    assert keys(database) == ["after"]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As in a command at a terminal; the workers of a parallel test run ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_half_way(database: Database) -> None:
    """Ctrl-C while a statement of a transaction runs that has written already."""
    slow = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000) SELECT max(i) FROM n"
    )
    with database.writing() as connection:
        connection.execute(insert(MetaRow), {"key": "half", "value": "words"})
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        connection.execute(slow)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_within_a_slow_statement_is_ctrl_c_and_changes_nothing(database: Database, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt_half_way(database)
    database.close()  # as the command does that was interrupted
    gc.collect()  # its frames hold the statement, which holds the file: a command ends here
    again = open_database(tmp_path / "file.sqlite3", MIGRATIONS)
    assert keys(again) == []
    again.close()


def test_threads_take_turns(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(database, f"{number}-first", f"{number}-second"), range(200)))
        read = list(pool.map(lambda _: len(keys(database)), range(50)))
    assert set(read) == {400}


def test_a_second_connection_of_the_same_process_leaves_the_locks_of_the_first(
    database: Database, tmp_path: Path
) -> None:
    """Without its lock another process that closes the file would remove the log, and with it what is only there."""
    path = tmp_path / "file.sqlite3"
    second = open_database(path, MIGRATIONS)
    put(database, "before")
    assert keys(second) == ["before"]
    script = "import sqlite3, sys; it = sqlite3.connect(sys.argv[1]); it.execute('SELECT 1 FROM meta'); it.close()"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert path.with_name("file.sqlite3-wal").exists()
    mark = second.change_mark()
    put(second, "own")
    assert second.change_mark() == mark
    put(database, "after")
    assert second.change_mark() != mark
    assert keys(second) == ["after", "before", "own"]
    second.close()


@pytest.mark.parametrize("sync_commits", [True, False])
def test_a_file_that_was_moved_away_or_replaced_takes_no_promise_until_it_is_back(
    tmp_path: Path, *, sync_commits: bool
) -> None:
    path = tmp_path / "file.sqlite3"
    opened = open_database(path, MIGRATIONS, sync_commits=sync_commits)

    def write(key: str) -> None:
        put(opened, key)
        opened.sync()

    path.rename(tmp_path / "moved")
    with pytest.raises(DatabaseMoved, match="put it back"):
        write("a")
    path.write_bytes((tmp_path / "moved").read_bytes())
    with pytest.raises(DatabaseMoved, match="put it back"):
        write("b")
    (tmp_path / "moved").rename(path)
    write("c")
    assert "c" in keys(opened)
    opened.close()
