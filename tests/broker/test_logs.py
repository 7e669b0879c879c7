"""The log of a program whose stderr is closed: lines are lost, and no thread dies of it."""

import subprocess
import sys

import pytest

CLOSED = """
import sys, structlog
from broker.logs import configure_logs, silence_logs
{set_up}
sys.stderr.close()
structlog.get_logger("a").critical("nobody reads this")
print("goes on")
"""


@pytest.mark.parametrize("set_up", ["configure_logs(as_json=True)", "configure_logs(as_json=False)", "silence_logs()"])
def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(set_up: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLOSED.format(set_up=set_up)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
