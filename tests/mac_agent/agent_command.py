"""`omi-agent` as a person types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.inbox import WAIT_S

ROOT = Path(__file__).parents[2]


def omi_agent(
    *arguments: str | Path, data_dir: Path, timeout_s: float = WAIT_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end and return what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "mac_agent.commands.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMI_DATA_DIR": str(data_dir), "COLUMNS": "200", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
