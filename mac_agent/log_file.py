"""A log file that never fills the disk: stderr goes to it, and it is rotated by the process that writes it.

newsyslog would need root, and launchd never closes the file it opened. So the file is copied and cut in place: every
process that inherited it, the worker too, goes on writing to the same one. A line written between the copy and the
cut is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from broker.private_files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 10_000_000
KEPT_FILES = 5
LOOK_EVERY_S = 60.0
STDOUT, STDERR = 1, 2


class LogFile:
    """The log of this process.

    Args:
        path: the file; older ones lie beside it as `path.1` (newest) to `path.KEPT_FILES`.
        max_bytes: size above which it is rotated.
        clock: monotonic seconds.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._max_bytes, self._clock = path, max_bytes, clock
        self._next_look_s = 0.0

    def take_output(self) -> None:
        """Send stdout and stderr of this process, and of those it starts, to the end of the file.

        Raises:
            OSError: the file cannot be opened, or is a device or a pipe that takes nothing.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Opening a pipe that nobody reads would otherwise wait for ever.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o600)
        try:
            os.write(descriptor, b"")
        except OSError as error:
            os.close(descriptor)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        os.set_blocking(descriptor, True)
        for standard in (STDOUT, STDERR):
            os.dup2(descriptor, standard)
        os.close(descriptor)
        self.rotate_if_due()

    def rotate_if_due(self) -> None:
        """Rotate if the file has grown too large; looks once in `LOOK_EVERY_S`, so call it often."""
        now_s = self._clock()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        if os.fstat(STDERR).st_size > self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        for number in range(KEPT_FILES - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        # A full disk: cutting the file is what helps.
        with contextlib.suppress(OSError), self._path.open("rb") as lines:
            replace_file(self._numbered(1), lines)
        # Appending is what makes cutting safe: without it, the next line would leave a hole before itself.
        fcntl.fcntl(STDERR, fcntl.F_SETFL, fcntl.fcntl(STDERR, fcntl.F_GETFL) | os.O_APPEND)
        os.ftruncate(STDERR, 0)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
