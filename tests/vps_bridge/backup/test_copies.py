"""What a backup says where its copies of the databases cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.vps_bridge.commands.kept_call import KeptCall


def test_where_a_quota_stops_a_copy_no_file_of_the_bridge_is_blamed(tmp_path: Path) -> None:
    """Nobody may be told to move a ledger away that is whole."""
    call, file = KeptCall(tmp_path / "data"), tmp_path / "backup.tar"
    call.run("backup", str(file))
    made = file.read_bytes()
    command = [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "backup", str(file)]
    shell = 'ulimit -f 64; exec "$0" "$@"'  # KiB
    environment = os.environ | {"OMI_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        ["bash", "-c", shell, *command], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "the copy cannot be written" in done.stderr
    assert "move the file" not in done.stderr
    assert file.read_bytes() == made
