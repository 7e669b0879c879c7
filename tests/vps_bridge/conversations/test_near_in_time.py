"""Nothing that shares time with a span, or touches it, is left out, and what is far away is not looked at."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vps_bridge.conversations import near_in_time
from vps_bridge.conversations.near_in_time import NearInTime
from vps_bridge.conversations.store import shared_s

SPANS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ends: (float(ends[0]), float(ends[1])))


@pytest.mark.parametrize("few", [0, near_in_time.FEW], ids=["by their lengths", "all at once"])
@given(st.lists(SPANS), SPANS)
def test_all_that_share_time_with_a_span_are_found_in_order(
    few: int, spans: list[tuple[float, float]], wanted: tuple[float, float]
):
    with patch.object(near_in_time, "FEW", few):
        found = NearInTime(range(len(spans)), spans.__getitem__).find(wanted)
    low, high = min(wanted), max(wanted)
    assert {place for place, span in enumerate(spans) if shared_s((min(span), max(span)), (low, high)) >= 0} <= set(
        found
    )
    assert found == sorted(found, key=lambda place: (*sorted(spans[place]), place))


def test_of_many_lines_only_those_near_are_looked_at():
    lines = NearInTime(range(10_000), lambda place: (place * 3.0, place * 3.0 + 1.0))
    assert lines.find((600.0, 601.0)) == [200]


def test_of_thousands_few_are_looked_at_though_one_lasts_from_beginning_to_end():
    spans = [(0.0, 30_000.0), *((place * 3.0, place * 3.0 + 1.0) for place in range(10_000))]
    lines = NearInTime(range(len(spans)), spans.__getitem__)
    assert lines.find((27_000.0, 27_000.5)) == [0, 9_001]
