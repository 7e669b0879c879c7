"""A database that another program keeps locked is said to be whole: nobody moves it away and restores a backup."""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from broker.check import CheckState
from vps_bridge.commands.main import app
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.database import DatabaseError, unusable
from vps_bridge.database_copies import check_database, copy_databases
from vps_bridge.doctor.file_checks import check_files
from vps_bridge.error_guard import ErrorGuard
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.ledger import FILE_NAME
from vps_bridge.settings import BridgeSettings

DANGEROUS = ("move", "restore", "backup")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "bridge"
    SqliteConversations(root / STORE_FILE).close()
    Ledger(root, exclusive=True).close()
    monkeypatch.setenv("OMI_DATA_DIR", str(tmp_path))
    return root


@pytest.fixture(params=[FILE_NAME, STORE_FILE])
def locked(request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
    path = root / str(request.param)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield path
        holder.execute("ROLLBACK")


@pytest.mark.parametrize("command", [("jobs",), ("agents", "allow", "first")])
def test_a_command_says_that_the_file_is_locked_and_how_to_find_by_whom(locked: Path, command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert f"fuser -v {locked}" in done.output, done.output
    assert not [word for word in DANGEROUS if word in done.output]


def test_doctor_names_the_locked_file_and_no_remedy_for_a_damaged_one(locked: Path, tmp_path: Path) -> None:
    checks, ledger = check_files(BridgeSettings(data_dir=tmp_path))
    if ledger is not None:
        ledger.close()
    [check] = [check for check in checks if check.verdict is CheckState.FAILED]
    assert check.name == ("ledger" if locked.name == FILE_NAME else "conversations")
    assert f"fuser -v {locked}" in (check.remedy or "")
    assert not [word for word in DANGEROUS if word in check.words]


def test_the_heartbeat_of_a_bridge_says_so_too_and_how_long_ago_it_was(root: Path) -> None:
    guard, ledger = ErrorGuard(), Ledger(root, exclusive=False)
    with closing(sqlite3.connect(root / FILE_NAME, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        guard.run("tick", lambda: ledger.agents.set_allowed("first", allowed=True))
        holder.execute("ROLLBACK")
    ledger.close()
    told = guard.summary() or ""
    assert "keeps it locked" in told
    assert "s ago; error 1 since the start" in told


def copy_it(path: Path) -> None:
    copy_databases({path: path.with_name("copy")}, lambda _done, _total: None, lambda _path: None)


@pytest.mark.parametrize(
    "use", [SqliteConversations, lambda path: Ledger(path.parent, exclusive=False), check_database, copy_it]
)
def test_whoever_cannot_use_a_locked_file_raises_words_that_are_right(
    root: Path, use: Callable[[Path], object]
) -> None:
    path = root / (STORE_FILE if use is SqliteConversations else FILE_NAME)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseError) as raised:
            use(path)
        holder.execute("ROLLBACK")
    assert f"fuser -v {path}" in str(raised.value)
    assert not [word for word in DANGEROUS if word in str(raised.value)]


def driver_error(name: str) -> OperationalError:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorname = name
    return OperationalError("SELECT 1", {}, error)


@pytest.mark.parametrize(
    ("error", "remedy", "may_move"),
    [
        (driver_error("SQLITE_BUSY_RECOVERY"), "fuser -v", False),
        (driver_error("SQLITE_FULL"), "Make room", False),
        (OSError(errno.ENOSPC, "No space left on device"), "Make room", False),
        (driver_error("SQLITE_READONLY_DIRECTORY"), "sudo -u USER", False),
        (driver_error("SQLITE_CANTOPEN"), "sudo -u USER", False),  # the file is not there for this user
        (PermissionError(errno.EACCES, "Permission denied"), "sudo -u USER", False),
        (driver_error("SQLITE_CORRUPT"), "restore a backup", True),
        (driver_error("SQLITE_NOTADB"), "restore a backup", True),
    ],
)
def test_only_a_damaged_file_is_to_be_moved_away(
    tmp_path: Path, error: Exception, remedy: str, *, may_move: bool
) -> None:
    told = str(unusable(tmp_path / "ledger.sqlite3", error))
    assert remedy in told
    assert bool([word for word in DANGEROUS if word in told]) is may_move, told
