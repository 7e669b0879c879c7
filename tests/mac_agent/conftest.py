"""Agents and a bridge for tests of the agent as a whole."""

from __future__ import annotations

import contextlib
import sys
from functools import partial

import pytest

from mac_agent.recycling import RecycleLimits
from mac_agent.worker import Worker, WorkerLimits
from tests.brokers import RunningBroker
from tests.mac_agent.agent_process import AgentProcess, start_tone_agent
from tests.mac_agent.small_bridge import SmallBridge
from tests.mac_agent.sounds import as_wav, tone
from tests.mac_agent.tone_engine import load_tone_engine


@pytest.fixture
def start_agent(tmp_path):
    agents: list[AgentProcess] = []

    def start(broker: RunningBroker, **settings) -> AgentProcess:
        agents.append(start_tone_agent(broker, tmp_path, **settings))
        return agents[-1]

    yield start
    for agent in agents:
        agent.end()
        sys.stdout.write(agent.log()[-6000:])  # pytest shows it where the test failed


@pytest.fixture
def small_bridge():
    with contextlib.ExitStack() as stack:
        yield lambda broker, **options: stack.enter_context(SmallBridge(broker.settings("bridge"), **options))


@pytest.fixture
def behaviour(tmp_path):
    """The file that the tone engine of a worker reads before each job."""
    return tmp_path / "behaviour"


@pytest.fixture
def start_worker(behaviour):
    started: list[Worker] = []

    def start(*, floor_s: float = 60.0, factor: float = 10.0, recycle: RecycleLimits | None = None) -> Worker:
        limits = WorkerLimits(60.0, floor_s, factor)
        worker = Worker(partial(load_tone_engine, behaviour), limits, recycle=recycle)
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.stop()


@pytest.fixture
def speech(tmp_path):
    """Two seconds of a voice, as a file of the inbox."""
    path = tmp_path / "1.audio"
    path.write_bytes(as_wav(tone(300, 2)))
    return path
