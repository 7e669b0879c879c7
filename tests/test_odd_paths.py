"""A path that cannot be is told in one line, whichever program it is given to: no traceback."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import pytest

from broker.errors import SettingsError
from broker.settings import load_settings
from mac_agent.settings import AgentSettings

PROGRAMS = {
    "omi-bridge": ("vps_bridge.commands.main", ["jobs", "--data-dir"]),
    "omi-agent": ("mac_agent.commands.main", ["config", "--data-dir"]),
    "omi-broker": ("broker.cli", ["add-agent"]),
}


@pytest.mark.parametrize("kind", ["a file", "a link to itself", "a name too long"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_directory_that_cannot_be_one_is_named_and_no_traceback_is_shown(
    program: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / ("x" * 300 if kind == "a name too long" else "odd")
    if kind == "a file":
        path.write_text("no directory")
    elif kind == "a link to itself":
        path.symlink_to(path)
    module, arguments = PROGRAMS[program]
    more = ["mini"] if program == "omi-broker" else []
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *arguments, str(path), *more],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(path)[:100] in done.stderr


def run(
    module: str,
    home: Path,
    *arguments: str,
    stdout: int | TextIO = subprocess.PIPE,
    stderr: int | TextIO = subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    own = {"PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "1000", "OMI_HTTP_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *arguments],
        env={**own, **(environment or {})},
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("vps_bridge.commands.main", ["run", "--data-dir"]),
        ("mac_agent.commands.main", ["run", "--data-dir"]),
        ("mac_agent.commands.main", ["fetch-model", "embedded", "--data-dir"]),
    ],
    ids=["omi-bridge run", "omi-agent run", "omi-agent fetch-model"],
)
def test_what_is_in_the_way_of_a_directory_is_named_with_what_to_do(
    module: str, arguments: list[str], tmp_path: Path
) -> None:
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "gone")
    done = run(module, tmp_path, *arguments, str(link))
    assert done.returncode == 1
    assert f"{link}: a directory is needed there" in done.stderr.replace("/models/embedded", "").replace("/models", "")
    assert "Check that it is the right path" in done.stderr


def test_ctrl_c_before_a_command_begins_shows_no_traceback(tmp_path: Path) -> None:
    interrupted = "from broker.program import run_program\ndef app(): raise KeyboardInterrupt\nrun_program(app)"
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


ROOMS = ["vps_bridge", "mac_agent", "broker"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["vps_bridge", "jobs", "--data-dir", ""],
        ["vps_bridge", "config", "--config", ""],
        ["vps_bridge", "backup", " "],
        ["vps_bridge", "watch-folder", ""],
        ["vps_bridge", "agents", "--data-dir", ""],
        ["mac_agent", "config", "--data-dir", ""],
        ["mac_agent", "trust", ""],
        ["broker", "users", "--data-dir", ""],
        ["broker", "add-agent", "", "mini"],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_refused_and_is_not_the_current_directory(arguments: list[str], tmp_path: Path) -> None:
    module, *rest = arguments
    done = run(f"{module}.__main__", tmp_path, *rest)
    assert done.returncode == 2
    assert "it is empty: name a path, or leave it out" in done.stderr


@pytest.mark.parametrize("module", ROOMS)
def test_an_empty_data_directory_in_the_environment_or_a_file_is_refused(module: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('data_dir = ""\n')
    for environment in ({"OMI_DATA_DIR": ""}, {"OMI_CONFIG": str(tmp_path / "config.toml")}):
        done = run(f"{module}.__main__", tmp_path, "config", environment=environment)
        assert done.returncode != 0
        assert "setting data_dir (from " in done.stderr
        assert "is empty: name a " in done.stderr


@pytest.mark.parametrize("field", ["inbox_dir", "weights_dir", "pipeline_dir", "log_file"])
def test_an_empty_path_in_a_config_file_is_refused(field: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[agent]\n{field} = ""\n')
    with pytest.raises(SettingsError, match=f"{field} .*is empty: name a path"):
        load_settings(AgentSettings, flags={}, config_file=tmp_path / "config.toml")


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["--help"]], ids=" ".join)
@pytest.mark.parametrize("module", ROOMS)
def test_output_that_finds_no_room_is_told_in_one_line(module: str, arguments: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(f"{module}.__main__", tmp_path, *arguments, stdout=full)
        assert done.returncode == 1
        assert done.stderr.partition(": ")[2] == (
            "standard output: No space left on device. Make room there, or send it elsewhere.\n"
        )
        assert run(f"{module}.__main__", tmp_path, *arguments, stderr=full).returncode == 0


def test_a_broker_whose_output_finds_no_room_ends_in_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("broker.__main__", tmp_path, "run", "--port", "0", stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("Make room there, or send it elsewhere.")
    assert "Traceback" not in done.stderr
