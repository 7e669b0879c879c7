"""A log of erasures that is damaged: what can be read of it is heeded, what cannot is said, and nothing is skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.vps_bridge.commands.kept_call import KeptCall
from vps_bridge.backup.make import make_backup
from vps_bridge.backup.restore import Restored, restore_backup
from vps_bridge.bridge_files import open_files
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.doctor.file_checks import check_erasures
from vps_bridge.intake.people import People
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.erasure_log import LOG_NAME
from vps_bridge.settings import BridgeSettings

BEFORE, SINCE = ("ann", "ben"), ("cyd", "dan")
Damage = Callable[[list[bytes]], list[bytes]]


def forget(root: Path, *people: str) -> None:
    ledger, store = Ledger(root, exclusive=True), SqliteConversations(root / STORE_FILE)
    for person in people:
        ledger.people.add("", person)
    for person in people:
        People(ledger, store).forget("", person)
    store.close()
    ledger.close()


def known(root: Path) -> list[str]:
    ledger = Ledger(root, exclusive=False)
    found = [person.person_id for person in ledger.people.of_owner("")]
    ledger.close()
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bridge's files: two people were forgotten, four others are known; of this there is a backup."""
    root = tmp_path / "bridge"
    forget(root, *BEFORE)
    ledger = Ledger(root, exclusive=True)
    for person in SINCE:
        ledger.people.add("", person)
    ledger.close()
    make_backup(root, tmp_path / "backup.tar", lambda *_: None)
    ledger, store = Ledger(root, exclusive=True), SqliteConversations(root / STORE_FILE)
    for person in SINCE:
        People(ledger, store).forget("", person)
    store.close()
    ledger.close()
    return root


def damage(root: Path, harm: Damage) -> None:
    """Change the log: its first line, then two of before the backup and two of since."""
    log = root / LOG_NAME
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    log.write_bytes(b"".join(harm(lines)))


def restore(root: Path) -> Restored:
    return restore_backup(root.parent / "backup.tar", root, lambda *_: None, overwrite=True)


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (lambda lines: lines, []),
        (lambda lines: [lines[0], b"\0" * len(lines[1]), *lines[2:]], []),
        (lambda lines: [lines[0], lines[1].rstrip(b"\n"), *lines[2:]], []),
        (lambda lines: [lines[0], *lines[2:]], []),
        (lambda lines: [b"omi-diarizatiXn", lines[0][15:], *lines[1:]], []),
        (lambda lines: [*lines[:4], lines[4].replace(b"person", b"pers\xff\xff")], ["dan"]),
        (lambda lines: [*lines[:4], lines[4][:20]], ["dan"]),
    ],
    ids=["none", "zeros", "two lines are one", "a line is gone", "the first line", "a byte is another", "cut off"],
)
def test_what_can_be_read_is_erased_again_and_what_cannot_is_counted(root: Path, harm: Damage, kept: list[str]) -> None:
    whole = (root / LOG_NAME).read_bytes()
    damage(root, harm)
    is_damaged = (root / LOG_NAME).read_bytes() != whole
    done = restore(root)
    assert known(root) == kept
    assert (done.damaged_erasures > 0) == is_damaged


def test_a_restore_says_what_a_damaged_log_means(tmp_path: Path) -> None:
    call, file = KeptCall(tmp_path / "data"), tmp_path / "backup.tar"
    assert call.run("backup", str(file)).exit_code == 0
    with (tmp_path / "data" / "bridge" / LOG_NAME).open("ab") as log:
        log.write(b"\0\0\0\n")
    done = call.run("restore", str(file), "--overwrite", "--yes")
    assert done.exit_code == 0
    assert "1 lines of erasures.log cannot be read, or are gone" in done.stderr
    assert "--erasures" in done.stderr


@pytest.mark.parametrize("harm", ["zeros", "empty", "a directory", "gone"])
def test_a_bridge_and_the_doctor_say_that_it_cannot_be_read(tmp_path: Path, harm: str) -> None:
    settings = BridgeSettings(data_dir=tmp_path, http_port=0)
    open_files(settings, lambda work: work(), lambda _: None).close()
    (check,) = check_erasures(settings.root)
    assert check.verdict == "ok"
    log = settings.root / LOG_NAME
    if harm == "zeros":
        log.write_bytes(log.read_bytes() + b"\0" * 100)
    elif harm == "empty":
        log.write_bytes(b"")
    else:
        log.unlink()
    if harm == "a directory":
        log.mkdir()
    elif harm != "gone":
        (check,) = check_erasures(settings.root)
        assert check.verdict == "failed"
        assert "1 of its lines cannot be read" in check.found
        assert "Put your copy of the log in its place" in (check.remedy or "")
    with capture_logs() as logs:
        open_files(settings, lambda work: work(), lambda _: None).close()
    (line,) = [line for line in logs if line["event"].startswith("erasures_")]
    assert line["log_level"] == "error"
    assert str(log) in line["log"]
    assert "Put your copy" in line["remedy"]
