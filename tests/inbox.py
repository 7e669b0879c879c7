"""Waiting, with a limit, for what another thread or process will do."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

WAIT_S = 300.0  # for whatever must happen: a limit for a machine ten times as busy, never a measure of speed


class MessageLog(Generic[T]):
    """What arrived, in order; a callback stores, the test waits."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    @property
    def items(self) -> list[T]:
        with self._changed:
            return list(self._items)

    def wait_for(self, wanted: Callable[[T], bool], timeout_s: float = WAIT_S) -> T:
        """The first item that is wanted, once it is there."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for item in self._items:
                    if wanted(item):
                        return item
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"nothing wanted among {len(self._items)} items within {timeout_s} s")

    def wait_count(self, count: int, timeout_s: float = WAIT_S) -> list[T]:
        """All items, once there are `count`."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self._items) >= count, timeout_s)
            assert arrived, f"{len(self._items)} of {count} items arrived within {timeout_s} s"
            return list(self._items)


def eventually(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Wait until a condition holds; fail if it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout_s} s"
        time.sleep(0.02)
