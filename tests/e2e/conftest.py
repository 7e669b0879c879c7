from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import RunningBroker, mosquitto_program, run_embedded, run_mosquitto
from tests.e2e.system import Backend, System, models_dir, run_system


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[RunningBroker]:
    if mosquitto_program() is None:
        pytest.skip("no mosquitto is installed here (apt install mosquitto, brew install mosquitto)")
    with run_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[RunningBroker]:
    with run_embedded(tmp_path) as broker:
        yield broker


@pytest.fixture(params=["embedded", "mosquitto"])
def any_broker(request: pytest.FixtureRequest) -> RunningBroker:
    broker: RunningBroker = request.getfixturevalue(request.param)
    return broker


def _need_weights() -> None:
    if not (models_dir() / "embedded").is_dir():
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")


@pytest.fixture
def any_system(any_broker: RunningBroker, tmp_path: Path) -> Iterator[System]:
    """A system on each broker in turn; nothing is started but the broker."""
    _need_weights()
    with run_system(any_broker, tmp_path) as system:
        yield system


@pytest.fixture
def system(mosquitto: RunningBroker, tmp_path: Path) -> Iterator[System]:
    """A system on Mosquitto; nothing is started but the broker."""
    _need_weights()
    with run_system(mosquitto, tmp_path) as system:
        yield system


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend on the broker of this test's system."""
    name = "any_system" if "any_system" in request.fixturenames else "system"
    running: System = request.getfixturevalue(name)
    peer = Backend(running.broker)
    yield peer
    peer.session.stop()
