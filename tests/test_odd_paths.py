"""A path that cannot be is told in one line, whichever program it is given to: no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def run(module: str, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "1000", "OMI_HTTP_PORT": "0"},
        capture_output=True,
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
