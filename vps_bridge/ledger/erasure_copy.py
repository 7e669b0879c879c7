"""A bridge's own copy of what was erased from a ledger on a server.

Whoever restores a dump brings back what was erased after it, and the table of erasures forgets that it was. Each bridge
copies that table into a file of its own: when it starts, it sees what the ledger does not know any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vps_bridge.ledger.erasure_log import Erasure, ErasureLog, digest_erased
from vps_bridge.ledger.erasure_table import ErasureTable

_NAME_CHARS = 12


class ErasureCopy:
    """The file of one ledger, below a bridge's directory: another ledger has another one."""

    def __init__(self, root: Path, ledger_id: str, table: ErasureTable) -> None:
        """Use the file that is there; `keep_up` makes it where there is none."""
        name = f"erasures-{digest_erased(ledger_id.encode(), 'copy')[:_NAME_CHARS]}.log"
        self._log, self._table = ErasureLog(root, ledger_id, name), table
        self._copied: int | None = None  # the number up to which the table was copied; None: not looked at yet

    def find_lost(self) -> list[Erasure]:
        """Return what the copy has and the table has not, in order: what was erased after a dump that was restored."""
        known = set(self._table.since(0).values())
        return [erasure for erasure in self._log.read().erasures if erasure not in known]

    @contextmanager
    def putting_back(self, lost: list[Erasure]) -> Iterator[None]:
        """Note in the table what it had lost, as it was, once the body has erased it again."""
        with self._table.passing_over(lost):
            yield
        self._table.add(lost)

    def keep_up(self) -> None:
        """Copy what was erased since the last call. Raises OSError where the disk fails; then the next call does it."""
        if self._copied is None:
            known = set(self._log.read().erasures)
            rows = self._table.since(0)
            new = [erasure for erasure in rows.values() if erasure not in known]
        else:
            rows = self._table.since(self._copied)
            new = list(rows.values())
        self._log.append(new)
        self._copied = max(rows, default=self._copied or 0)
