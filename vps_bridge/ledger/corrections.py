"""Corrections in the ledger: what people said about who speaks, for every later relabelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import JSON, Connection, bindparam, select, update

from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.conversation_changes import OF_CONVERSATION, THIS_CONVERSATION, mark_changed, open_conversation
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.deleted_people import delete_unnamed
from vps_bridge.ledger.records import CorrectionRecord
from vps_bridge.ledger.tables import CorrectionRow

_COLUMNS = tuple(getattr(CorrectionRow, item.name) for item in fields(CorrectionRecord))
_GET = select(*_COLUMNS).where(CorrectionRow.conversation_id == OF_CONVERSATION).order_by(CorrectionRow.write)
_IS_CORRECTED = "SELECT 1 FROM corrections WHERE conversation_id = ? LIMIT 1"
_ADD = insert(CorrectionRow).on_conflict_do_nothing()
_SWITCH = (
    update(CorrectionRow)
    .where(CorrectionRow.conversation_id == OF_CONVERSATION, CorrectionRow.write == bindparam("of_write"))
    .values(in_force=bindparam("is_in_force"), voices_before=bindparam("voices_now", type_=JSON))
)
_SET_VOICES = THIS_CONVERSATION.values(voices=bindparam("new_voices", type_=JSON))


class CorrectionBook:
    """Corrections of all conversations."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def of_conversation(self, conversation_id: str) -> list[CorrectionRecord]:
        """Return what people corrected in a conversation, oldest first, what is undone too."""
        with self._database.reading() as connection:
            return corrections_of(self._database, connection, conversation_id)

    def add(self, conversation_id: str, correction: CorrectionRecord) -> None:
        """Keep a correction and ask for new labels; one with the same number is there already."""
        with self._database.writing(conversation_id) as connection:
            open_conversation(connection, conversation_id)
            connection.execute(_ADD, {"conversation_id": conversation_id, **asdict(correction)})
            mark_changed(connection, conversation_id)

    def switch(
        self,
        conversation_id: str,
        in_force: Mapping[int, bool],
        *,
        voices_now: Any,  # noqa: ANN401 - JSON
        voices: Any,  # noqa: ANN401 - JSON
    ) -> None:
        """Put corrections out of force or into it again, by number, and ask for new labels.

        Args:
            conversation_id: the conversation.
            in_force: by number, whether it is in force from now on.
            voices_now: the published voices until now, for when it is switched back.
            voices: the published voices that the next labels start from.
        """
        with self._database.writing(conversation_id) as connection:
            for write, is_in_force in in_force.items():
                switch = {"of_write": write, "is_in_force": is_in_force, "voices_now": voices_now}
                connection.execute(_SWITCH, {"of_conversation": conversation_id, **switch})
            if in_force:
                connection.execute(_SET_VOICES, {"of_conversation": conversation_id, "new_voices": voices})
            mark_changed(connection, conversation_id)

    def forget_unnamed(self, conversation_id: str) -> None:
        """Forget whom only corrections of a conversation named that are undone, and of whom nothing was learned."""
        with self._database.writing(conversation_id) as connection:
            delete_unnamed(connection, conversation_id)


def corrections_of(database: LedgerDatabase, connection: Connection, conversation_id: str) -> list[CorrectionRecord]:
    """Return what `CorrectionBook.of_conversation` does, within a transaction of this connection."""
    if not database.has_row(_IS_CORRECTED, conversation_id):
        return []
    rows = connection.execute(_GET, {"of_conversation": conversation_id})
    return [CorrectionRecord(**row._asdict()) for row in rows]
