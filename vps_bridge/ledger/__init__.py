"""The ledger: the durable truth of what was accepted, leased, diarized and sent to the backend. SQL stays in here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vps_bridge.ledger.open_ledger import open_ledger

if TYPE_CHECKING:
    from vps_bridge.ledger.ledger import Ledger, LedgerBusy, LedgerMissing

__all__ = ["Ledger", "LedgerBusy", "LedgerMissing", "open_ledger"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or a function
    """Import what is asked for: who needs a record or a state, such as a command's options, waits for no database."""
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.ledger"), name)
