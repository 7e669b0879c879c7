"""Copies of packed conversations under other ids, and rows made older: a year in ledger and store within minutes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, text, update

from vps_bridge.conversations.tables import conversations, packed_conversations
from vps_bridge.database import Database
from vps_bridge.ledger.tables import Base, ConversationRow, PackedRow

_CONVERSATIONS, _PACKED = (Base.metadata.tables[row.__tablename__] for row in (ConversationRow, PackedRow))
_MOMENTS = ("last_activity_at", "final_at", "packed_at", "started_at_s")


@dataclass(frozen=True)
class PackedConversation:
    """A packed conversation as ledger and store hold it; the values are compressed no more."""

    name: str
    row: dict[str, Any]
    packed_row: dict[str, Any]
    plain: bytes
    store_row: dict[str, Any]
    store_plain: bytes


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
            plain = zlib.decompress(packed["packed"]), zlib.decompress(value or b"")
            found.append(PackedConversation(name, dict(row), dict(packed), plain[0], dict(kept), plain[1]))
        return found


def add_copy(ledger: Database, store: Database, found: PackedConversation, name: str, older_s: float) -> None:
    """Write a copy of a conversation, so many seconds older; `name` is as long as the one it replaces.

    Its rows have the numbers of the first one's: of two copies of one only one can be unpacked at a time.
    """
    row = {**found.row, "conversation_id": name} | {key: found.row[key] - older_s for key in _MOMENTS}
    key = {"conversation_id": name}
    with ledger.writing() as connection:
        connection.execute(insert(_CONVERSATIONS), row)
        connection.execute(
            insert(_PACKED), {**found.packed_row, **key, "packed": _rename(found.plain, found.name, name)}
        )
    with store.writing() as connection:
        connection.execute(insert(conversations), {**found.store_row, **key})
        packed = _rename(found.store_plain, found.name, name)
        connection.execute(insert(packed_conversations), {**key, "packed": packed})


def _rename(plain: bytes, old: str, new: str) -> bytes:
    return zlib.compress(plain.replace(old.encode(), new.encode()))


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
