"""When what the receiver did not take is tried again. Pure but for its memory; times are monotonic seconds."""

from __future__ import annotations

from vps_bridge.backoff import RetryTimer

DOWN_AFTER = 2  # conversations in which the latest attempt failed, with none that succeeded between
_ALL = "all"


class WebhookRests:
    """A conversation rests after an attempt that failed, and where the next one fails too, everything does.

    So one message that the receiver never takes stops no other conversation, and a receiver that is down is asked once
    in a while and not once for every conversation. The pauses double up to the longest.

    A conversation that fails again after another one's message was taken has a trouble of its own: however many such
    there are, they rest one by one, and say nothing of the receiver.
    """

    def __init__(self, min_s: float, max_s: float) -> None:
        """Begin with nothing at rest."""
        self._conversations, self._receiver = RetryTimer(min_s, max_s), RetryTimer(min_s, max_s)
        self._failed, self._suspects = set[str](), set[str]()

    @property
    def failed(self) -> frozenset[str]:
        """The conversations that failed since a message was taken: whether the receiver is back, another one tells."""
        return frozenset(self._failed)

    def is_down(self, now_s: float) -> bool:
        """Whether nothing is sent now."""
        return not self._receiver.is_due(_ALL, now_s)

    def resting(self, now_s: float) -> set[str]:
        """Return the conversations of which nothing is sent now."""
        return self._conversations.resting(now_s)

    def note_delivered(self, conversation_id: str) -> None:
        """Note that the receiver took a message: where it was down, all that failed meanwhile is due at once."""
        for name in self._failed if len(self._failed) >= DOWN_AFTER else ():
            self._conversations.reset(name)
        self._suspects = (self._suspects | self._failed) - {conversation_id}
        self._conversations.reset(conversation_id)
        self._receiver.reset()
        self._failed.clear()

    def note_failed(self, conversation_id: str, now_s: float) -> None:
        """Note that the receiver did not take a message."""
        self._conversations.take(conversation_id, now_s)
        if conversation_id in self._suspects:
            return
        self._failed.add(conversation_id)
        if len(self._failed) >= DOWN_AFTER:
            self._receiver.take(_ALL, now_s)

    def forget(self) -> None:
        """Forget all of it: nothing waits any more."""
        self._conversations.reset()
        self._receiver.reset()
        self._failed.clear()
        self._suspects.clear()
