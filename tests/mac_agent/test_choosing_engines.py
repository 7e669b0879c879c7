"""Which engine runs where none is configured, and that the commands report it with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mac_agent.engine_choice import choose_engine
from mac_agent.settings import AgentSettings
from mac_agent.weights.hub import copy_pipeline
from mac_agent.weights.models import EMBEDDED, EMBEDDED_GE2E, GENERATIONS, embedded_dir
from tests.inbox import WAIT_S
from tests.mac_agent.small_hub import PIPELINE_FILES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own(tmp_path) -> Path:
    """A directory with every file of a pipeline, none of which can be loaded."""
    directory = tmp_path / "own"
    for name, content in PIPELINE_FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def settings(tmp_path: Path, **fields) -> AgentSettings:
    return AgentSettings(data_dir=tmp_path / "data", **fields)


def test_without_a_pipeline_the_embedded_engine_runs_and_the_reason_says_how_to_get_one(tmp_path):
    choice = choose_engine(settings(tmp_path))
    assert choice.engine == "embedded"
    assert "omi-agent fetch-model pyannote" in choice.reason


def test_a_fetched_pipeline_makes_pyannote_the_engine(tmp_path, own):
    copy_pipeline(tmp_path / "data", own)
    assert choose_engine(settings(tmp_path)).engine == "pyannote"
    assert choose_engine(settings(tmp_path, engine="embedded")).engine == "embedded"


def test_a_pipeline_of_ones_own_makes_pyannote_the_engine_trusted_or_not(tmp_path, own):
    assert choose_engine(settings(tmp_path, pipeline_dir=own)).engine == "pyannote"


def test_a_changed_pipeline_is_not_silently_replaced_by_another_engine(tmp_path, own):
    pipeline = copy_pipeline(tmp_path / "data", own)
    (pipeline.directory / "plda" / "plda.npz").write_bytes(b"other")
    choice = choose_engine(settings(tmp_path))
    assert choice.engine == "pyannote"
    assert "cannot be used" in choice.reason


def test_who_has_the_first_generation_of_embedded_keeps_it_until_the_second_is_fetched(tmp_path):
    _write_weights(tmp_path / "data", EMBEDDED_GE2E)
    for engine in ("auto", "embedded"):
        choice = choose_engine(settings(tmp_path, engine=engine))
        assert choice.engine == "embedded-ge2e"
        assert "omi-agent fetch-model embedded" in choice.reason
    _write_weights(tmp_path / "data", EMBEDDED)
    assert choose_engine(settings(tmp_path)).engine == "embedded"
    assert choose_engine(settings(tmp_path, engine="embedded-ge2e")).engine == "embedded-ge2e"


def _write_weights(data_dir: Path, engine: str) -> None:
    """Put a file under the name of each of an engine's, which is not the pinned one."""
    folder = embedded_dir(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for weights in GENERATIONS[engine]:
        (folder / weights.name).write_bytes(b"weights")


def test_the_commands_say_which_engine_runs_and_why(tmp_path, own):
    environment = {**os.environ, "OMI_DATA_DIR": str(tmp_path / "data"), "NO_COLOR": "1", "COLUMNS": "200"}

    def engines(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mac_agent.commands.main", "engines", *(["--json"] if "json" in more else [])],
            cwd=ROOT, env=environment | {name: value for name, value in more.items() if name != "json"},
            capture_output=True, text=True, check=False, timeout=WAIT_S,
        )  # fmt: skip

    nothing = engines().stdout
    assert "embedded is chosen and cannot run: the list says what to do (auto: no pipeline of pyannote is" in nothing
    assert "omi-agent fetch-model embedded" in nothing
    copy_pipeline(tmp_path / "data", own)
    assert "pyannote runs (auto: a pipeline of it is here)" in engines().stdout
    rows = {row["engine"]: row for row in json.loads(engines(json="").stdout)}
    assert (rows["pyannote"]["chosen"], rows["pyannote"]["ready"]) == (True, True)
    assert (rows["embedded"]["chosen"], rows["embedded"]["why"]) == (False, None)
    assert "pyannote runs (as set)" in engines(OMI_ENGINE="pyannote").stdout
    _write_weights(tmp_path / "data", EMBEDDED)
    damaged = engines(OMI_ENGINE="embedded").stdout
    assert "embedded is chosen and cannot run" in damaged
    assert "embedded runs" not in damaged, "its file is damaged"
    unknown = engines(OMI_ENGINE="magic")
    assert unknown.returncode == 2
    assert "choose auto, embedded, embedded-ge2e or pyannote" in unknown.stderr
