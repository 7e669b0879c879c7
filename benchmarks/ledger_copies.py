"""Copies of packed conversations under new ids, and rows made older: a year in a ledger and a store within minutes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import count
from typing import Any

from sqlalchemy import insert, select, text, update

from vps_bridge.conversations.tables import conversations, packed_conversations
from vps_bridge.database import Database
from vps_bridge.ledger.tables import ConversationRow, PackedRow
from vps_bridge.packed_rows import Rows, pack_rows, unpack_rows

_LEDGER_COLUMNS = ConversationRow.__table__.c


@dataclass(frozen=True)
class PackedConversation:
    """A packed conversation as ledger and store hold it."""

    name: str
    row: dict[str, Any]
    brief: dict[str, Any]
    ledger_rows: Rows
    store_row: dict[str, Any]
    store_rows: Rows


def read_packed(ledger: Database, store: Database) -> list[PackedConversation]:
    """Return all packed conversations."""
    with ledger.reading() as one, store.reading() as other:
        found = []
        for packed in one.execute(select(PackedRow.__table__)).mappings().all():
            name = packed["conversation_id"]
            row = one.execute(select(ConversationRow.__table__).where(_LEDGER_COLUMNS.conversation_id == name))
            mine = conversations.c.conversation_id == name
            kept = select(packed_conversations.c.packed).where(packed_conversations.c.conversation_id == name)
            found.append(
                PackedConversation(
                    name,
                    dict(row.mappings().one()),
                    dict(packed),
                    unpack_rows(packed["packed"]),
                    dict(other.execute(select(conversations).where(mine)).mappings().one()),
                    unpack_rows(other.scalar(kept) or b""),
                )
            )
        return found


class Copier:
    """Writes copies, each under ids that no other has."""

    def __init__(self, ledger: Database, store: Database) -> None:
        """Write into these databases."""
        self._ledger, self._store = ledger, store
        self._arrivals, self._numbers = count(10_000_000), count(10_000_000)

    def add(self, found: PackedConversation, name: str, older_s: float) -> None:
        """Write a copy of a conversation, so many seconds older; `name` is as long as the one it replaces."""
        rename = _Renaming(found.name, name)
        rows: Rows = rename.all(found.ledger_rows)
        arrivals = {chunk["arrival"]: next(self._arrivals) for chunk in rows["chunks"]}
        for chunk in rows["chunks"]:
            chunk["arrival"] = arrivals[chunk["arrival"]]
        for place in rows["job_chunks"]:
            place["arrival"] = arrivals[place["arrival"]]
        for job in rows["jobs"]:
            job["number"] = next(self._numbers)
        row = {**found.row, "conversation_id": name}
        row |= {key: row[key] - older_s for key in ("last_activity_at", "final_at", "packed_at", "started_at_s")}
        brief = {**found.brief, "conversation_id": name, "packed": pack_rows(rows)}
        with self._ledger.writing() as connection:
            connection.execute(insert(ConversationRow.__table__), row)
            connection.execute(insert(PackedRow.__table__), brief)
        with self._store.writing() as connection:
            connection.execute(insert(conversations), {**found.store_row, "conversation_id": name})
            packed = pack_rows(rename.all(found.store_rows))
            connection.execute(insert(packed_conversations), {"conversation_id": name, "packed": packed})


class _Renaming:
    """Gives everything that contains the old name, and every random id, another of the same length."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new
        self._known: dict[str, str] = {}

    def all(self, value: Any) -> Any:  # noqa: ANN401 - rows, and what is in them
        """Return a value with every id in it renamed."""
        if isinstance(value, dict):
            return {key: self.all(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.all(item) for item in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, said: str) -> str:
        if self._old in said:
            return said.replace(self._old, self._new)
        for start, size in (("j-", 26), ("e-", 26), ("", 32)):
            if said.startswith(start) and len(said) == size and " " not in said:
                if said not in self._known:
                    digest = hashlib.sha256((self._new + said).encode()).hexdigest()
                    self._known[said] = start + digest[: size - len(start)]
                return self._known[said]
        return said


def make_older(database: Database, days: float) -> None:
    """Make all conversations of a ledger so much older, as far as how long things are kept goes."""
    older = {
        "last_activity_at": ConversationRow.last_activity_at - 86_400.0 * days,
        "final_at": ConversationRow.final_at - 86_400.0 * days,
    }
    with database.writing() as connection:
        connection.execute(update(ConversationRow).values(older))


def count_bytes(database: Database) -> dict[str, int]:
    """Return how many bytes of the file each table takes with its indexes, the largest first."""
    query = text(
        "SELECT coalesce(m.tbl_name, s.name) AS of_table, sum(s.pgsize) AS bytes FROM dbstat AS s "
        "LEFT JOIN sqlite_master AS m ON m.name = s.name GROUP BY of_table ORDER BY bytes DESC"
    )
    with database.reading() as connection:
        return {row.of_table: row.bytes for row in connection.execute(query)}
