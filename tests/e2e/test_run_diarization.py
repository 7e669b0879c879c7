"""The one call that a backend makes today: it returns turns, or an empty list and logs the reason."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.e2e.system import System, sample_folder
from tests.inbox import WAIT_S
from tests.pace import paced
from vps_bridge import run_diarization
from vps_bridge.durations import seconds


@pytest.fixture
def as_backend(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """The environment of a backend of a system of this test alone, of which only the broker runs."""
    _become_backend(system, monkeypatch)
    return system


@pytest.fixture
def served_backend(working_system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """The environment of a backend of a system whose bridge and agent run."""
    _become_backend(working_system, monkeypatch)
    return working_system


def _become_backend(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in system.environment("backend").items():
        if name.startswith("OMI_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENABLE_SPEAKER_DIARIZATION", "true")
    for name in ("TIMEOUT_S", "AGENT_TIMEOUT_S", "DELETE_TIMEOUT_S"):
        monkeypatch.setattr(f"vps_bridge.client.run_diarization.{name}", WAIT_S)


def _reasons(logs: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(str(line.get("reason")) for line in logs)


def test_it_returns_who_spoke_when_and_leaves_nothing_behind(served_backend: System) -> None:
    turns = asyncio.run(run_diarization(sample_folder() / "sample.wav", num_speakers=2))
    assert {turn["speaker_id"] for turn in turns} == {"SPEAKER_00", "SPEAKER_01"}
    assert all(0 <= turn["start"] < turn["end"] <= 30.1 for turn in turns)
    assert sum(turn["end"] - turn["start"] for turn in turns) > 15
    assert served_backend.command("omi-bridge", "conversations", "--json").strip() == "[]"
    assert not any(served_backend.spool.iterdir())


def test_it_is_off_unless_it_is_switched_on(as_backend: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENABLE_SPEAKER_DIARIZATION")
    with capture_logs() as logs:
        assert asyncio.run(run_diarization(sample_folder() / "sample.wav")) == []
    assert "ENABLE_SPEAKER_DIARIZATION is not true" in _reasons(logs)


def test_without_an_agent_it_says_so(as_backend: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vps_bridge.client.run_diarization.AGENT_TIMEOUT_S", paced(3.0))
    as_backend.start_bridge()
    with capture_logs() as logs:
        assert asyncio.run(run_diarization(sample_folder() / "sample.wav")) == []
    assert "no agent is live and allowed" in _reasons(logs)


def test_a_file_that_is_no_audio_gives_no_turns(served_backend: System, tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("these are notes")
    with capture_logs() as logs:
        assert asyncio.run(run_diarization(text)) == []
    assert "audio.undecodable" in _reasons(logs)


def test_in_time_or_not_at_all(as_backend: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is live and allowed, but suspended before it can do the job."""
    timeout_s = paced(4.0)
    monkeypatch.setattr("vps_bridge.client.run_diarization.TIMEOUT_S", timeout_s)
    as_backend.start_bridge(OMI_STALE_S="600", OMI_GRACE_S="600")
    agent = as_backend.start_agent()
    as_backend.allow_agent()
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        with capture_logs() as logs:
            assert asyncio.run(run_diarization(sample_folder() / "sample.wav")) == []
        assert f"no labels within {seconds(timeout_s)}: look at" in _reasons(logs)
        assert as_backend.command("omi-bridge", "conversations", "--json").strip() == "[]"
    finally:
        os.kill(agent.pid, signal.SIGCONT)
