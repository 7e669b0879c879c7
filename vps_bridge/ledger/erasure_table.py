"""What was erased from a ledger on a server: a table there, which all its bridges and commands share."""

from __future__ import annotations

import time

from sqlalchemy import Connection, insert

from vps_bridge.ledger.erasure_log import Erased, digest_erased
from vps_bridge.ledger.tables import ErasureRow

_NEW = insert(ErasureRow)


class ErasureTable:
    """The log of one ledger; like a file it holds no id and no name."""

    def __init__(self, ledger_id: str) -> None:
        """Digest ids under the ledger's own key."""
        self._key = ledger_id.encode()

    def note(self, connection: Connection, kind: Erased, *ids: str) -> None:
        """Note an erasure within the transaction that does it."""
        connection.execute(_NEW, {"kind": str(kind), "at": time.time(), "digest": self.digest(kind, *ids)})

    def digest(self, kind: Erased, *ids: str) -> str:
        """Return what the log has of these ids."""
        return digest_erased(self._key, kind, *ids)
