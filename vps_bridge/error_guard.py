"""Errors that end one piece of work and not the bridge: counted, logged, and shown in the heartbeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import structlog

from schemas.errors import SchemaError
from vps_bridge.errors import AnotherBridge, DatabaseMoved, LabellingFailed, LedgerUnavailable, StoreUnavailable
from vps_bridge.locked_file import LOCKED, is_locked

OUTAGE_TOLD_S = 10.0
_LOG = structlog.get_logger(__name__)


class ErrorGuard:
    """Does pieces of work, and remembers how many of them failed and how the last one did."""

    def __init__(self) -> None:
        """Start without an error."""
        self._errors, self._last_error, self._last_error_s, self._outage_due_s = 0, "", 0.0, 0.0

    def run(self, where: str, work: Callable[[], object]) -> None:
        """Do a piece of work; whatever it raises ends that piece alone. Only `AnotherBridge` is raised.

        Nothing promised is lost by it: receipts are sent after the ledger has what they promise, and what got no
        receipt is offered again by its owner.
        """
        try:
            work()
        except AnotherBridge:
            raise
        except LedgerUnavailable as error:
            self._note_outage(where, str(error))
        except Exception as error:  # noqa: BLE001 - one bad message, file or conversation must not stop the others
            self.note(where, describe_error(error))

    def _note_outage(self, where: str, error: str) -> None:
        """Count what fails because the ledger's server is away: that is much, and is told once in a while."""
        now_s = time.monotonic()
        if now_s >= self._outage_due_s:
            self._outage_due_s = now_s + OUTAGE_TOLD_S
            self.note(where, error)
        else:
            self._errors += 1

    def note(self, where: str, error: str) -> None:
        """Count an error and remember its words."""
        self._errors += 1
        self._last_error, self._last_error_s = f"{where}: {error}", time.monotonic()
        _LOG.error("survived", where=where, error=error, errors=self._errors)

    def summary(self) -> str | None:
        """Return the last error, how long ago it was and how many there were, or None."""
        if not self._errors:
            return None
        ago_s = time.monotonic() - self._last_error_s
        return f"{self._last_error} ({ago_s:.0f} s ago; error {self._errors} since the start)"


def describe_error(error: Exception) -> str:
    """Return an error's words where they are ours, else its kind and place: its text may quote a transcript."""
    if isinstance(error, (SchemaError, LabellingFailed, StoreUnavailable, DatabaseMoved)):
        return str(error)
    cause = getattr(getattr(error, "orig", error), "sqlite_errorname", type(error).__name__)
    words = f"{cause} at {_origin(error.__traceback__)}"
    return f"{words}: {LOCKED}: omi-bridge doctor" if is_locked(error) else words


def _origin(trace: TracebackType | None) -> str:
    """Return the file and line where an exception was raised."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
