"""The history of a conversation in a SQL store: every write with its changes, and what takes back what."""

from __future__ import annotations

from sqlalchemy import Connection, Text, bindparam, func, insert, select

from vps_bridge.conversations.many_rows import execute_many
from vps_bridge.conversations.segment_rows import change_from_json, change_to_json
from vps_bridge.conversations.store import Change, Write
from vps_bridge.conversations.tables import changes, writes
from vps_bridge.conversations.write_json import write_from_json, write_to_json

_ID = bindparam("of_conversation", type_=Text)
_VERSION_OF_KEY = select(func.max(writes.c.version)).where(
    writes.c.conversation_id == _ID, writes.c.write_key == bindparam("write_key")
)
_NEW_WRITE, _NEW_CHANGE = insert(writes), insert(changes)
_WRITES = select(writes).where(writes.c.conversation_id == _ID).order_by(writes.c.version)
_CHANGES = select(changes).where(changes.c.conversation_id == _ID).order_by(changes.c.segment_id)


def find_version(connection: Connection, conversation_id: str, write_key: str) -> int | None:
    """Return the number of the last write with this key, or None where there was none."""
    version: int | None = connection.scalar(
        _VERSION_OF_KEY, {"of_conversation": conversation_id, "write_key": write_key}
    )
    return version


def record_write(connection: Connection, conversation_id: str, write: Write) -> None:
    """Add a write with its changes to the history."""
    key = {"conversation_id": conversation_id, "version": write.version}
    connection.execute(_NEW_WRITE, key | write_to_json(write))
    execute_many(connection, _NEW_CHANGE, [key | change_to_json(change) for change in write.changes])


def read_history(connection: Connection, conversation_id: str) -> tuple[Write, ...]:
    """Return every write, oldest first."""
    changes_of: dict[int, list[Change]] = {}
    key = {"of_conversation": conversation_id}
    for row in connection.execute(_CHANGES, key).mappings():
        changes_of.setdefault(row["version"], []).append(change_from_json(row))
    rows = connection.execute(_WRITES, key).mappings()
    return tuple(write_from_json(row, changes_of.get(row["version"], ())) for row in rows)
