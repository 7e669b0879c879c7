"""The conversation store in PostgreSQL: for a backend that has one, and for more than one machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import URL, delete, false

from broker.errors import SettingsError
from vps_bridge.conversations.conversation_outages import ConversationOutages
from vps_bridge.conversations.postgres_database import STATEMENT_TIMEOUT_S, ConnectionCut, PostgresDatabase
from vps_bridge.conversations.sql_store import SqlConversations
from vps_bridge.conversations.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.conversation import TranscriptSegment
    from schemas.corrections import Correction
    from vps_bridge.conversations.reversible_store import Reversal
    from vps_bridge.conversations.store import (
        AlreadyWritten,
        Applied,
        Conflict,
        HumanLabel,
        Label,
        StoredConversation,
        Write,
    )

T = TypeVar("T")
_INSTALL = "PostgreSQL needs its driver: pip install 'omi-diarization[bridge,postgres]'"


class PostgresConversations(SqlConversations):
    """A `ConversationStore` in one schema of a PostgreSQL database.

    What a cut connection may have done or not is asked once more on a new one: everything here, asked again, is done
    once. Where that fails too, it is left alone for a while.
    """

    def __init__(self, url: URL, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S) -> None:
        """Connect to nothing yet. Raises `SettingsError` where the driver is not installed."""
        try:
            self._database = PostgresDatabase(url, statement_timeout_s=statement_timeout_s)
        except ModuleNotFoundError as error:
            raise SettingsError("conversations_url", "the settings", _INSTALL) from error
        self._outages = ConversationOutages()
        super().__init__(self._database)

    def check(self) -> None:
        """Connect, make or migrate the tables, and write nothing to each. Raises `StoreUnavailable`."""
        with self._database.writing() as connection:
            for table in metadata.sorted_tables:
                connection.execute(delete(table).where(false()))

    def upsert_segments(
        self,
        conversation_id: str,
        revision: int,
        segments: Sequence[TranscriptSegment],
        removed: Sequence[str] = (),
    ) -> bool:
        """See `ConversationStore.upsert_segments`."""
        upsert = super().upsert_segments
        return self._done(conversation_id, lambda: upsert(conversation_id, revision, segments, removed))

    def read(self, conversation_id: str) -> StoredConversation | None:
        """See `ConversationStore.read`."""
        read = super().read
        return self._done(conversation_id, lambda: read(conversation_id))

    def apply(
        self, conversation_id: str, expected_revision: str, write_key: str, labels: Sequence[Label]
    ) -> Applied | Conflict | AlreadyWritten:
        """See `ConversationStore.apply`."""
        apply = super().apply
        return self._done(conversation_id, lambda: apply(conversation_id, expected_revision, write_key, labels))

    def correct(
        self,
        conversation_id: str,
        write_key: str,
        labels: Sequence[HumanLabel],
        *,
        corrections: Sequence[Correction],
        by: str | None,
    ) -> Applied:
        """See `ConversationStore.correct`."""
        correct = super().correct
        return self._done(
            conversation_id, lambda: correct(conversation_id, write_key, labels, corrections=corrections, by=by)
        )

    def _reverse(self, conversation_id: str, reversal: Reversal) -> Applied:
        reverse = super()._reverse
        return self._done(conversation_id, lambda: reverse(conversation_id, reversal))

    def history(self, conversation_id: str) -> tuple[Write, ...]:
        """See `ConversationStore.history`."""
        history = super().history
        return self._done(conversation_id, lambda: history(conversation_id))

    def known(self) -> list[str]:
        """Return the ids of all conversations."""
        return self._done("", super().known)

    def delete(self, conversation_id: str) -> None:
        """See `ConversationStore.delete`."""
        self._done(conversation_id, lambda: self._delete_rows(conversation_id))

    def pack(self, _conversation_id: str) -> bool:
        """Leave that to the server: it compresses long values itself."""
        return False

    def unpacked(self) -> list[str]:
        """Return nothing: there is nothing to pack."""
        return []

    def free_pages(self, _most: int) -> int:
        """Return 0: there are no pages of ours."""
        return 0

    def forget_deleted_pages(self) -> None:
        """Leave that to the server: its files are not ours, and its own vacuum reuses what was deleted."""

    def close(self) -> None:
        """See `ConversationStore.close`."""
        self._database.close()

    def _done(self, conversation_id: str, work: Callable[[], T]) -> T:
        return self._outages.guard(conversation_id, lambda: _once_more(work))


def _once_more(work: Callable[[], T]) -> T:
    try:
        return work()
    except ConnectionCut:
        return work()
