"""Which conversations a store elsewhere is not asked for, and whether it is asked at all: one stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from vps_bridge.errors import StoreUnavailable
from vps_bridge.outage import Outage

T = TypeVar("T")
AWAY_AFTER = 2  # conversations that failed, with none that was answered between
OTHERS_FIRST_S = 5.0
"""Whether a store that was left alone answers again, one that did not fail tells, if it is asked for by then."""


class ConversationOutages:
    """A conversation is left alone after it failed, and where the next one fails too, the whole store is.

    So a document that a backend refuses, or a row that somebody keeps locked, stops no other conversation. One that
    fails again after another was answered has a trouble of its own, and says nothing of the store.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a store that is thought to answer."""
        self._clock, self._store = clock, Outage(clock=clock)
        self._of = dict[str, Outage]()
        self._failed, self._suspects = set[str](), set[str]()

    def guard(self, conversation_id: str, work: Callable[[], T]) -> T:
        """Do what needs the store for a conversation, unless either is left alone.

        Raises `StoreUnavailable`, as `work` may.
        """
        self._store.check()
        if conversation_id in self._of:
            self._of[conversation_id].check()
        try:
            result = work()
        except StoreUnavailable as error:
            self._note_failed(conversation_id, error)
            raise
        self._note_answered(conversation_id)
        return result

    def _note_failed(self, conversation_id: str, error: StoreUnavailable) -> None:
        self._of.setdefault(conversation_id, Outage(clock=self._clock)).begin(error)
        if conversation_id in self._suspects:
            return
        self._failed.add(conversation_id)
        if len(self._failed) >= AWAY_AFTER or error.asks_for_s:
            pause_s = self._store.begin(error)
            for name in self._failed:
                self._of[name].put_off(pause_s + min(pause_s, OTHERS_FIRST_S))

    def _note_answered(self, conversation_id: str) -> None:
        """Where the store was away, what failed meanwhile is asked for again at once."""
        for name in {conversation_id, *(self._failed if len(self._failed) >= AWAY_AFTER else ())}:
            self._of.pop(name, None)
        self._suspects = (self._suspects | self._failed) - {conversation_id}
        self._failed.clear()
        self._store.end()
