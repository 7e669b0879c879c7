"""Which conversations a store elsewhere is not asked for, and whether it is asked at all: one stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from vps_bridge.errors import StoreUnavailable
from vps_bridge.outage import Outage
from vps_bridge.rules.common_trouble import CommonTrouble

T = TypeVar("T")
OTHERS_FIRST_S = 5.0
"""Whether a store that was left alone answers again, one that did not fail tells, if it is asked for by then."""


class ConversationOutages:
    """A conversation is left alone after it failed, and where the next one fails too, the whole store is.

    So a document that a backend refuses, or a row that somebody keeps locked, stops no other conversation.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a store that is thought to answer."""
        self._clock, self._store = clock, Outage(clock=clock)
        self._of = dict[str, Outage]()
        self._trouble = CommonTrouble()

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
        if not self._trouble.note_failed(conversation_id):
            return
        if self._trouble.is_common or error.asks_for_s:
            pause_s = self._store.begin(error)
            for name in self._trouble.failed:
                self._of[name].put_off(pause_s + min(pause_s, OTHERS_FIRST_S))

    def _note_answered(self, conversation_id: str) -> None:
        """Where the store was away, what failed meanwhile is asked for again at once."""
        for name in self._trouble.note_answered(conversation_id):
            self._of.pop(name, None)
        self._store.end()
