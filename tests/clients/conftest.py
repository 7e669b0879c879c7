"""One broker, one bridge with an HTTP door and one agent that answers, for all tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.agent import AgentControl
from tests.brokers import RunningBroker, run_mosquitto
from tests.clients.installed import install_node_example, install_package
from tests.vps_bridge.http.door import answering, open_door
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, run_bridge
from tests.vps_bridge.scripted_agent import ScriptedAgent

ALONE = ((0.5, 9.0, "a"), (10.0, 29.0, "a"))


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    with run_mosquitto(tmp_path_factory.mktemp("broker"), agent_ids=("first",)) as broker:
        yield broker


@pytest.fixture(scope="module")
def backend(mosquitto: RunningBroker) -> Iterator[Backend]:
    peer = Backend(mosquitto)
    yield peer
    peer.stop()


@pytest.fixture(scope="module")
def bridge(
    mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveBridge]:
    """A bridge whose agent hears two people in every conversation, and one in an enrolment."""

    def reply(agent: ScriptedAgent, offer: AgentControl) -> None:
        is_enrolment = (offer.conversation_id or "").startswith("enrolment")
        agent.answer(offer, ALONE if is_enrolment else CALL_TURNS)

    with run_bridge(mosquitto, tmp_path_factory.mktemp("data"), backend, **open_door()) as running:
        running.allow("first")
        with answering(mosquitto, reply):
            yield running


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the Python package and what it needs."""
    return install_package(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def node_example() -> Path:
    """The example for Node with what it needs."""
    return install_node_example()
