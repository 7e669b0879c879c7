"""Agents and a bridge for tests of the agent as a whole."""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.brokers import RunningBroker
from tests.mac_agent.agent_process import AgentProcess, start_tone_agent
from tests.mac_agent.small_bridge import SmallBridge


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
