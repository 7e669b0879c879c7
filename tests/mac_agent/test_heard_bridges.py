"""Why no work comes is said in the agent's log once: there is no bridge, or nobody has allowed this agent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from structlog.testing import capture_logs

from mac_agent.heard_bridges import SILENT_S, HeardBridges
from schemas.bridge import BridgeHeartbeat, BridgeState
from tests.hand_clock import HandClock

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def beat(instance_id: str = "i-1", **fields: Any) -> BridgeHeartbeat:
    facts: dict[str, Any] = {"state": BridgeState.ONLINE, **fields}
    return BridgeHeartbeat(
        bridge_id="vps", instance_id=instance_id, ledger_id="l", sent_at=NOW, started_at=NOW, **facts
    )


def test_silence_is_told_once_and_again_after_a_bridge_was_there() -> None:
    clock = HandClock()
    heard = HeardBridges("mac", clock=clock)
    with capture_logs() as lines:
        clock.now_s += SILENT_S
        heard.tell_silence()
        assert lines == [], "there is no connection yet, and that is said elsewhere"
        for _ in range(2):
            heard.begin_connection()
            heard.tell_silence()
            clock.now_s += SILENT_S
            heard.tell_silence()
            heard.tell_silence()
    assert [line["event"] for line in lines] == ["no live bridge: nothing to do"] * 2
    assert "systemctl start omi-bridge" in lines[0]["remedy"]


def test_who_is_not_allowed_is_told_what_to_type_and_when_it_is_over() -> None:
    heard = HeardBridges("mac")
    with capture_logs() as lines:
        for _ in range(3):
            heard.take(beat(agents_waiting=("mac",)))
        heard.take(beat(agents_live_ids=("mac",)))
        heard.take(beat(agents_live_ids=("mac",)))
    assert [line["event"].partition(":")[0] for line in lines] == ["not allowed yet", "allowed"]
    assert lines[0]["remedy"] == "on the VPS: omi-bridge agents allow mac"


def test_a_bridge_is_new_with_every_instance_and_after_it_was_gone() -> None:
    heard = HeardBridges("mac")
    assert [heard.take(beat()), heard.take(beat())] == [True, False]
    assert not heard.take(beat("i-0", state=BridgeState.OFFLINE)), "a will that comes late"
    assert not heard.take(beat())
    heard.take(beat(state=BridgeState.OFFLINE))
    assert [heard.take(beat()), heard.take(beat("i-2"))] == [True, True]
    heard.begin_connection()
    assert heard.take(beat("i-2"))
