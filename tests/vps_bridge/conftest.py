from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers import RunningBroker, run_mosquitto
from tests.postgres_server import RunningPostgres, run_postgres
from tests.vps_bridge.ledger_server import KINDS, empty, server_of
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge
from tests.vps_bridge.owners_backend import CALIBRATED, OwnersBackend
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.server_connection import LedgerServer

AGENTS = ("first", "second")


@pytest.fixture(scope="session")
def postgres() -> Iterator[RunningPostgres]:
    """One server for all tests of a run, each in a database of its own or in an empty one."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'omi-diarization[postgres]'")
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def ledger_server(postgres: RunningPostgres, tmp_path_factory: pytest.TempPathFactory) -> LedgerServer:
    """A ledger on a server that has all its tables."""
    server = server_of(postgres, postgres.new_database())
    Ledger(tmp_path_factory.mktemp("template"), exclusive=True, server=server).close()
    return server


@pytest.fixture(params=KINDS)
def open_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """Opens the same ledger again and again, as the bridge and its commands do; it is empty at first."""
    server: LedgerServer | None = None
    if request.param != "sqlite":
        server = request.getfixturevalue("ledger_server")
        empty(server, tmp_path)
    opened: list[Ledger] = []

    def open_one(*, exclusive: bool = True) -> Ledger:
        opened.append(Ledger(tmp_path / "bridge", exclusive=exclusive, server=server))
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger]) -> Ledger:
    """A ledger as the bridge has it, in a file and on a server."""
    return open_ledger()


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One broker for a file's tests; `own_broker` is for one test alone."""
    with run_mosquitto(tmp_path_factory.mktemp("broker"), agent_ids=AGENTS) as broker:
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
    """One bridge for a file's tests, each in conversations of its own; both agents are allowed."""
    with run_bridge(mosquitto, tmp_path_factory.mktemp("data"), backend) as running:
        running.allow(*AGENTS)
        yield running


@pytest.fixture
def people(mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge) -> Iterator[OwnersBackend]:
    """Conversations of one owner, with an agent that embeds voices as a test says."""
    bridge.allow("first")
    with ScriptedAgent(mosquitto, "first", embedding=CALIBRATED) as agent:
        yield OwnersBackend(backend, agent)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[RunningBroker]:
    """A broker for one test alone."""
    with run_mosquitto(tmp_path, agent_ids=AGENTS) as broker:
        yield broker


@pytest.fixture
def own_backend(own_broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(own_broker)
    yield peer
    peer.stop()


@pytest.fixture
def own_bridge(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveBridge]:
    """A bridge for one test alone; both agents are allowed."""
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as running:
        running.allow(*AGENTS)
        yield running
