from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import RunningBroker, run_embedded, run_mosquitto
from tests.e2e.system import MqttBackend, System, models_dir, run_system


def _need_weights() -> None:
    if not (models_dir() / "embedded").is_dir():
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")


@pytest.fixture(params=["mosquitto", pytest.param("embedded", marks=pytest.mark.long)])
def any_broker(request: pytest.FixtureRequest) -> RunningBroker:
    """Each of the two brokers we set up, in turn."""
    broker: RunningBroker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def any_system(any_broker: RunningBroker, tmp_path: Path) -> Iterator[System]:
    """A system on each broker; only the broker is started."""
    _need_weights()
    with run_system(any_broker, tmp_path) as system:
        yield system


@pytest.fixture
def system(mosquitto: RunningBroker, tmp_path: Path) -> Iterator[System]:
    """A system on Mosquitto; only the broker is started."""
    _need_weights()
    with run_system(mosquitto, tmp_path) as system:
        yield system


@pytest.fixture(scope="module")
def working_system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system for the tests of a file, each in conversations of its own: the bridge and an allowed agent run.

    The broker is Mosquitto, or the embedded one where a test is parametrized with `embedded`.
    """
    _need_weights()
    directory = tmp_path_factory.mktemp("system")
    run_broker = run_embedded if getattr(request, "param", "mosquitto") == "embedded" else run_mosquitto
    with run_broker(directory) as broker, run_system(broker, directory) as system:
        system.start_bridge()
        system.start_agent()
        system.allow_agent()
        yield system


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[MqttBackend]:
    """A backend on the broker of this test's system."""
    (name,) = {"any_system", "system", "working_system"}.intersection(request.fixturenames)
    running: System = request.getfixturevalue(name)
    peer = MqttBackend(running.broker)
    yield peer
    peer.session.stop()
