"""`omi-bridge agents`: who is live, told by when it was heard, and what last went wrong on its machine."""

import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vps_bridge.commands.main import app
from vps_bridge.ledger import Ledger

WHY = "campplus.pt is missing. Run: omi-agent fetch-model embedded"


def list_agents(tmp_path: Path, *beats: dict[str, Any]) -> str:
    ledger = Ledger(tmp_path / "bridge", exclusive=True)
    for number, beat in enumerate(beats):
        ledger.agents.note_heartbeat(f"mac-{number}", beat)
    ledger.close()
    return CliRunner().invoke(app, ["agents", "--data-dir", str(tmp_path)]).output


@pytest.mark.parametrize("state", ["starting", "online", "draining"])
def test_an_agent_not_heard_for_long_is_not_called_by_its_last_state(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 60.0)
    assert state in list_agents(tmp_path, {"state": state})
    monkeypatch.setattr(time, "time", lambda: now)
    said = list_agents(tmp_path)
    assert "silent" in said
    assert state not in said


def test_a_stopped_agent_says_why_it_stopped(tmp_path: Path) -> None:
    said = list_agents(tmp_path, {"state": "stopped", "last_error": WHY}, {"state": "online"})
    assert f"mac-0, last error: {WHY}\n" in said
    assert "mac-1, last error" not in said
