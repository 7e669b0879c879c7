"""The conversation store in a SQLite file: for backends that only speak MQTT, and for files on a laptop."""

from __future__ import annotations

from pathlib import Path

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

    def forget_deleted_pages(self) -> None:
        """See `ConversationStore.forget_deleted_pages`."""
        self._database.erase_deleted()

    def close(self) -> None:
        """See `ConversationStore.close`."""
        self._database.close()
