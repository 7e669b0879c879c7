"""The queues between the threads that receive (network, HTTP) and the bridge's own thread, which does the work."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from broker.session import Incoming
from vps_bridge.errors import NoAgent, Refusal

T = TypeVar("T")
MAX_REQUESTS = 2_000
SMALL_BYTES = 65_536  # messages up to this size (all but audio) may fill a group's bytes a second time


class BridgeBusy(Exception):
    """The bridge takes no more work requests: it is stopping, or too many wait; ask again."""


@dataclass(frozen=True, eq=False)
class WorkRequest(Generic[T]):
    """Work that another thread asks of the bridge's own, and the future of its result."""

    work: Callable[[], T]
    result: Future[T]

    def run(self, hold: Callable[[Callable[[], None], Callable[[Exception], None]], None]) -> None:
        """Do the work, unless its result is not wanted any more.

        A `Refusal` or `NoAgent` becomes the future's exception; any other exception does too, and is raised here as
        well. A result may promise what is not on disk yet, so it is not set at once: `hold` gets a function that sets
        it and one that sets an error instead.
        """
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            value = self.work()
        except (Refusal, NoAgent) as answer:  # words for who asks, and nothing for an operator to look after
            self.result.set_exception(answer)
        except Exception as error:
            self.result.set_exception(error)
            raise
        else:
            hold(lambda: self.result.set_result(value), self.result.set_exception)


@dataclass(frozen=True)
class Quota:
    """What may wait of a group of senders, and of each of them. A message of any size finds an empty queue."""

    group: str
    sender_messages: int
    sender_bytes: int
    group_messages: int
    group_bytes: int


_HTTP_QUOTA = Quota("http", MAX_REQUESTS, 0, MAX_REQUESTS, 0)


@dataclass
class _Queue:
    """What waits, each item with the time when it arrived (monotonic seconds)."""

    items: deque[tuple[float, Incoming | WorkRequest[object]]] = field(default_factory=deque)
    bytes: int = 0


@dataclass
class _Group:
    """The queues of a group's senders in which something waits; the first one's turn is next."""

    queues: dict[str, _Queue] = field(default_factory=dict)
    messages: int = 0
    bytes: int = 0

    def has_room(self, sender: str, size_bytes: int, quota: Quota) -> bool:
        limit_bytes = quota.group_bytes * (2 if size_bytes <= SMALL_BYTES else 1)
        if self.messages >= quota.group_messages or (self.bytes and self.bytes + size_bytes > limit_bytes):
            return False
        queue = self.queues.get(sender)
        return queue is None or (
            len(queue.items) < quota.sender_messages and queue.bytes + size_bytes <= quota.sender_bytes
        )

    def add(self, sender: str, arrived_s: float, item: Incoming | WorkRequest[object], size_bytes: int) -> None:
        queue = self.queues.setdefault(sender, _Queue())
        queue.items.append((arrived_s, item))
        queue.bytes += size_bytes
        self.messages += 1
        self.bytes += size_bytes

    def take(self) -> tuple[float, Incoming | WorkRequest[object]]:
        sender = next(iter(self.queues))
        queue = self.queues.pop(sender)
        arrived_s, item = queue.items.popleft()
        size_bytes = len(item.payload) if isinstance(item, Incoming) else 0
        queue.bytes -= size_bytes
        self.messages -= 1
        self.bytes -= size_bytes
        if queue.items:
            self.queues[sender] = queue  # behind all others that wait
        return arrived_s, item


class Mailbox:
    """A queue for each sender; groups of senders are read in turn, and in a group its senders.

    So who sends much waits for himself, and others wait for at most one message of his. All queues are bounded: a
    message that does not fit is refused, and its owner offers it again.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty."""
        self._clock = clock
        self._groups: dict[str, _Group] = {}  # those in which something waits; the first one's turn is next
        self._is_closed = False
        self._changed = threading.Condition()
        self._woken = False
        self.taken_s = clock()
        """When the item that was taken last had arrived (monotonic seconds)."""

    def read_until_s(self) -> float:
        """Return the time up to which every arrival has been taken: now, or when the oldest waiting item arrived.

        How long an agent has been silent is measured up to this time. Measured up to now, a bridge that is slow to
        read its mailbox would revoke leases of agents whose heartbeats and results wait in it unread.
        """
        with self._changed:
            waiting = [queue for group in self._groups.values() for queue in group.queues.values()]
            return min((queue.items[0][0] for queue in waiting), default=self._clock())

    def put(self, message: Incoming, sender: str, quota: Quota) -> bool:
        """Store a message behind those of its sender, and return whether there was room; never waits."""
        size_bytes = len(message.payload)
        with self._changed:
            group = self._groups.get(quota.group) or _Group()
            if not group.has_room(sender, size_bytes, quota):
                return False
            self._add(quota.group, group, sender, message, size_bytes)
        return True

    def holds(self, group: str, sender: str) -> bool:
        """Whether something of a sender waits in this group."""
        with self._changed:
            return group in self._groups and sender in self._groups[group].queues

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done by the bridge's own thread, after what other threads asked before.

        Raises `BridgeBusy` where it takes no more.
        """
        request = WorkRequest(work, Future[T]())
        with self._changed:
            if self._is_closed:
                msg = "the bridge is stopping"
                raise BridgeBusy(msg)
            name = _HTTP_QUOTA.group
            group = self._groups.get(name) or _Group()
            if not group.has_room(name, 0, _HTTP_QUOTA):
                msg = f"{MAX_REQUESTS} requests wait for the bridge"
                raise BridgeBusy(msg)
            self._add(name, group, name, request, 0)  # type: ignore[arg-type] # only `run` and `close` set its result
        return request.result

    def _add(
        self, name: str, group: _Group, sender: str, item: Incoming | WorkRequest[object], size_bytes: int
    ) -> None:
        group.add(sender, self._clock(), item, size_bytes)
        self._groups[name] = group
        self._changed.notify()

    def wake(self) -> None:
        """Let a `take` that waits return at once: there is something to do other than a message."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def take(self, timeout_s: float) -> Incoming | WorkRequest[object] | None:
        """Return the oldest item of the sender whose turn it is, or None where none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._groups) or self._woken, timeout_s)
            self._woken = False
            if not self._groups:
                return None
            name = next(iter(self._groups))
            group = self._groups.pop(name)
            self.taken_s, item = group.take()
            if group.messages:
                self._groups[name] = group  # behind all others
            return item

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        with self._changed:
            return not self._groups

    def close(self) -> None:
        """Take no more work requests, and answer those that wait with `BridgeBusy`."""
        with self._changed:
            self._is_closed = True
            group = self._groups.get(_HTTP_QUOTA.group) or _Group()
            waiting = [item for queue in group.queues.values() for _, item in queue.items]
            requests = [item for item in waiting if isinstance(item, WorkRequest)]
        for request in requests:
            if request.result.set_running_or_notify_cancel():
                request.result.set_exception(BridgeBusy("the bridge is stopping"))
