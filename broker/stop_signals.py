"""What ends a program from outside: Ctrl-C, SIGTERM, and a terminal that is closed (SIGHUP).

Imports next to nothing: a program obeys signals before it imports what takes time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_SIGNAL = 128  # plus the number of the signal: as a shell tells of a program that a signal ended
IMPORTING = "importlib._bootstrap"  # in the file name of the interpreter's own code that imports
LOOK_AGAIN_S = 0.02


class StoppedBySignal(SystemExit):
    """Ends the process with the exit code by which a shell tells of the signal."""

    def __init__(self, number: int) -> None:
        """Name the signal."""
        super().__init__(EXIT_SIGNAL + number)


def end_at_once() -> None:
    """Have each of the signals end this process without a word, while there is nothing to be put in order."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)  # what `_end` may have put off comes too late
    _set_handler(lambda number, _frame: os._exit(EXIT_SIGNAL + number))


def end_in_order() -> None:
    """Have each of the signals end what runs by an exception, so that whatever it has begun is put in order first.

    Ctrl-C is a `KeyboardInterrupt`, as ever; the others are a `StoppedBySignal`.
    """
    _set_handler(_end)


def call_on_stop(stop: Callable[[int, FrameType | None], object]) -> None:
    """Have each of the signals call `stop`; a closed terminal does not where `nohup` has it ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)


def ignore_signals() -> None:
    """Ignore all of them: they reach whole groups of processes, and the parent of this one decides when it ends."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _set_handler(handler: Callable[[int, FrameType | None], object]) -> None:
    """Set a handler for each signal that whoever started us did not have ignored, as `nohup` does, or a shell's `&`."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    if not _is_importing(frame):
        _raise(number)
    # An exception out of an import is swallowed by some modules and by the interpreter itself: it waits for the end.
    signal.signal(signal.SIGALRM, lambda _alarm, _later: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise StoppedBySignal(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if IMPORTING in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
