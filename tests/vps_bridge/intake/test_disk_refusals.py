"""What a publisher is told where the disk does not take its audio: no room is only one of the reasons."""

import errno
import os
from pathlib import Path

import pytest

from schemas.failure import FailureCode
from vps_bridge.errors import DatabaseMoved, refusal_of
from vps_bridge.intake.spool import Spool


def test_a_spool_directory_that_is_gone_is_not_called_full_and_a_start_makes_it_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    with pytest.raises(FileNotFoundError) as gone:
        spool.write(b"audio")
    refusal = refusal_of(gone.value)
    assert "restart the bridge" in refusal.message
    assert "make room" not in refusal.message
    assert refusal.is_retryable
    Spool(tmp_path / "spool").write(b"audio")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "chown"),
        (errno.EROFS, "for writing"),
        (errno.EIO, "dmesg"),
    ],
)
def test_each_reason_has_a_remedy_of_its_own(number: int, words: str) -> None:
    refusal = refusal_of(OSError(number, os.strerror(number)))
    assert refusal.code is FailureCode.DISK_FULL
    assert words in refusal.message


def test_a_database_that_was_moved_away_is_not_a_full_disk(tmp_path: Path) -> None:
    refusal = refusal_of(DatabaseMoved(tmp_path / "ledger.sqlite3"))
    assert "put it back" in refusal.message
    assert "make room" not in refusal.message
