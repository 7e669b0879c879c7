"""Steps of the wall clock: a machine without a clock of its own is years behind until somebody tells it the time."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_STEP_S = 60.0  # less is a clock that is being slowed or hurried


def running_s() -> float:
    """Return seconds of a clock that nobody sets; where there is one, one that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class ClockSteps:
    """Notices that the wall clock was set forward since this process began."""

    def __init__(self, *, wall: Callable[[], float] = time.time, running: Callable[[], float] = running_s) -> None:
        """Begin now, by both clocks."""
        self._wall, self._running = wall, running
        self.began_at = wall()
        """When this process began, by the wall clock as it is now: what came before it had its time from another."""
        self._lead_s = self.began_at - running()

    def take(self) -> float:
        """Return by how many seconds the wall clock was set forward since the last call; 0 where it was not."""
        now = self._wall()
        lead_s = now - self._running()
        step_s, self._lead_s = lead_s - self._lead_s, lead_s
        self.began_at = min(self.began_at, now)
        if step_s < LEAST_STEP_S:
            return 0.0
        return step_s

    def note_taken(self, step_s: float) -> None:
        """Note that the times of what came since the beginning were put right by so much."""
        self.began_at += step_s
