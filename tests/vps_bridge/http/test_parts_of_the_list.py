"""One answer looks at a part of the list: whoever asks on from `next_offset` misses nothing and gets nothing twice."""

from typing import Any

import pytest

from benchmarks.grown_ledger import fill
from vps_bridge.http import reading
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import ConversationState

SIZE, OPEN, FAILED = 40, 8, 5


@pytest.fixture
def grown(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(reading, "LOOKED_AT", 3)
    monkeypatch.setattr(reading, "SEARCHED", 6)
    monkeypatch.setattr(reading, "BATCH", 2)
    with ledger._database.writing() as connection:
        fill(connection, SIZE, is_open=OPEN, failed=FAILED, analyzes=False)
    return ledger


def read_all(ledger: Ledger, *, limit: int = 2, **wanted: Any) -> tuple[list[str], int]:
    """All that is found, and how many answers that took."""
    found, parts = list[str](), 0
    offset: int | None = 0
    asked = {"search": "", "state": None, **wanted}
    while offset is not None:
        page = reading.list_conversations(ledger, stale_s=30.0, offset=offset, limit=limit, **asked)
        assert len(page.conversations) <= limit
        found += [item.conversation_id for item in page.conversations]
        parts, offset = parts + 1, page.next_offset
    return found, parts


def names(first: int, last: int) -> list[str]:
    """The latest first."""
    return [f"c{number}" for number in range(last, first - 1, -1)]


def test_a_list_in_parts_is_the_whole_list(grown: Ledger) -> None:
    assert read_all(grown)[0] == names(1, SIZE)
    assert read_all(grown, state=ConversationState.WAITING)[0] == names(SIZE - OPEN + 1, SIZE)
    assert read_all(grown, state=ConversationState.FINAL)[0] == names(1, SIZE - OPEN)
    assert read_all(grown, state=ConversationState.FAILED) == ([], 1)
    assert read_all(grown, waits_for="1 job failed")[0] == names(1, FAILED)
    grown.conversations.put_aside("c20", "the reason")
    assert read_all(grown, state=ConversationState.FAILED)[0] == ["c20"]
    assert read_all(grown, waits_for="the reason")[0] == ["c20"]
    assert "c20" not in read_all(grown, state=ConversationState.FINAL)[0]


def test_a_search_goes_on_where_it_found_nothing(grown: Ledger) -> None:
    found, parts = read_all(grown, search="C1")
    assert found == [*names(10, 19), "c1"]
    assert parts > len(found) / 2, "some parts have none"
    assert read_all(grown, search="c1", state=ConversationState.FINAL, limit=50)[0] == found
    assert read_all(grown, search="nobody")[0] == []
