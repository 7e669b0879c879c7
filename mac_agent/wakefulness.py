"""Keep the machine awake while there is work; elsewhere than on a Mac this does nothing.

macOS only: `caffeinate -i -w PID` holds off idle sleep until it is ended, or until this process is gone. Closing the
lid still puts a laptop to sleep: then the lease ends, and the job is leased again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

CAFFEINATE = "/usr/bin/caffeinate"
LINGER_S = 60.0  # after the last job: its result has to leave before the machine sleeps
RETRY_S = 300.0  # after caffeinate ended by itself
JOIN_S = 2.0

_log = structlog.get_logger("mac_agent.wakefulness")


def default_program() -> str | None:
    """Return what keeps this machine awake, or None where nothing needs to."""
    return CAFFEINATE if sys.platform == "darwin" else None


class Wakefulness:
    """Holds an assertion against idle sleep while there is work. Used by one thread.

    Args:
        program: `caffeinate`, or None to do nothing.
        clock: monotonic seconds.
    """

    def __init__(self, program: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._program, self._clock = program, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._busy_until_s = -1.0
        self._retry_at_s = 0.0

    @property
    def is_held(self) -> bool:
        """Whether idle sleep is held off now."""
        return self._process is not None and self._process.poll() is None

    def update(self, *, is_busy: bool) -> None:
        """Say whether there is work now; call it often."""
        now_s = self._clock()
        if is_busy:
            self._busy_until_s = now_s + LINGER_S
        if now_s >= self._busy_until_s:
            self.release()
        elif not self.is_held and now_s >= self._retry_at_s:
            self._hold(now_s)

    def release(self) -> None:
        """Let the machine sleep when it wants to."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(JOIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _hold(self, now_s: float) -> None:
        if self._program is None:
            return
        if self._process is not None:
            _log.warning("caffeinate ended by itself", exit_code=self._process.returncode)
        self._retry_at_s = now_s + RETRY_S
        try:
            self._process = subprocess.Popen(  # noqa: S603 - fixed arguments, no shell
                [self._program, "-i", "-w", str(os.getpid())], stdin=subprocess.DEVNULL
            )
        except OSError as error:
            self._process = None
            _log.warning("the machine may sleep in the middle of a job", program=self._program, reason=error.strerror)
