"""Draining an agent: what nobody said is not taken for done, and why is told."""

import pytest

from schemas.agent import AgentState
from tests.brokers import RunningBroker
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.client.drain import AgentNotDrained, DrainForbidden, drain_agent


def test_who_may_not_tell_agents_what_to_do_is_told_so(mosquitto: RunningBroker) -> None:
    with pytest.raises(DrainForbidden, match="does not let user backend"):
        drain_agent(mosquitto.settings("backend"), "l-1", "first", until_empty=False, timeout_s=30)


@pytest.mark.parametrize("until_empty", [False, True])
def test_an_agent_that_lost_its_connection_is_not_drained(mosquitto: RunningBroker, until_empty: bool) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        agent.state = AgentState.OFFLINE
        with pytest.raises(AgentNotDrained, match="has lost its connection"):
            drain_agent(mosquitto.settings("bridge"), "l-1", "first", until_empty=until_empty, timeout_s=2)
