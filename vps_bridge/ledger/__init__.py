"""The ledger: the durable truth of what was accepted, leased, diarized and sent to the backend. SQL stays in here."""

from vps_bridge.ledger.ledger import Ledger, LedgerBusy, LedgerMissing
from vps_bridge.ledger.open_ledger import open_ledger

__all__ = ["Ledger", "LedgerBusy", "LedgerMissing", "open_ledger"]
