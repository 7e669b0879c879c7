"""A store that did not answer is left alone for a while, so that who asks it does not wait for it each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from broker.backoff import Backoff
from vps_bridge.durations import seconds
from vps_bridge.errors import StoreUnavailable

T = TypeVar("T")
MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
MAX_ASKED_PAUSE_S = 300.0  # what the other side asks for is believed up to here


class Outage:
    """Whether a store is left alone now, and why. The pauses double as long as it does not answer."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_pause_s: float = MAX_PAUSE_S,
        error: type[StoreUnavailable] = StoreUnavailable,
    ) -> None:
        """Begin with a store that is thought to answer. While it is left alone, `error` is raised."""
        self._clock, self._until_s, self._reason, self._error = clock, 0.0, "", error
        self._pauses = self._first = Backoff.start(MIN_PAUSE_S, max_pause_s)

    @property
    def reason(self) -> str | None:
        """Why the store did not do what it was asked last; None where it did."""
        return self._reason if self._until_s else None

    def guard(self, work: Callable[[], T]) -> T:
        """Do what needs the store, unless it is left alone. Raises `StoreUnavailable`, as `work` may."""
        self.check()
        try:
            result = work()
        except StoreUnavailable as error:
            self.begin(error)
            raise
        self.end()
        return result

    def check(self) -> None:
        """Raise `StoreUnavailable` where the store is left alone."""
        left_s = self._until_s - self._clock()
        if left_s > 0:
            raise self._error(f"{self._reason} (asked again in {seconds(left_s)})")

    def begin(self, error: StoreUnavailable) -> float:
        """Leave the store alone for a while, for longer than the last time; return for how many seconds."""
        pause_s = max(self._pauses.pause_s, min(error.asks_for_s, MAX_ASKED_PAUSE_S))
        self._until_s, self._reason = self._clock() + pause_s, str(error)
        self._pauses = self._pauses.longer()
        return pause_s

    def put_off(self, pause_s: float) -> None:
        """Leave it alone for so long at least."""
        self._until_s = max(self._until_s, self._clock() + pause_s)

    def end(self) -> None:
        """Leave the store alone no more: it answers."""
        self._pauses, self._until_s = self._first, 0.0
