"""A whole bridge whose ledger is in PostgreSQL: what it does with a file it does with a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import RunningBroker
from tests.postgres_server import RunningPostgres, ledger_options
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, run_bridge
from tests.vps_bridge.scripted_agent import ScriptedAgent


@pytest.fixture
def bridge(
    own_broker: RunningBroker, own_backend: Backend, postgres: RunningPostgres, tmp_path: Path
) -> Iterator[LiveBridge]:
    options = ledger_options(postgres, postgres.new_database())
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as running:
        running.allow("first")
        yield running


def test_a_call_is_taken_in_worked_on_and_labelled(
    own_broker: RunningBroker, own_backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        own_backend.send_call("call")
        agent.answer(agent.wait_offer("call"), CALL_TURNS)
        assert own_backend.wait_updated("call").speakers == 2
    assert bridge.json("jobs")[0]["state"] == "done"
    assert not list((bridge.data_dir / "bridge").glob("ledger.sqlite3*"))
