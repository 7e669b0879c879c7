"""What attacks here are made on: a real Mosquitto with users for agents and a stranger, and a backend."""

from collections.abc import Iterator

import pytest

from tests.brokers import RunningBroker, run_mosquitto
from tests.vps_bridge.live_bridge import Backend

AGENTS = ("first", "second", "stranger")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    with run_mosquitto(tmp_path_factory.mktemp("broker"), agent_ids=AGENTS) as running:
        yield running


@pytest.fixture(scope="module")
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()
