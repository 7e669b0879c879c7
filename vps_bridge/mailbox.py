"""Between the threads that only store (network, HTTP) and the bridge's own, which does everything."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from broker.session import Incoming
from vps_bridge.errors import Refusal

T = TypeVar("T")
MAX_MESSAGES = 2_000
MAX_BYTES = 64 * 2**20
SMALL_BYTES = 65_536  # what is no audio still finds room among it


class BridgeBusy(Exception):
    """The bridge takes no more questions: it stops, or has too many; ask again."""


@dataclass(frozen=True, eq=False)
class Question(Generic[T]):
    """Work for the bridge's own thread, and where its result goes."""

    work: Callable[[], T]
    answer: Future[T]

    def settle(self, hold: Callable[[Callable[[], None], Callable[[Exception], None]], None]) -> None:
        """Do the work, unless nobody waits any longer. A `Refusal` is an answer; anything else is raised as well.

        The result is handed to `hold` with how to give it and how to say that it came to nothing: it may promise what
        is not on disk yet.
        """
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            result = self.work()
        except Refusal as refusal:
            self.answer.set_exception(refusal)
        except Exception as error:
            self.answer.set_exception(error)
            raise
        else:
            hold(lambda: self.answer.set_result(result), self.answer.set_exception)


class Mailbox:
    """A queue bounded by messages and by bytes. A message that does not fit is dropped: its owner offers it again."""

    def __init__(
        self,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty."""
        self._max_messages, self._max_bytes, self._clock = max_messages, max_bytes, clock
        self._items: deque[tuple[float, Incoming | Question[object]]] = deque()
        self._bytes = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._woken = False
        self.dropped = 0
        self.taken_s = clock()
        """When the item that was taken last had arrived (monotonic seconds)."""

    def read_until_s(self) -> float:
        """Return the moment up to which everything that arrived has been taken: now, or the arrival of what waits.

        Who judges by silence judges at this moment. By the clock, a bridge that is behind with its mail would take
        agents for dead, and their leases away, whose heartbeats and results lie here unread.
        """
        with self._changed:
            return self._items[0][0] if self._items else self._clock()

    def put(self, message: Incoming) -> None:
        """Store a message, or count it as dropped; never waits."""
        size = len(message.payload)
        with self._changed:
            has_room = size <= SMALL_BYTES or not self._bytes or self._bytes + size <= self._max_bytes
            if len(self._items) >= self._max_messages or not has_room:
                self.dropped += 1
                return
            self._items.append((self._clock(), message))
            self._bytes += size
            self._changed.notify()

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done by the bridge's own thread, in its turn. Raises `BridgeBusy` where it takes no more."""
        question = Question(work, Future[T]())
        with self._changed:
            if self._is_closed:
                msg = "the bridge is stopping"
                raise BridgeBusy(msg)
            if len(self._items) >= self._max_messages:
                msg = f"{self._max_messages} messages wait for the bridge"
                raise BridgeBusy(msg)
            self._items.append((self._clock(), question))  # type: ignore[arg-type] # nobody else sets its answer
            self._changed.notify()
        return question.answer

    def wake(self) -> None:
        """Let a `take` that waits return at once: there is something to do that is no message."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def take(self, timeout_s: float) -> Incoming | Question[object] | None:
        """Return the oldest message or question, or None where none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._woken, timeout_s)
            self._woken = False
            if not self._items:
                return None
            self.taken_s, item = self._items.popleft()
            if isinstance(item, Incoming):
                self._bytes -= len(item.payload)
            return item

    def close(self) -> None:
        """Take no more questions, and answer those that wait with `BridgeBusy`."""
        with self._changed:
            self._is_closed = True
            questions = [item for _, item in self._items if isinstance(item, Question)]
        for question in questions:
            if question.answer.set_running_or_notify_cancel():
                question.answer.set_exception(BridgeBusy("the bridge is stopping"))
