"""Hanging up on a server that does not answer: a library that waits for a socket waits for ever."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress

CHECK_S = 0.5


class HangUp:
    """One thread that watches one connection. `extend` is called before each wait, and costs next to nothing."""

    def __init__(self, file_number: int, limit_s: float) -> None:
        """Watch the socket of this number from now on; it is our own copy of it that is shut down."""
        self._socket = socket.socket(fileno=os.dup(file_number))
        self._limit_s, self._ended = limit_s, threading.Event()
        self._due_s: float | None = None
        self.has_hung_up = False
        self._thread = threading.Thread(target=self._watch, name="ledger-hang-up", daemon=True)
        self._thread.start()

    def extend(self) -> None:
        """Begin anew: something is about to be asked."""
        self._due_s = time.monotonic() + self._limit_s

    def rest(self) -> None:
        """Watch nothing: everything was answered."""
        self._due_s = None

    def _watch(self) -> None:
        while not self._ended.wait(CHECK_S):
            due_s = self._due_s
            if due_s is not None and time.monotonic() > due_s:
                self.has_hung_up = True
                with suppress(OSError):  # it has ended by itself
                    self._socket.shutdown(socket.SHUT_RDWR)
                return

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join()
        self._socket.close()
