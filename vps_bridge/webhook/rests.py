"""When what the receiver did not take is tried again. Pure but for its memory; times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TypeVar

from vps_bridge.backoff import RetryTimer
from vps_bridge.rules.common_trouble import CommonTrouble

_ALL = "all"
Found = TypeVar("Found")


class WebhookRests:
    """A conversation rests after an attempt that failed, and where the next one fails too, everything does.

    So one message that the receiver never takes stops no other conversation, and a receiver that is down is asked once
    in a while and not once for every conversation. The pauses double up to the longest.
    """

    def __init__(self, min_s: float, max_s: float) -> None:
        """Begin with nothing at rest."""
        self._conversations, self._receiver = RetryTimer(min_s, max_s), RetryTimer(min_s, max_s)
        self._trouble, self._tried = CommonTrouble(), set[str]()

    def choose(self, now_s: float, find: Callable[[AbstractSet[str], bool], Found | None]) -> Found | None:
        """Return what is tried next of what waits, None where all of it rests.

        Those that failed in this round, or alone, come after all others: whether the receiver is back, another one
        tells, and many that it is slow to refuse would take all its time. Once all were tried a new round begins: the
        same one again and again may be refused alone.

        Args:
            now_s: the time.
            find: returns what waits longest, these conversations left out. With True what waits for the shortest time:
                those beside one that failed may have the same trouble.
        """
        resting, is_newest = self.resting(now_s), bool(self._trouble.failed)
        last = self._trouble.suspects | self._tried
        found = find(resting | last, is_newest)
        if found is None and last:
            self._tried.clear()
            found = find(resting, is_newest)
        return found

    def is_down(self, now_s: float) -> bool:
        """Whether nothing is sent now."""
        return not self._receiver.is_due(_ALL, now_s)

    def resting(self, now_s: float) -> set[str]:
        """Return the conversations of which nothing is sent now."""
        return self._conversations.resting(now_s)

    def note_delivered(self, conversation_id: str) -> None:
        """Note that the receiver took a message: where it was down, all that failed meanwhile is due at once."""
        for name in self._trouble.note_answered(conversation_id):
            self._conversations.reset(name)
        self._receiver.reset()
        self._tried.clear()

    def note_failed(self, conversation_id: str, now_s: float) -> None:
        """Note that the receiver did not take a message."""
        self._conversations.take(conversation_id, now_s)
        if not self._trouble.note_failed(conversation_id):
            return
        self._tried.add(conversation_id)
        if self._trouble.is_common:
            self._receiver.take(_ALL, now_s)

    def forget(self) -> None:
        """Forget all of it: nothing waits any more."""
        self._conversations.reset()
        self._receiver.reset()
        self._trouble, self._tried = CommonTrouble(), set[str]()
