"""What an agent without work says in its log: no bridge is alive, or nobody allowed it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from mac_agent.known_bridges import SILENCE_S, KnownBridges
from schemas.bridge import BridgeHeartbeat, BridgeState

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)


class Stopwatch:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def bridges(stopwatch: Stopwatch) -> KnownBridges:
    known = KnownBridges("my-mac", clock=stopwatch)
    known.forget()
    return known


def beat(state: BridgeState = BridgeState.ONLINE, instance_id: str = "i-1", **fields: Any) -> BridgeHeartbeat:
    ids = {"bridge_id": "bridge", "ledger_id": "led", "instance_id": instance_id}
    return BridgeHeartbeat(**ids, state=state, sent_at=NOW, started_at=NOW, **fields)


def test_a_bridge_is_new_once_and_again_after_it_ended_or_another_began(bridges: KnownBridges) -> None:
    assert [bridges.is_new(beat()), bridges.is_new(beat())] == [True, False]
    assert bridges.is_new(beat(instance_id="i-2"))
    assert not bridges.is_new(beat(BridgeState.OFFLINE)), "the late will of the first"
    assert not bridges.is_new(beat(instance_id="i-2"))
    assert not bridges.is_new(beat(BridgeState.STOPPED, "i-2"))
    assert bridges.is_new(beat(instance_id="i-2"))


def test_who_is_not_allowed_reads_it_once_with_what_to_type_and_then_that_it_is(bridges: KnownBridges) -> None:
    with capture_logs() as lines:
        for waiting in ((), ("my-mac",), ("other", "my-mac"), ("other",), ("other",)):
            bridges.is_new(beat(agents_waiting=waiting))
    assert [line["event"] for line in lines] == ["not allowed: this agent gets no audio", "allowed"]
    assert lines[0]["remedy"].endswith("omi-bridge agents allow my-mac")


def test_silence_is_told_once_and_only_where_the_broker_is_there(bridges: KnownBridges, stopwatch: Stopwatch) -> None:
    def told(*, is_connected: bool = True) -> int:
        with capture_logs() as lines:
            bridges.tell_silence(is_connected=is_connected)
        return len(lines)

    assert told() == 0
    stopwatch.now_s += SILENCE_S
    assert told(is_connected=False) == 0
    assert [told(), told()] == [1, 0]
    bridges.is_new(beat())
    stopwatch.now_s += SILENCE_S
    assert told() == 0
    bridges.is_new(beat(BridgeState.STOPPED))
    assert told() == 0
    stopwatch.now_s += SILENCE_S
    assert told() == 1
