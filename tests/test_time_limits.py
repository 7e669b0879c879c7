"""A test that hangs fails by its own name, however it hangs, and the others of its worker still run. What a test may
wait for grows with the load of the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pace
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

@pytest.fixture(scope="module")
def hangs():
    time.sleep(600)

@pytest.mark.parametrize("way", WAYS)
def test_hangs(way):
    WAYS[way]()

def test_has_a_fixture_that_hangs(hangs):
    pass

@pytest.mark.timeout(300)
def test_after_it_runs():
    pass
"""


@pytest.mark.slow
def test_a_test_that_hangs_fails_by_its_name_and_the_next_one_runs(tmp_path):
    (tmp_path / "test_hanging.py").write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, tmp_path]
    command += ["-p", "no:cacheprovider", "-n", "1", "-o", "timeout=1", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    for way in ("sleep", "event", "process", "socket", "busy"):
        assert f"FAILED test_hanging.py::test_hangs[{way}] - Failed: Timeout" in done.stdout, done.stdout
    assert "ERROR test_hanging.py::test_has_a_fixture_that_hangs - Failed: Timeout" in done.stdout, done.stdout
    assert "5 failed, 1 passed, 1 error" in done.stdout


@pytest.mark.parametrize(("load_per_core", "times"), [(0.0, 1), (2.0, 1), (4.0, 2), (8.0, 4), (1_000.0, 8)])
def test_a_busy_machine_gets_more_time_up_to_a_limit(monkeypatch, load_per_core, times):
    load = load_per_core * (os.cpu_count() or 1)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(pace, "_slowness", lambda: 1.0)
    assert pace.paced(3.0) == pytest.approx(3.0 * times)
    assert pace.paced_settings({"OMI_STALE_S": 3.0}) == {"OMI_STALE_S": f"{3.0 * times:.2f}"}


def test_a_slow_machine_gets_more_time():
    assert 1.0 <= pace._slowness() < 1_000.0
