"""A test that hangs fails by its own name, however it hangs, and the others of its worker still run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.inbox import WAIT_S

ROOT = Path(__file__).resolve().parents[1]
HANGING = """
import socket, subprocess, threading, time
import pytest

def read_from_nobody():
    ours, _theirs = socket.socketpair()
    ours.recv(1)

def spin():
    while True:
        pass

WAYS = {
    "sleep": lambda: time.sleep(600),
    "event": lambda: threading.Event().wait(600),
    "process": lambda: subprocess.run(["sleep", "600"]),
    "socket": read_from_nobody,
    "busy": spin,
}

@pytest.mark.parametrize("way", WAYS)
def test_hangs(way):
    WAYS[way]()

def test_after_it_runs():
    pass
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_test_that_hangs_fails_by_its_name_and_the_next_one_runs(tmp_path, workers):
    (tmp_path / "test_hanging.py").write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, tmp_path]
    command += ["-p", "no:cacheprovider", "-n", workers, "-o", "timeout=1", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    for way in ("sleep", "event", "process", "socket", "busy"):
        assert f"FAILED test_hanging.py::test_hangs[{way}] - Failed: Timeout" in done.stdout, done.stdout
    assert "5 failed, 1 passed" in done.stdout
