"""Bridges with an HTTP door: one for a file's tests, or one for a test alone."""

from collections.abc import Iterator

import pytest

from tests.brokers import RunningBroker
from tests.vps_bridge.http.door import Door, open_door
from tests.vps_bridge.live_bridge import Backend, run_bridge


@pytest.fixture(scope="module")
def door(mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One bridge for a file's tests, each of which uses conversations of its own."""
    with run_bridge(mosquitto, tmp_path_factory.mktemp("data"), backend, **open_door()) as bridge:
        bridge.allow("first")
        yield Door(bridge, backend)


@pytest.fixture
def own_door(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **open_door()) as bridge:
        bridge.allow("first")
        yield Door(bridge, own_backend)
