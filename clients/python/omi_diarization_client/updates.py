"""The bridge's updates of conversations, kept until somebody asks for them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque

from omi_diarization_client.labels import ConversationLabels

MAX_KEPT = 1_000  # further ones are let go: the bridge offers an update again until it is confirmed


class HeardUpdates:
    """The latest update of each conversation, and for who listens to all of them, all in order. For every thread."""

    def __init__(self) -> None:
        """Start with none."""
        self._changed = threading.Condition()
        self._latest: OrderedDict[str, ConversationLabels] = OrderedDict()
        self._confirmed: OrderedDict[str, int] = OrderedDict()
        self._all: deque[ConversationLabels] | None = None

    def note(self, labels: ConversationLabels) -> bool:
        """Keep an update. Returns False where it was confirmed before, so that the bridge has to be told again."""
        with self._changed:
            if labels.version <= self._confirmed.get(labels.conversation_id, -1):
                return False
            self._latest[labels.conversation_id] = labels
            self._latest.move_to_end(labels.conversation_id)
            while len(self._latest) > MAX_KEPT:
                self._latest.popitem(last=False)
            if self._all is not None:
                self._all.append(labels)
            self._changed.notify_all()
        return True

    def drop(self, conversation_id: str) -> None:
        """Forget what was heard of a conversation: it tells of what was there before something new was accepted."""
        with self._changed:
            self._latest.pop(conversation_id, None)

    def confirm(self, labels: ConversationLabels) -> None:
        """Remember that an update was confirmed."""
        with self._changed:
            self._confirmed[labels.conversation_id] = labels.version
            self._confirmed.move_to_end(labels.conversation_id)
            while len(self._confirmed) > MAX_KEPT:
                self._confirmed.popitem(last=False)

    def take(self, conversation_id: str, *, final: bool, timeout_s: float) -> ConversationLabels | None:
        """Return the latest update of a conversation once; None where none (no final one, if asked) came in time."""

        def wanted() -> bool:
            labels = self._latest.get(conversation_id)
            return labels is not None and (labels.is_final or not final)

        with self._changed:
            arrived = self._changed.wait_for(wanted, timeout_s)
            return self._latest.pop(conversation_id) if arrived else None

    def listen(self) -> None:
        """Keep all updates from now on, the latest `MAX_KEPT`."""
        with self._changed:
            if self._all is None:
                self._all = deque(maxlen=MAX_KEPT)

    def take_any(self, timeout_s: float | None) -> ConversationLabels | None:
        """Return the next update of any conversation; None where none came in time."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._all:
                left_s = 1.0 if deadline_s is None else deadline_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._changed.wait(min(1.0, left_s))
            return self._all.popleft()
