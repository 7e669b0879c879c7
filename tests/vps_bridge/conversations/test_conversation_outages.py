"""What one conversation's trouble costs the others, by a clock moved by hand."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.hand_clock import HandClock
from vps_bridge.conversations.conversation_outages import ConversationOutages
from vps_bridge.errors import StoreUnavailable

POISON = ("p1", "p2", "p3")


class PoisonedStore:
    """A store that fails with these conversations, and how often it was asked for which."""

    def __init__(self, *poison: str) -> None:
        self.poison, self.names = set(poison), list[str]()
        self.clock = HandClock(0.0)
        self.outages = ConversationOutages(clock=self.clock)

    def ask(self, name: str, *, asks_for_s: float = 0.0) -> None:
        def work() -> None:
            self.names.append(name)
            if name in self.poison:
                error = StoreUnavailable("answered 422")
                error.asks_for_s = asks_for_s
                raise error

        self.outages.guard(name, work)


def test_conversations_that_always_fail_hold_up_the_others_for_a_moment_and_no_more() -> None:
    store, kept_out = PoisonedStore(*POISON), 0
    for second in range(600):
        store.clock.now_s = float(second)
        for name in POISON:
            with suppress(StoreUnavailable):
                store.ask(name)
        try:
            store.ask(f"c{second}")
        except StoreUnavailable:
            kept_out += 1
    assert kept_out <= 5
    assert max(store.names.count(name) for name in POISON) < 40, "asked again every 30 s at most"


def test_a_store_that_is_away_is_asked_rarely_and_for_all_at_once_when_it_is_back() -> None:
    names = [f"c{number}" for number in range(100)]
    store = PoisonedStore(*names)
    for second in range(600):
        store.clock.now_s = float(second)
        for name in names:
            with suppress(StoreUnavailable):
                store.ask(name)
    assert len(store.names) < 40
    store.poison.clear()
    store.clock.now_s += 30.0
    for name in reversed(names):
        store.ask(name)


def test_a_store_that_asks_to_be_left_alone_is_by_all() -> None:
    store = PoisonedStore("c1")
    with pytest.raises(StoreUnavailable):
        store.ask("c1", asks_for_s=120.0)
    with pytest.raises(StoreUnavailable, match=r"answered 422 \(asked again in 120 s"):
        store.ask("c2")
    store.clock.now_s = 120.0
    store.ask("c2")
