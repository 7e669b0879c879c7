"""What a caller of the HTTP door is told while a database, its server or the disk cannot be used: ask again later."""

from __future__ import annotations

from schemas.failure import FailureCode
from vps_bridge.database import PROGRAM_FAULTS, STORAGE_ERRORS, DatabaseError
from vps_bridge.errors import DatabaseMoved, LedgerUnavailable, StoreUnavailable
from vps_bridge.gone_database import DatabaseGone
from vps_bridge.http.messages import HttpProblem
from vps_bridge.ledger import LedgerMissing
from vps_bridge.locked_file import is_locked

_LATER = "nothing was promised, send it again; omi-bridge doctor says why"
_AWAY = "was moved away or replaced"
OUTAGES = (StoreUnavailable, DatabaseError, LedgerMissing, *STORAGE_ERRORS)
"""What is raised while a database, its server or the disk cannot be used."""


def explain_failure(error: Exception) -> HttpProblem:
    """Return the answer to a request that failed: 503 where the same may be done later, else 500."""
    if isinstance(error, LedgerUnavailable):
        return _not_now("bridge.ledger_unavailable", "the server that keeps the ledger does not answer")
    if isinstance(error, StoreUnavailable):
        return _not_now("bridge.store_unavailable", "where conversations are kept does not answer")
    if isinstance(error, OSError) and not isinstance(error, DatabaseMoved):
        return _not_now(FailureCode.DISK_FULL, f"the bridge's disk refuses ({error.strerror or type(error).__name__})")
    if isinstance(error, OUTAGES) and not isinstance(error, PROGRAM_FAULTS):
        return _not_now("bridge.database_unavailable", f"a database of the bridge {_what_is_wrong(error)}")
    words = "the bridge could not do it: nothing was promised, send it again; its log says more"
    return HttpProblem(500, "bridge.error", words)


def _not_now(code: str, what: str) -> HttpProblem:
    return HttpProblem(503, code, f"{what}: {_LATER}")


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, (DatabaseMoved, DatabaseGone, LedgerMissing)):
        return _AWAY
    return "is kept locked by another program" if is_locked(error) else "cannot be read or written now"
