"""What was erased from a ledger on a server: a table there, which all its bridges and commands share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, bindparam, insert, select, text

from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.erasure_log import Erased, Erasure, digest_erased
from vps_bridge.ledger.tables import ErasureRow

_NEW = insert(ErasureRow)
# Numbers come in the order of the commits: whoever reads on from the last one misses none.
_IN_TURN = text("SELECT pg_advisory_xact_lock(1869440371)")
_SINCE = (
    select(ErasureRow.number, ErasureRow.kind, ErasureRow.at, ErasureRow.digest)
    .where(ErasureRow.number > bindparam("after"))
    .order_by(ErasureRow.number)
)


class ErasureTable:
    """The log of one ledger; like a file it holds no id and no name."""

    def __init__(self, database: LedgerDatabase, ledger_id: str) -> None:
        """Digest ids under the ledger's own key."""
        self._database, self._key = database, ledger_id.encode()
        self._passed_over = frozenset[tuple[Erased, str]]()

    def note(self, connection: Connection, kind: Erased, *ids: str) -> None:
        """Note an erasure within the transaction that does it; not one that `passing_over` names."""
        digest = self.digest(kind, *ids)
        if (kind, digest) not in self._passed_over:
            connection.execute(_IN_TURN)
            connection.execute(_NEW, {"kind": str(kind), "at": time.time(), "digest": digest})

    @contextmanager
    def passing_over(self, erasures: Iterable[Erasure]) -> Iterator[None]:
        """Note none of these: they are erased again, which is no new erasure to whoever restores a later dump."""
        self._passed_over = frozenset((one.kind, one.digest) for one in erasures)
        try:
            yield
        finally:
            self._passed_over = frozenset()

    def digest(self, kind: Erased, *ids: str) -> str:
        """Return what the log has of these ids."""
        return digest_erased(self._key, kind, *ids)

    def since(self, number: int) -> dict[int, Erasure]:
        """Return what was erased after the erasure of this number, by their numbers."""
        with self._database.reading() as connection:
            rows = connection.execute(_SINCE, {"after": number}).all()
        return {row.number: Erasure(Erased(row.kind), int(row.at), row.digest) for row in rows}

    def add(self, erasures: Iterable[Erasure]) -> None:
        """Put erasures back that the table has lost."""
        rows = [{"kind": str(one.kind), "at": one.at_s, "digest": one.digest} for one in erasures]
        if rows:
            with self._database.writing() as connection:
                connection.execute(_IN_TURN)
                connection.execute(_NEW, rows)
