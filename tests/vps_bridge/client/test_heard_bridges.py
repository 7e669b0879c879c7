"""Whether somebody takes audio: one of several bridges that lives is enough, and another one's word is not its own."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.bridge import BridgeHeartbeat, BridgeState
from vps_bridge.client.heard_bridges import FRESH_BEAT_S, HeardBridges


def beat(bridge_id: str, state: BridgeState = BridgeState.ONLINE, **fields: Any) -> BridgeHeartbeat:
    now = datetime.now(UTC)
    known = {"instance_id": "i", "ledger_id": "l", "started_at": now, "sent_at": now}
    return BridgeHeartbeat(bridge_id=bridge_id, state=state, **{**known, **fields})


def test_a_bridge_that_stops_stops_nobody_while_another_one_lives() -> None:
    heard, now_s = HeardBridges(), time.monotonic()
    for each in (beat("a"), beat("b"), beat("b", BridgeState.STOPPED), beat("c", accepting=False)):
        heard.note(each, now_s, retained=False)
    found, last = heard.find_accepting(), heard.last
    assert found is not None
    assert last is not None
    assert (found.bridge_id, last.bridge_id) == ("a", "a")
    heard.note(beat("a", BridgeState.OFFLINE), now_s, retained=False)
    last = heard.last
    assert heard.find_accepting() is None
    assert last is not None
    assert last.bridge_id == "c", "it runs, and says why it takes nothing"


def test_a_beat_that_is_old_or_was_retained_long_ago_is_no_sign_of_life() -> None:
    heard, now_s = HeardBridges(), time.monotonic()
    heard.note(beat("a", sent_at=datetime.now(UTC) - timedelta(hours=1)), now_s, retained=True)
    assert heard.last is None
    heard.note(beat("a"), now_s - FRESH_BEAT_S - 1, retained=False)
    assert heard.find_accepting() is None
