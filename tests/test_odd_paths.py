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
