"""Ctrl-C, SIGTERM and a closed terminal end every program without a traceback, whatever it does at that moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WAIT_S = 60
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
ROOMS = ["vps_bridge", "mac_agent", "broker"]
SLOW = "import time\nprint('importing', flush=True)\ntime.sleep({pause_s})\n"
SWALLOWS = "import time\nprint('importing', flush=True)\ntry:\n    time.sleep(0.5)\nexcept BaseException:\n    pass\n"
TIDY = """
from broker.program import run_program
def app():
    try:
        {work}
        __import__("time").sleep(60)
    finally:
        print("tidied")
run_program(app)
"""


def start(program: str, path: Path, *, ignored: int | None = None) -> subprocess.Popen[str]:
    """Start a Python program; it has the default for every signal but the ignored one."""

    def set_signals() -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{path}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=set_signals,  # noqa: PLW1509 - it takes no lock
    )


def end(process: subprocess.Popen[str], after: str, number: int) -> tuple[int, str, str]:
    """Send a signal once a line was printed; return exit code, what else was printed, and stderr."""
    assert process.stdout is not None
    assert process.stdout.readline() == f"{after}\n"
    process.send_signal(number)
    printed, said = process.communicate(timeout=WAIT_S)
    return process.returncode, printed, said


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("room", ROOMS)
def test_a_program_that_still_imports_ends_without_a_word(room: str, number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(SLOW.format(pause_s=WAIT_S))
    process = start(f"from {room}.__main__ import main; main()", tmp_path)
    assert end(process, "importing", number) == (128 + number, "", "")


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("module", [SLOW.format(pause_s=0.5), SWALLOWS], ids=["slow", "swallows"])
def test_a_command_that_imports_is_ended_once_that_is_done_and_puts_in_order(
    module: str, number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "heavy.py").write_text(module)
    process = start(TIDY.format(work="import heavy"), tmp_path)
    assert end(process, "importing", number) == (128 + number, "tidied\n", "")


@pytest.mark.parametrize("number", ENDING)
def test_a_command_at_work_puts_in_order_what_it_began(number: signal.Signals, tmp_path: Path) -> None:
    process = start(TIDY.format(work="print('at work', flush=True)"), tmp_path)
    assert end(process, "at work", number) == (128 + number, "tidied\n", "")


def test_what_nohup_has_ignored_stays_ignored(tmp_path: Path) -> None:
    process = start(TIDY.format(work="print('at work', flush=True)"), tmp_path, ignored=signal.SIGHUP)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=WAIT_S) == ("tidied\n", "")
