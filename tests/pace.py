"""How much slower than an idle machine this one is now: for settings of the product that a test has to keep short.

What only has to happen at some time is waited for with `WAIT_S` (`tests/inbox.py`), whatever the machine. A setting
after which the product gives up, such as `stale_s`, cannot be as generous: the test waits for it. `paced(6.0)` is 6 s
on an idle machine, and more on one that is slow or busy, where 6 s may pass before a process sends its next heartbeat.
"""

import os
import time
from collections.abc import Mapping
from functools import cache

LOOPS = 400_000
LOOPS_TAKE_S = 0.05  # of a processor, on a machine that is no slower than the tests were made for
OWN_LOAD = 2.0  # processes for each core while nothing but the tests runs
MAX_PACE = 8.0


def paced(seconds: float) -> float:
    """Return so many seconds, or more on a slow or busy machine."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1) / OWN_LOAD
    return seconds * min(MAX_PACE, max(1.0, busy) * _slowness())


def paced_settings(seconds: Mapping[str, float]) -> dict[str, str]:
    """Return variables of the environment, each with its seconds paced."""
    return {name: f"{paced(value):.2f}" for name, value in seconds.items()}


@cache
def _slowness() -> float:
    """How much longer this machine calculates, however much else it does meanwhile; at least 1."""
    began_s = time.thread_time()
    total = 0
    for number in range(LOOPS):
        total += number * number
    return max(1.0, (time.thread_time() - began_s) / LOOPS_TAKE_S)
