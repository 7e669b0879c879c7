"""A bridge's database that is not there any more is missed aloud: a new one is only made where somebody says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge
from vps_bridge.conversations.sqlite import STORE_FILE
from vps_bridge.ledger.ledger import FILE_NAME


@pytest.fixture(params=[FILE_NAME, STORE_FILE])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the file was."""
    return tmp_path / "data" / "bridge" / str(request.param)


@pytest.fixture
def gone(path: Path, mosquitto: RunningBroker, backend: Backend, tmp_path: Path) -> LiveBridge:
    """A bridge that has stopped, and its file was moved away."""
    with run_bridge(mosquitto, tmp_path / "data", backend) as bridge:
        backend.send_call("call")
    path.rename(tmp_path / path.name)
    return bridge


def test_nothing_is_begun_anew_and_everybody_says_what_is_gone(gone: LiveBridge, path: Path, tmp_path: Path) -> None:
    gone.spawn()
    assert gone.process is not None
    assert gone.process.wait(60) not in (0, -9)
    assert f"{path} is gone" in gone.log_file.read_text()
    doctor = gone.command("doctor", check=False)
    assert "is gone, and a bridge has run here" in " ".join(doctor.stdout.split())
    assert doctor.returncode != 0
    made = gone.command("backup", str(tmp_path / "backup.tar"), check=False)
    assert made.returncode != 0, "a backup without it would replace the last one that has it"
    assert "is gone, and a bridge has run here" in " ".join(made.stderr.split())
    assert not path.exists(), "nobody made an empty one"


def test_it_comes_back_with_its_file_or_without_where_that_is_wanted(
    gone: LiveBridge, path: Path, backend: Backend, tmp_path: Path
) -> None:
    path.touch(mode=0o600)
    gone.start(backend)
    assert gone.stop() == 0
    path.unlink()
    (tmp_path / path.name).rename(path)
    gone.start(backend)
    assert gone.stop() == 0
    assert gone.json("show", "call")["segments"]
