"""What goes wrong in the worker costs one attempt at one job: never the agent, its connection or its heartbeat.

A real agent process on a real Mosquitto, watched as the bridge watches it: by the beats that arrive.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass

import psutil
import pytest

from schemas.agent import AgentHeartbeat, AgentState
from tests.brokers import AGENT_ID, RunningBroker
from tests.e2e.system import worker_pids
from tests.inbox import WAIT_S, eventually
from tests.mac_agent.small_bridge import SmallBridge
from tests.mac_agent.sounds import as_wav, tone
from tests.pace import paced

HEARTBEAT_S = 0.5
JOB_TIMEOUT_S = 6.0  # a dozen heartbeats: an agent whose loop waits for a stopped worker sends none meanwhile
WORKER_GB = 0.5


@dataclass(frozen=True)
class WorkerFault:
    behaviour: str
    """What the engine does at the first job, and not again."""
    code: str
    says: str
    strike: signal.Signals | None = None
    """What comes from outside once the engine is at work."""


FAULTS = {
    "kill -9": WorkerFault("wait 600", "engine.crashed", "signal 9", signal.SIGKILL),
    "SIGSTOP": WorkerFault("wait 600", "engine.timeout", "did not finish within", signal.SIGSTOP),
    "segfault": WorkerFault("segfault", "engine.crashed", "signal 11"),
    "allocation bomb": WorkerFault("bomb", "engine.crashed", "OMI_MAX_WORKER_GB"),
    "allocation bomb the system refuses": WorkerFault("bomb refused", "engine.failed", "out of memory"),
}


def assert_one_life(bridge: SmallBridge, born: AgentHeartbeat, mosquitto: RunningBroker) -> None:
    """One process, online in every beat, on one connection."""
    beats = [beat for beat in bridge.beats.items if not beat.retained]
    alive = beats[next(n for n, beat in enumerate(beats) if beat.message.state is AgentState.ONLINE) :]
    assert {beat.message.state for beat in alive} == {AgentState.ONLINE}
    assert {beat.message.instance_id for beat in beats} == {born.instance_id}
    assert len(re.findall(rf"New client connected from \S+ as {AGENT_ID}-", mosquitto.log_file.read_text())) == 1


LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="this system limits no process's memory")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=LINUX_ONLY if "refused" in fault.behaviour else ()) for name, fault in FAULTS.items()],
)
def test_the_agent_stays_connected_and_beats_while_its_worker_dies(mosquitto, start_agent, small_bridge, name):
    fault = FAULTS[name]
    bridge = small_bridge(mosquitto)
    agent = start_agent(
        mosquitto,
        behaviour=f"once {fault.behaviour}",
        heartbeat_s=HEARTBEAT_S,
        job_timeout_floor_s=paced(JOB_TIMEOUT_S) if fault.strike is signal.SIGSTOP else 600,
        job_timeout_factor=0,
        max_worker_gb=WORKER_GB,
    )
    born = bridge.wait_online()
    (worker,) = worker_pids(agent.pid)

    bridge.offer("job-1", as_wav(tone(300, 2)))
    eventually(lambda: agent.behaviour.read_text() == "", WAIT_S)
    struck = len(bridge.beats.items)
    if fault.strike is not None:
        os.kill(worker, fault.strike)
    failure = bridge.wait_failure("job-1", WAIT_S)
    beats_at_work = [beat for beat in bridge.beats.items[struck:] if beat.state_of("job-1") == "running"]
    assert len(beats_at_work) > 3 or fault.strike is not signal.SIGSTOP, "it must beat on while it waits for its worker"
    assert (failure.code, failure.retryable, failure.lease_id) == (fault.code, True, "lease-1")
    assert fault.says in failure.message
    beat = bridge.wait_beat(lambda beat: beat.message.jobs_failed == 1)
    assert (beat.last_error or "").startswith(fault.code)

    bridge.offer("job-1", as_wav(tone(300, 2)), lease_id="lease-2", attempt=2)
    again = bridge.wait_turns("job-1", WAIT_S)
    assert (again.lease_id, [turn.speaker for turn in again.turns]) == ("lease-2", ["TONE_300"])
    bridge.offer("job-2", as_wav(tone(700, 3)))
    assert [turn.speaker for turn in bridge.wait_turns("job-2", WAIT_S).turns] == ["TONE_700"]
    bridge.wait_beat(lambda beat: beat.message.jobs_done == 2)
    assert_one_life(bridge, born, mosquitto)
    assert not psutil.pid_exists(worker)
    (replacement,) = worker_pids(agent.pid)
    assert agent.stop() == 0
    assert not psutil.pid_exists(replacement)
