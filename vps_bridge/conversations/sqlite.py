"""The conversation store in a SQLite file: for backends that only speak MQTT, and for files on a laptop."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection

from vps_bridge.conversations.packing import find_sizes, find_unpacked, pack, reading_unpacked, writing_unpacked
from vps_bridge.conversations.sql_store import SqlConversations
from vps_bridge.database import open_database

STORE_FILE = "conversations.sqlite3"
MIGRATIONS = Path(__file__).parent / "migrations"


class SqliteConversations(SqlConversations):
    """A `ConversationStore` in one file."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, or create it. Raises `vps_bridge.database.DatabaseError`."""
        self._database = open_database(path, MIGRATIONS)
        super().__init__(self._database)

    def find_damage(self) -> list[str]:
        """Return what is wrong with the file."""
        return self._database.find_damage()

    def delete(self, conversation_id: str) -> None:
        """See `ConversationStore.delete`."""
        self._delete_rows(conversation_id)
        self.forget_deleted_pages()

    def pack(self, conversation_id: str) -> bool:
        """See `ConversationStore.pack`."""
        with self._database.writing() as connection:
            return pack(connection, conversation_id)

    def unpacked(self) -> list[str]:
        """See `ConversationStore.unpacked`."""
        with self._database.reading() as connection:
            return find_unpacked(connection)

    def packed_sizes(self) -> list[int]:
        """Return how many bytes each packed conversation takes."""
        with self._database.reading() as connection:
            return find_sizes(connection)

    def free_pages(self, most: int) -> int:
        """See `ConversationStore.free_pages`."""
        return self._database.free_pages(most)

    def make_shrinkable(self) -> bool:
        """Have the file give room back, where an earlier version made it so that it cannot; see `Database`."""
        return self._database.make_shrinkable()

    def forget_deleted_pages(self) -> None:
        """See `ConversationStore.forget_deleted_pages`."""
        self._database.erase_deleted()

    def close(self) -> None:
        """See `ConversationStore.close`."""
        self._database.close()

    def _reading(self, conversation_id: str) -> AbstractContextManager[Connection]:
        return reading_unpacked(self._database, conversation_id)

    def _writing(self, conversation_id: str) -> AbstractContextManager[Connection]:
        return writing_unpacked(self._database, conversation_id)
