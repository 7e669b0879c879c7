"""What a command says where the disk does not take what it writes, though the files are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vps_bridge.commands.kept_call import KeptCall


@pytest.mark.parametrize("limit_kib", [0, 16])
def test_where_a_limit_stops_a_write_nobody_is_told_to_move_a_whole_database_away(
    tmp_path: Path, limit_kib: int
) -> None:
    call = KeptCall(tmp_path / "data")
    command = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "agents", "allow", "another"]
    shell = f'ulimit -f {limit_kib}; exec "$0" "$@"'
    environment = os.environ | {"OMI_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        ["bash", "-c", shell, *command], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "leave it where it is" in done.stderr
    assert call.run("agents", "allow", "another").exit_code == 0
