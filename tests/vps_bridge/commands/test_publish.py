"""What `omi-bridge publish` says before and after: of what it cannot send, and of segments that kept their labels."""

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.conversation import ConversationUpdated
from vps_bridge.commands.main import app
from vps_bridge.commands.publish import describe_left_alone


def test_what_may_never_end_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        done = CliRunner().invoke(app, ["publish", str(path), "--conversation", "c"])
        assert done.exit_code == 1
        assert "no regular file" in done.stderr


@pytest.mark.parametrize("moment", ["0001-01-01", "9999-12-31T23:59:59"])
def test_a_time_that_has_no_utc_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setenv("TZ", "UTC-14" if moment.startswith("0001") else "UTC+12")
    time.tzset()
    (tmp_path / "file").write_bytes(b"RIFF")
    try:
        for command, option in (("publish", "--captured-at"), ("import", "--started-at")):
            done = CliRunner().invoke(app, [command, str(tmp_path / "file"), "--conversation", "c", option, moment])
            assert (done.exit_code, "in UTC" in done.stderr) == (1, True)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"no_audio": 1, "two_speakers": 20, "human": 1}, "22 left alone (20 two_speakers, 1 human, 1 no_audio)"),
        ({}, "0 left alone"),
    ],
)
def test_reasons_are_counted_also_where_the_list_did_not_fit_the_update(counts: dict[str, int], words: str) -> None:
    update = ConversationUpdated(conversation_id="c", updated_version=1, state="final", left_alone_counts=counts)
    assert describe_left_alone(update) == words
