"""Copies of packed conversations under other ids, and rows made older: a year in ledger and store within minutes."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, text, update

from vps_bridge.conversations.tables import conversations, packed_conversations
from vps_bridge.database import Database
from vps_bridge.ledger.tables import Base, ChunkRow, ConversationRow, PackedRow

_CONVERSATIONS, _PACKED = (Base.metadata.tables[row.__tablename__] for row in (ConversationRow, PackedRow))
_MOMENTS = ("last_activity_at", "final_at", "packed_at", "started_at_s")


@dataclass(frozen=True)
class PackedConversation:
    """A packed conversation as ledger and store hold it."""

    name: str
    row: dict[str, Any]
    packed_row: dict[str, Any]
    store_row: dict[str, Any]
    store_packed: bytes


def read_packed(ledger: Database, store: Database) -> list[PackedConversation]:
    """Return all packed conversations."""
    with ledger.reading() as one, store.reading() as other:
        found = []
        for packed in one.execute(select(_PACKED)).mappings().all():
            name = packed["conversation_id"]
            row = one.execute(select(_CONVERSATIONS).where(_CONVERSATIONS.c.conversation_id == name)).mappings().one()
            kept = other.execute(select(conversations).where(conversations.c.conversation_id == name)).mappings().one()
            of_it = packed_conversations.c.conversation_id == name
            value = other.scalar(select(packed_conversations.c.packed).where(of_it))
            found.append(PackedConversation(name, dict(row), dict(packed), dict(kept), value or b""))
        return found


def add_copy(
    ledger: Database, store: Database, found: PackedConversation, name: str, older_s: float, *, readable: bool
) -> None:
    """Write a copy of a conversation, so many seconds older; `name` is as long as the one it replaces.

    Only what is `readable` has the new name in its packed rows too, which takes ten times as long; the bytes are as
    many. Its rows have the numbers of the first one's: of two copies of one only one can be unpacked at a time.
    """
    row = {**found.row, "conversation_id": name} | {key: found.row[key] - older_s for key in _MOMENTS}
    key, packed = {"conversation_id": name}, (found.packed_row["packed"], found.store_packed)
    if readable:
        packed = _rename(packed[0], found.name, name), _rename(packed[1], found.name, name)
    with ledger.writing() as connection:
        connection.execute(insert(_CONVERSATIONS), row)
        connection.execute(insert(_PACKED), {**found.packed_row, **key, "packed": packed[0]})
    with store.writing() as connection:
        connection.execute(insert(conversations), {**found.store_row, **key})
        connection.execute(insert(packed_conversations), {**key, "packed": packed[1]})


def _rename(packed: bytes, old: str, new: str) -> bytes:
    return lzma.compress(lzma.decompress(packed).replace(old.encode(), new.encode()), preset=1)


def make_older(database: Database, days: float) -> None:
    """Make all conversations of a ledger so much older, as far as how long things are kept goes."""
    older = {
        "last_activity_at": ConversationRow.last_activity_at - 86_400.0 * days,
        "final_at": ConversationRow.final_at - 86_400.0 * days,
    }
    with database.writing() as connection:
        connection.execute(update(ConversationRow).values(older))
        connection.execute(update(ChunkRow).values(accepted_at=ChunkRow.accepted_at - 86_400.0 * days))


def count_bytes(database: Database) -> dict[str, int]:
    """Return how many bytes of the file each table takes with its indexes, the largest first."""
    query = text(
        "SELECT coalesce(m.tbl_name, s.name) AS of_table, sum(s.pgsize) AS bytes FROM dbstat AS s "
        "LEFT JOIN sqlite_master AS m ON m.name = s.name GROUP BY of_table ORDER BY bytes DESC"
    )
    with database.reading() as connection:
        return {row.of_table: row.bytes for row in connection.execute(query)}
