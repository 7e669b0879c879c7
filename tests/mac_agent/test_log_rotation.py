"""The log of a service never fills the disk, and what a worker writes stays in it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inbox import WAIT_S

ROOT = Path(__file__).parents[2]
# Writes numbered lines to stderr from this process and from a child that inherited it, rotating as the agent does.
CHATTY = """
import itertools, os, subprocess, sys
from pathlib import Path
from mac_agent.log_file import LogFile

clock = itertools.count(step=61)
log = LogFile(Path(sys.argv[1]), max_bytes=20_000, clock=lambda: next(clock))
log.take_output()
child = subprocess.Popen([sys.executable, "-uc", "import sys\\nfor line in sys.stdin: sys.stderr.write(line)"],
                         stdin=subprocess.PIPE, text=True, bufsize=1)
for number in range(6_000):
    sys.stderr.write(f"parent {number:06d}\\n")
    child.stdin.write(f"child  {number:06d}\\n")
    if number % 100 == 0:
        log.rotate_if_due()
child.stdin.close()
child.wait()
print("last words")
"""


def test_a_log_is_rotated_in_place_for_every_process_that_writes_it(tmp_path):
    log = tmp_path / "logs" / "agent.log"
    done = subprocess.run(
        [sys.executable, "-c", CHATTY, log], cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    assert done.returncode == 0, log.read_text()[-2000:]
    files = sorted(log.parent.iterdir())
    rotated = len(files) - 1  # how often it turns depends on how the two processes take turns
    assert 2 <= rotated <= 5
    assert [file.name for file in files] == ["agent.log", *(f"agent.log.{number}" for number in range(1, rotated + 1))]
    assert all(file.stat().st_size < 100_000 for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    text = b"".join(file.read_bytes() for file in reversed(files))
    assert b"\0" not in text  # no hole where the file was cut
    assert text.endswith(b"last words\n")
    assert b"parent 005999" in text
    assert b"child  005999" in text


def test_a_small_log_is_added_to_and_left_alone(tmp_path):
    log = tmp_path / "agent.log"
    script = "import sys; from pathlib import Path; from mac_agent.log_file import LogFile\n"
    script += "LogFile(Path(sys.argv[1])).take_output(); print('hello')"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, log], cwd=ROOT, check=True)
    assert log.read_text() == "hello\nhello\n"
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize("kind", ["a full device", "a pipe that nobody reads", "a directory"])
def test_a_log_that_takes_nothing_is_named_and_the_agent_ends(tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    if kind == "a full device":
        log = Path("/dev/full")
    elif kind == "a directory":
        log.mkdir()
    else:
        os.mkfifo(log)
    done = subprocess.run(
        [sys.executable, "-m", "mac_agent", "run", "--engine", "embedded", "--data-dir", tmp_path / "data"],
        cwd=ROOT,
        env={**os.environ, "OMI_LOG_FILE": str(log), "OMI_CONFIG": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert done.returncode == 1
    assert f"omi-agent: {log}: " in done.stderr
    assert "Check that it is the right path" in done.stderr
