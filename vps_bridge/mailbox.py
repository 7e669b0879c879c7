"""Between the network thread, which only stores, and the bridge's own, which does everything."""

from __future__ import annotations

import threading
from collections import deque

from broker.session import Incoming

MAX_MESSAGES = 2_000
MAX_BYTES = 64 * 2**20
SMALL_BYTES = 65_536  # what is no audio still finds room among it


class Mailbox:
    """A queue bounded by messages and by bytes. What does not fit is dropped: its owner offers it again."""

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        """Start empty."""
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._messages: deque[Incoming] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self.dropped = 0

    def put(self, message: Incoming) -> None:
        """Store a message, or count it as dropped; never waits."""
        size = len(message.payload)
        with self._changed:
            has_room = size <= SMALL_BYTES or not self._bytes or self._bytes + size <= self._max_bytes
            if len(self._messages) >= self._max_messages or not has_room:
                self.dropped += 1
                return
            self._messages.append(message)
            self._bytes += size
            self._changed.notify()

    def take(self, timeout_s: float) -> Incoming | None:
        """Return the oldest message, or None where none comes in time."""
        with self._changed:
            if not self._messages and not self._changed.wait_for(lambda: bool(self._messages), timeout_s):
                return None
            message = self._messages.popleft()
            self._bytes -= len(message.payload)
            return message
