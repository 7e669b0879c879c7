"""A database is moved away or locked, or the disk refuses, under a running bridge: callers are told to ask again."""

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from schemas.conversation import EventType
from tests.vps_bridge.http.door import Door
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.database import DatabaseUnreadable
from vps_bridge.http.outages import explain_failure

PROMISED = "nothing was promised, send it again"
NAMED = {"schema": "person-event", "version": "1.0", "event_id": "e-1", "type": "named", "name": "Anna"}


def ask_everything(door: Door) -> dict[str, httpx.Response]:
    """One request to each way in which the door uses the ledger."""
    client = door.client
    return {
        "audio": door.audio("call", make_wav(1.0), chunk_id="one"),
        "event": door.event("call", EventType.COMPLETED, chunks=1),
        "person": client.post("/v1/people/p-1/events", json=NAMED),
        "forget": client.delete("/v1/people/p-1"),
        "people": client.get("/v1/people"),
        "history": client.get("/v1/conversations/call/history"),
        "health": door.open.get("/health"),
        "list": client.get("/v1/conversations"),
        "conversation": client.get("/v1/conversations/call"),
        "export": client.get("/v1/conversations/call/export"),
        "retry": client.post("/v1/jobs/j-1/retry"),
        "metrics": door.open.get("/metrics"),
    }


@pytest.mark.ledger_file
def test_every_path_says_so_while_the_ledger_is_elsewhere_and_works_once_it_is_back(own_door: Door) -> None:
    root = own_door.bridge.data_dir / "bridge"
    elsewhere = own_door.bridge.data_dir / "elsewhere"
    elsewhere.mkdir()
    files = [root / f"ledger.sqlite3{end}" for end in ("", "-wal", "-shm")]
    for file in files:
        file.rename(elsewhere / file.name)
    for path, answer in ask_everything(own_door).items():
        assert answer.status_code == 503, (path, answer.text)
        assert answer.json()["code"] == "bridge.database_unavailable", (path, answer.text)
        assert PROMISED in answer.json()["message"], path
        assert "moved away" in answer.json()["message"], path
        assert answer.headers["retry-after"] == "5"
        assert str(root) not in answer.text
    for file in files:
        (elsewhere / file.name).rename(file)
    codes = {path: answer.status_code for path, answer in ask_everything(own_door).items()}
    assert set(codes.values()) <= {200, 202, 404}, codes


@pytest.mark.ledger_file
def test_a_ledger_that_another_program_keeps_locked_is_told_as_such(own_door: Door) -> None:
    with closing(
        sqlite3.connect(own_door.bridge.data_dir / "bridge" / "ledger.sqlite3", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = own_door.event("call", EventType.COMPLETED, chunks=1)
        other.execute("ROLLBACK")
    assert answer.status_code == 503, answer.text
    assert "is kept locked by another program" in answer.json()["message"]
    assert PROMISED in answer.json()["message"]
    assert own_door.event("call", EventType.COMPLETED, chunks=1).status_code == 200


@pytest.mark.ledger_file
def test_a_page_that_is_open_is_told_of_changes_after_the_database_could_not_be_read(own_door: Door) -> None:
    root = own_door.bridge.data_dir / "bridge"
    (root / "ledger.sqlite3").rename(root / "elsewhere")
    with own_door.client.stream("GET", "/v1/changes") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry")
        assert own_door.client.get("/v1/conversations").status_code == 503
        (root / "elsewhere").rename(root / "ledger.sqlite3")
        assert next(line for line in lines if line.startswith("event")) == "event: changed"


def driver_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("words of a statement")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/secret/path"), 503, "No space left on device"),
        (driver_error("SQLITE_FULL"), 503, "cannot be read or written now"),
        (OperationalError("SELECT 1", {}, driver_error("SQLITE_IOERR")), 503, "cannot be read or written now"),
        (OperationalError("SELECT 1", {}, driver_error("SQLITE_BUSY")), 503, "is kept locked"),
        (DatabaseUnreadable(Path("/secret/path"), "not a database"), 503, "cannot be read or written now"),
        (IntegrityError("INSERT", {}, driver_error("SQLITE_CONSTRAINT")), 500, "its log says more"),
        (KeyError("words of a statement"), 500, "its log says more"),
    ],
)
def test_only_what_may_pass_by_itself_is_to_be_asked_again(error: Exception, status: int, words: str) -> None:
    problem = explain_failure(error)
    assert problem.status == status
    assert words in problem.message
    assert PROMISED in problem.message
    assert [told for told in ("secret", "statement") if told in problem.message] == []
