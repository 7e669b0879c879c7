"""Group commit: whatever arrived while the disk was busy is written with the next fsync, all of it with one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

from schemas.failure import FailureCode
from vps_bridge.errors import Refusal, refusal_of
from vps_bridge.omi.capture import Arrival, CaptureLog

MAX_WAITING_BYTES = 64 * 2**20
CLOSE_S = 5.0


@dataclass(frozen=True)
class _Waiting:
    arrival: Arrival
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class CommitQueue:
    """One thread that appends to the capture log; `commit` is called on an event loop."""

    def __init__(self, log: CaptureLog, check_room: Callable[[Arrival], None]) -> None:
        """Begin; `check_room` raises `Refusal` where there is no room for an arrival."""
        self._log, self._check_room = log, check_room
        self._waiting: list[_Waiting] = []
        self._waiting_bytes, self._is_closed = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="omi-capture", daemon=True)
        self._thread.start()

    async def commit(self, arrival: Arrival) -> None:
        """Return once what arrived is on disk. Raises `Refusal` where there is no room for it or the disk refuses."""
        self._check_room(arrival)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if self._is_closed:
                raise Refusal(FailureCode.INGEST_FULL, "the bridge is stopping: send it again in a moment")
            if self._waiting and self._waiting_bytes + len(arrival.body) > MAX_WAITING_BYTES:
                raise Refusal(FailureCode.INGEST_FULL, "the disk is slower than what arrives: send it again later")
            self._waiting.append(_Waiting(arrival, loop, done))
            self._waiting_bytes += len(arrival.body)
            self._changed.notify()
        await done

    def close(self) -> None:
        """Write what waits, and take no more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._log.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._is_closed)
                batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
            if not batch:
                return
            problem: Refusal | None = None
            try:
                self._log.append([one.arrival for one in batch])
            except OSError as error:
                problem = refusal_of(error)
            for loop in {one.loop for one in batch}:
                answered = [one.done for one in batch if one.loop is loop]
                _answer(loop, answered, problem)


def _answer(loop: asyncio.AbstractEventLoop, answered: list[asyncio.Future[None]], problem: Refusal | None) -> None:
    def resolve() -> None:
        for future in answered:
            if future.done():  # its client has gone
                continue
            if problem is None:
                future.set_result(None)
            else:
                future.set_exception(problem)

    try:
        loop.call_soon_threadsafe(resolve)
    except RuntimeError:
        return  # the loop has ended: nobody waits any more
