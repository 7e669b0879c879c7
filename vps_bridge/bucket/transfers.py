"""Work with a store beyond this machine: several pieces at once, but of one conversation one after the other."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")
THREADS = 8
STOP_S = 2.0  # how long what is under way has when the bridge stops; a store that hangs keeps nobody


class Transfers:
    """Threads that start with the first piece of work. What is cut off when the program ends was promised to nobody."""

    def __init__(self, threads: int = THREADS) -> None:
        """Start nothing yet."""
        self._limit, self._threads = threads, list[threading.Thread]()
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Callable[[], None]]] = {}  # of a key that is at work, what comes after that
        self._ready: queue.SimpleQueue[tuple[str, Callable[[], None]] | None] = queue.SimpleQueue()
        self._pending = set[Future[Any]]()
        self._is_closed = False

    def submit(self, key: str, work: Callable[[], T]) -> Future[T]:
        """Have `work` done after all that was submitted with this key before; return the future of its result.

        Raises `CancelledError` once this is closed.
        """
        future: Future[T] = Future()

        def run() -> None:
            self._pending.discard(future)
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future has it
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._is_closed:
                raise CancelledError
            self._pending.add(future)
            if key in self._waiting:
                self._waiting[key].append(run)
                return future
            self._waiting[key] = deque()
            self._ready.put((key, run))
            if len(self._threads) < self._limit:
                name = f"transfer-{len(self._threads)}"
                # A daemon: a store that does not answer must not keep the program from ending.
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
        return future

    def close(self) -> None:
        """Begin nothing more, and wait a little for what is under way."""
        with self._lock:
            self._is_closed = True
            self._waiting.clear()
            for future in self._pending.copy():
                future.cancel()
        for _ in self._threads:
            self._ready.put(None)
        until_s = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _work(self) -> None:
        while (item := self._ready.get()) is not None:
            key, run = item
            if self._is_closed:
                return
            run()
            with self._lock:
                following = self._waiting.get(key)
                if following:
                    self._ready.put((key, following.popleft()))
                else:
                    self._waiting.pop(key, None)
