"""A ping through real processes: the second of speech is decoded and diarized by the agent's own engine."""

import pytest

from tests.brokers import AGENT_ID
from tests.e2e.system import System
from vps_bridge.client.ping import Ping
from vps_bridge.client.round_trip import LEGS, describe
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

pytestmark = pytest.mark.slow


def test_a_second_of_speech_comes_back_from_a_real_agent_and_leaves_nothing(any_system: System) -> None:
    any_system.start_bridge()
    any_system.start_agent()
    any_system.allow_agent()
    broker = any_system.broker
    speaks, listens = broker.settings("backend", BridgeSettings), broker.settings("bridge", BridgeSettings)
    told = describe(Ping(speaks, listens, agent_id=AGENT_ID, timeout_s=120.0).run())
    assert told["ok"], told
    assert told["agent_id"] == AGENT_ID
    assert told["engine"].startswith("embedded")
    assert [leg["leg"] for leg in told["legs"]] == [
        *(leg.name for leg in LEGS[:5]),
        "worked on",
        *(leg.name for leg in LEGS[5:]),
    ]
    assert next(leg["ms"] for leg in told["legs"] if leg["leg"] == "worked on") > 0
    ledger = Ledger(any_system.data_dir / "bridge", exclusive=False)
    assert (
        ledger.listing.some(ledger.listing.latest_first()),
        ledger.conversations.temporary(),
        ledger.jobs.all(),
    ) == ([], [], [])
    ledger.close()
