"""A machine is kept awake while there is work, and no longer. `caffeinate` is a stand-in program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mac_agent.wakefulness import LINGER_S, RETRY_S, Wakefulness, default_program
from tests.brokers import AGENT_ID, run_mosquitto
from tests.hand_clock import HandClock
from tests.inbox import eventually
from tests.mac_agent.small_bridge import SmallBridge
from tests.mac_agent.sounds import as_wav, tone

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock():
    return HandClock(0.0)


@pytest.fixture
def caffeinate(tmp_path):
    """As macOS's: with `-w PID` it lasts until that process is gone."""
    program = tmp_path / "caffeinate"
    program.write_text(
        f"#!/bin/sh\necho \"$*\" >> '{tmp_path}/calls'\nwhile kill -0 $3 2>/dev/null; do sleep 0.1; done\n"
    )
    program.chmod(0o755)
    return program


def calls(caffeinate: Path) -> list[str]:
    file = caffeinate.parent / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_held_while_busy_and_a_little_longer(caffeinate, clock):
    wakefulness = Wakefulness(str(caffeinate), clock=clock)
    wakefulness.update(is_busy=False)
    assert not wakefulness.is_held
    for _ in range(5):
        wakefulness.update(is_busy=True)
        clock.now_s += LINGER_S / 2
    held = wakefulness.is_held
    eventually(lambda: calls(caffeinate) == [f"-i -w {os.getpid()}"])
    wakefulness.update(is_busy=False)
    still_held = wakefulness.is_held
    clock.now_s += LINGER_S
    wakefulness.update(is_busy=False)
    assert (held, still_held, wakefulness.is_held) == (True, True, False)


def test_one_that_ends_by_itself_is_not_started_in_a_storm(tmp_path, clock):
    wakefulness = Wakefulness("/bin/true", clock=clock)
    started = 0
    for _ in range(200):
        wakefulness.update(is_busy=True)
        process = wakefulness._process
        if process is not None and process.args and process.poll() is None:
            process.wait()
            started += 1
        clock.now_s += RETRY_S / 100
    assert started <= 3


def test_a_mac_without_caffeinate_works_on(clock):
    wakefulness = Wakefulness("/nowhere/caffeinate", clock=clock)
    wakefulness.update(is_busy=True)
    assert not wakefulness.is_held
    wakefulness.release()


@pytest.mark.skipif(sys.platform == "darwin", reason="what happens elsewhere than on a Mac")
def test_elsewhere_nothing_is_started(clock):
    wakefulness = Wakefulness(default_program(), clock=clock)
    wakefulness.update(is_busy=True)
    assert not wakefulness.is_held


# The agent as it is, on a "Mac" whose caffeinate is the one named in the environment.
AGENT = """
import os
import mac_agent.agent as agent
agent.default_program = lambda: os.environ["TEST_CAFFEINATE"]
from tests.mac_agent.tone_agent import main
main()
"""


def test_the_agent_is_awake_during_a_job_and_its_caffeinate_dies_with_it(tmp_path, caffeinate):
    (tmp_path / "behaviour").write_text("")
    log = tmp_path / "logs" / "agent.log"
    with run_mosquitto(tmp_path) as broker, SmallBridge(broker.settings("bridge")) as bridge:
        environment = broker.environment("agent") | {
            "OMI_AGENT_ID": AGENT_ID,
            "OMI_DATA_DIR": str(tmp_path / "agent"),
            "OMI_HEARTBEAT_S": "0.5",
            "OMI_LOG_FILE": str(log),
            "OMI_TEST_BEHAVIOUR": str(tmp_path / "behaviour"),
            "PYTHONPATH": str(ROOT),
            "TEST_CAFFEINATE": str(caffeinate),
        }
        agent = subprocess.Popen([sys.executable, "-c", AGENT], env=environment, cwd=ROOT)
        try:
            bridge.wait_online()
            assert calls(caffeinate) == []
            bridge.offer("job-1", as_wav(tone(300, 3)))
            bridge.wait_turns("job-1")
            eventually(lambda: calls(caffeinate) == [f"-i -w {agent.pid}"])
            holders = [
                child for child in psutil.Process(agent.pid).children() if "caffeinate" in " ".join(child.cmdline())
            ]
            assert len(holders) == 1
        finally:
            agent.kill()
            agent.wait()
        eventually(lambda: not holders[0].is_running() or holders[0].status() == psutil.STATUS_ZOMBIE)
    assert "job done" in log.read_text()
    assert time.time() - log.stat().st_mtime < 600
