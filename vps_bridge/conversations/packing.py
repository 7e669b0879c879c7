"""Packing: segments and history of a conversation that nothing happens to any more become one small value.

Whoever asks for the conversation gets its rows back: the store unpacks them first, in the same transaction.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Text, bindparam, delete, func, insert, select

from vps_bridge.conversations.tables import changes, conversations, packed_conversations, segments, writes
from vps_bridge.packed_rows import PackedRowsDamaged, pack_rows, unpack_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vps_bridge.database import Database

_ID = bindparam("of_conversation", type_=Text)
_TABLES = (segments, writes, changes)  # in the order in which they are put back
_PACKED = select(packed_conversations.c.packed).where(packed_conversations.c.conversation_id == _ID)
_IS_PACKED = "SELECT 1 FROM packed_conversations WHERE conversation_id = ?"
_IS_KNOWN = select(conversations.c.conversation_id).where(conversations.c.conversation_id == _ID)
_DROP = delete(packed_conversations).where(packed_conversations.c.conversation_id == _ID)
_UNPACKED = select(conversations.c.conversation_id).where(
    conversations.c.conversation_id.not_in(select(packed_conversations.c.conversation_id))
)
_ROWS = {table: select(table).where(table.c.conversation_id == _ID).order_by(*table.primary_key) for table in _TABLES}


def pack(connection: Connection, conversation_id: str) -> bool:
    """Pack a conversation's rows; False where it is packed, or unknown.

    The rows go only once what they were packed into was read back and is the same.
    """
    this = {"of_conversation": conversation_id}
    if connection.scalar(_PACKED, this) is not None or connection.execute(_IS_KNOWN, this).first() is None:
        return False
    rows = {
        table.name: [dict(row) for row in connection.execute(statement, this).mappings()]
        for table, statement in _ROWS.items()
    }
    packed = pack_rows(rows)
    if unpack_rows(packed) != rows:
        raise PackedRowsDamaged("not the same when they are read back")
    for table in reversed(_TABLES):
        connection.execute(delete(table).where(table.c.conversation_id == _ID), this)
    connection.execute(insert(packed_conversations), {"conversation_id": conversation_id, "packed": packed})
    return True


def unpack(connection: Connection, conversation_id: str) -> None:
    """Put a packed conversation's rows back; nothing where it is not packed. Raises `PackedRowsDamaged`."""
    this = {"of_conversation": conversation_id}
    packed: bytes | None = connection.scalar(_PACKED, this)
    if packed is None:
        return
    rows = unpack_rows(packed)
    for table in _TABLES:
        known = [_known_columns(row, table.c) for row in rows.get(table.name, [])]
        if known:
            connection.execute(insert(table), known)
    connection.execute(_DROP, this)


def find_unpacked(connection: Connection) -> list[str]:
    """Return the conversations that are not packed."""
    return list(connection.scalars(_UNPACKED))


def find_sizes(connection: Connection) -> list[int]:
    """Return how many bytes each packed conversation takes."""
    return list(connection.scalars(select(func.length(packed_conversations.c.packed))))


@contextmanager
def reading_unpacked(database: Database, conversation_id: str) -> Iterator[Connection]:
    """Lend the connection to read a conversation; one that is packed is unpacked first."""
    with database.reading() as connection:
        if not database.has_row(_IS_PACKED, conversation_id):
            yield connection
            return
    with writing_unpacked(database, conversation_id) as connection:
        yield connection


@contextmanager
def writing_unpacked(database: Database, conversation_id: str) -> Iterator[Connection]:
    """Lend the connection for one transaction on a conversation; one that is packed is unpacked first."""
    with database.writing() as connection:
        if database.has_row(_IS_PACKED, conversation_id):
            unpack(connection, conversation_id)
        yield connection


def _known_columns(row: dict[str, Any], columns: Any) -> dict[str, Any]:  # noqa: ANN401 - of a table
    """Return a row as the table has its columns now; a later version of it may lack some."""
    return {name: value for name, value in row.items() if name in columns}
