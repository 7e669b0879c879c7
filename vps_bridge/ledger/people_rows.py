"""Rows of people, written within the transaction of their cause."""

from __future__ import annotations

import time

from sqlalchemy import Connection, update

from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.conversation_changes import belongs_to
from vps_bridge.ledger.tables import ConversationRow, PersonDecisionRow, PersonRow


def add_person(connection: Connection, owner: str, person_id: str) -> None:
    """Make a person of whom nothing is known yet; one who is there stays as it is."""
    new = insert(PersonRow).values(owner=owner, person_id=person_id, created_at=time.time())
    connection.execute(new.on_conflict_do_nothing())


def note_decision(
    connection: Connection,
    owner: str,
    person_id: str,
    what: str,
    conversation_id: str | None,
    similarity: float | None = None,
) -> None:
    """Note what was decided about a person."""
    about = {"owner": owner, "person_id": person_id, "conversation_id": conversation_id, "similarity": similarity}
    connection.execute(insert(PersonDecisionRow).values(at=time.time(), what=str(what), **about))


def ask_labels(connection: Connection, owner: str, *, but: str | None = None) -> None:
    """Ask for new labels of the owner's conversations that are not final."""
    is_open = ConversationRow.final_at.is_(None) & (ConversationRow.conversation_id != (but or ""))
    dirty = update(ConversationRow).where(belongs_to(owner), is_open)
    connection.execute(dirty.values(dirty=ConversationRow.dirty + 1))
