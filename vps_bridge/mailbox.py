"""The queue between the threads that receive (network, HTTP) and the bridge's own thread, which does the work."""

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
SMALL_BYTES = 65_536  # messages up to this size (all but audio) are taken even where the bytes are used up


class BridgeBusy(Exception):
    """The bridge takes no more work requests: it is stopping, or too many wait; ask again."""


@dataclass(frozen=True, eq=False)
class WorkRequest(Generic[T]):
    """Work that another thread asks of the bridge's own, and the future of its result."""

    work: Callable[[], T]
    result: Future[T]

    def run(self, hold: Callable[[Callable[[], None], Callable[[Exception], None]], None]) -> None:
        """Do the work, unless its result is not wanted any more.

        A `Refusal` becomes the future's exception; any other exception does too, and is raised here as well. A result
        may promise what is not on disk yet, so it is not set at once: `hold` gets a function that sets it and one that
        sets an error instead.
        """
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            value = self.work()
        except Refusal as refusal:
            self.result.set_exception(refusal)
        except Exception as error:
            self.result.set_exception(error)
            raise
        else:
            hold(lambda: self.result.set_result(value), self.result.set_exception)


class Mailbox:
    """A queue bounded by messages and by bytes. A message that does not fit is dropped: its sender sends it again."""

    def __init__(
        self,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty."""
        self._max_messages, self._max_bytes, self._clock = max_messages, max_bytes, clock
        self._items: deque[tuple[float, Incoming | WorkRequest[object]]] = deque()
        self._bytes = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._woken = False
        self.dropped = 0
        self.taken_s = clock()
        """When the item that was taken last had arrived (monotonic seconds)."""

    def read_until_s(self) -> float:
        """Return the time up to which every arrival has been taken: now, or when the oldest waiting item arrived.

        How long an agent has been silent is measured up to this time. Measured up to now, a bridge that is slow to
        read its mailbox would revoke leases of agents whose heartbeats and results wait in it unread.
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
        """Have `work` done by the bridge's own thread, after what waits already.

        Raises `BridgeBusy` where it takes no more.
        """
        request = WorkRequest(work, Future[T]())
        with self._changed:
            if self._is_closed:
                msg = "the bridge is stopping"
                raise BridgeBusy(msg)
            if len(self._items) >= self._max_messages:
                msg = f"{self._max_messages} messages wait for the bridge"
                raise BridgeBusy(msg)
            self._items.append((self._clock(), request))  # type: ignore[arg-type] # only `run` and `close` set its result
            self._changed.notify()
        return request.result

    def wake(self) -> None:
        """Let a `take` that waits return at once: there is something to do other than a message."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def take(self, timeout_s: float) -> Incoming | WorkRequest[object] | None:
        """Return the oldest message or work request, or None where none comes in time."""
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
        """Take no more work requests, and answer those that wait with `BridgeBusy`."""
        with self._changed:
            self._is_closed = True
            requests = [item for _, item in self._items if isinstance(item, WorkRequest)]
        for request in requests:
            if request.result.set_running_or_notify_cancel():
                request.result.set_exception(BridgeBusy("the bridge is stopping"))
