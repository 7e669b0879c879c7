"""Start a module's `main` under libfaketime: `python -m tests.faults.faked_clock vps_bridge.commands.main run`.

libfaketime 0.9.10 that leaves the monotonic clock alone answers `clock_nanosleep` with an absolute time, which Python
3.11 uses to sleep, with EINVAL. Its other waits work, so `time.sleep` is replaced by one of them.
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
