"""Start a module's `main` under libfaketime: `python -m tests.faults.faked_clock vps_bridge.commands.main run`.

libfaketime 0.9.10 with a monotonic clock left alone answers `clock_nanosleep` to a moment, which is how Python 3.11
sleeps, with EINVAL. Every other wait is right, so sleeping is done by another.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from importlib import import_module


def mend_sleep() -> None:
    """Replace `time.sleep` where this process runs under libfaketime."""
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        time.sleep = _sleep  # type: ignore[assignment] # nobody sleeps for an index


def _sleep(seconds: float, /) -> None:
    threading.Event().wait(seconds)


if __name__ == "__main__":
    mend_sleep()
    module = sys.argv.pop(1)
    import_module(module).main()
