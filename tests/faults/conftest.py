"""Real processes on a real Mosquitto: broker, backend and bridge for the tests of a file, agents for each test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers import RunningBroker, run_mosquitto
from tests.mac_agent.agent_process import AgentProcess, start_tone_agent
from tests.pace import paced_settings
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge

AGENTS = ("first", "second")
StartAgent = Callable[..., AgentProcess]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    with run_mosquitto(tmp_path_factory.mktemp("broker"), agent_ids=AGENTS) as running:
        yield running


@pytest.fixture(scope="module")
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()


@pytest.fixture(scope="module")
def bridge(broker: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveBridge]:
    stale = paced_settings({"OMI_STALE_S": 4.0})
    with run_bridge(broker, tmp_path_factory.mktemp("data"), backend, **stale) as running:
        running.allow(*AGENTS)
        yield running


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Start an agent (`first` by default) with the tone engine on a broker; ended after the test."""
    agents: list[AgentProcess] = []

    def start(broker: RunningBroker, agent_id: str = "first", **settings: object) -> AgentProcess:
        agents.append(start_tone_agent(broker, tmp_path / f"agent-{len(agents)}", agent_id=agent_id, **settings))  # type: ignore[arg-type] # paths and words by name
        return agents[-1]

    yield start
    for agent in agents:
        agent.end()
        sys.stdout.write(agent.log()[-6000:])  # pytest shows it if the test failed
