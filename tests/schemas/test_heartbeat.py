"""Which of two processes under one name stops, whatever their wall clocks say."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.heartbeat import must_yield

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)


def beat(instance_id: str, uptime_s: float | None, *, clock_s: float = 0.0, started_s: float = 0.0) -> BridgeHeartbeat:
    return BridgeHeartbeat(
        bridge_id="vps",
        instance_id=instance_id,
        ledger_id="ledger",
        state=BridgeState.ONLINE,
        sent_at=NOW + timedelta(seconds=clock_s),
        started_at=NOW - timedelta(seconds=started_s),
        uptime_s=uptime_s,
    )


@pytest.mark.parametrize("clock_s", [-3_600.0, 0.0, 3_600.0])
def test_exactly_one_of_two_stays_and_no_wall_clock_decides_which(clock_s: float) -> None:
    for own_s, other_s in ((5.0, 900.0), (900.0, 5.0)):
        assert must_yield(own_s, "i-a", beat("i-b", other_s, clock_s=clock_s)) == (own_s < other_s)
    together = [("i-a", 7.0), ("i-b", 8.0), ("i-c", 7.5)]
    yielding = {
        mine
        for (mine, own_s), (other, other_s) in permutations(together, 2)
        if must_yield(own_s, mine, beat(other, other_s, clock_s=clock_s))
    }
    assert yielding == {"i-b", "i-c"}


def test_a_process_of_an_earlier_version_is_as_old_as_its_own_clock_says() -> None:
    assert must_yield(60.0, "i-a", beat("i-b", None, started_s=900.0))
    assert not must_yield(1_800.0, "i-a", beat("i-b", None, started_s=900.0))


def test_an_uptime_of_years_is_told() -> None:
    assert beat("i-b", 10 * 365 * 86_400.0).age_s == 315_360_000.0
