"""Settings of the Python interpreter for a process in which a busy network thread and the bridge's own share it."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 0.0005  # Python's default is 5 ms
COLLECT_EVERY = (20_000, 20, 20)  # Python's default is 700, 10, 10


def set_up_interpreter() -> None:
    """Call this once, when everything is imported and opened, before messages come.

    What exists now stays, so the garbage collector passes over it from here on: under a flood, looking through it took
    40 % of the time. It also looks less often than by default, which takes 3 % off a payload (`bench_delivery`): few
    of the new objects are garbage that only it finds. And a thread that comes back from the disk or the network waits
    at most `SWITCH_S` for one that calculates: with 5 ms, a few statements to the ledger each wait longer than they
    take.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)
    sys.setswitchinterval(SWITCH_S)
