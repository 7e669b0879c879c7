"""Conversations are looked at for voices in the order in which they ended, a few at once and each once."""

import time
from collections.abc import Callable

import pytest

from benchmarks.grown_ledger import fill
from vps_bridge.ledger import Ledger, kept_voices

SIZE, OPEN = 20, 2
HELD = ("c3", "c4", "c11", "c18")


@pytest.fixture
def open_grown(open_ledger: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ledger]:
    """Opens a ledger of some conversations, of which some have samples."""
    monkeypatch.setattr(kept_voices, "AT_ONCE", 5)
    monkeypatch.setattr(kept_voices, "_WITH_SAMPLES", kept_voices._WITH_SAMPLES.limit(5))
    ledger = open_ledger()
    with ledger._database.writing() as connection:
        fill(connection, SIZE, is_open=OPEN, failed=0, analyzes=False)
    ledger.jobs.replace_results({name.replace("c", "j"): b"voice_samples" for name in HELD})
    ledger.close()
    return open_ledger


def look(ledger: Ledger, until: float) -> list[str]:
    found = ledger.kept_voices.with_samples(until)
    ledger.kept_voices.note_settled(found)
    return [*found.names, *(["more"] if found.is_more else [])]


def test_what_was_looked_at_is_not_looked_at_again_by_the_next_bridge(open_grown: Callable[..., Ledger]) -> None:
    found, now = list[list[str]](), time.time()
    while not found or "more" in found[-1]:
        ledger = open_grown()
        found.append(look(ledger, now))
        ledger.close()
    assert found == [["c3", "c4", "more"], ["more"], ["c11", "more"], ["c18", "more"], []]
    ledger = open_grown()
    assert look(ledger, now) == []


def test_a_clock_that_was_ahead_hides_nothing_that_ends_later(open_grown: Callable[..., Ledger]) -> None:
    ledger, now = open_grown(), time.time()
    ledger.kept_voices.note_settled(kept_voices.Found((), (now + 1e6, "x"), is_more=False))
    assert look(ledger, now - 1_000.0) == [], "as far as it was looked"
    assert [look(ledger, now), look(ledger, now)] == [["more"], ["c18"]], "what ended after that"
