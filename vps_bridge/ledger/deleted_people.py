"""What a deleted conversation takes along of people: what was learned there, and who was named only there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select

from vps_bridge.ledger.conversation_changes import belongs_to
from vps_bridge.ledger.tables import (
    ConversationRow,
    CorrectionRow,
    PersonDecisionRow,
    PersonEventRow,
    PersonRow,
    PrintRow,
)

FROM_CONVERSATION, FROM_ENROLMENT = "conversation", "enrolment"
"""Sources of voiceprints. One from a conversation goes with it; an enrolment is thrown away and its print stays."""


def delete_learned(connection: Connection, conversation_id: str) -> None:
    """Delete what a conversation taught, before its own rows go.

    A person goes too of whom nothing else is known: somebody only said there that a voice is theirs. An enrolment
    leaves what it taught.
    """
    this = ConversationRow.conversation_id == conversation_id
    row = connection.execute(select(ConversationRow.owner, ConversationRow.enrols).where(this)).first()
    if row is None or row.enrols is not None:
        return
    owner = row.owner or ""
    named = _named_in(connection, CorrectionRow.conversation_id == conversation_id)
    mine = (PrintRow.conversation_id == conversation_id) & (PrintRow.source == FROM_CONVERSATION)
    connection.execute(delete(PrintRow).where(mine))
    connection.execute(delete(PersonDecisionRow).where(PersonDecisionRow.conversation_id == conversation_id))
    if not named:
        return
    others = select(ConversationRow.conversation_id).where(
        belongs_to(owner), ConversationRow.conversation_id != conversation_id
    )
    named -= _named_in(connection, CorrectionRow.conversation_id.in_(others))
    is_known = PersonRow.name.is_not(None) | PersonRow.consent_date.is_not(None) | PersonRow.is_owner
    for table in (PrintRow, PersonEventRow):
        of_person = (table.owner == PersonRow.owner) & (table.person_id == PersonRow.person_id)
        is_known |= select(table.owner).where(of_person).exists()
    unknown = (PersonRow.owner == owner) & PersonRow.person_id.in_(named) & ~is_known
    connection.execute(delete(PersonRow).where(unknown))


def _named_in(connection: Connection, which: Any) -> set[str]:  # noqa: ANN401 - a condition
    """Return whom corrections name."""
    rows = connection.scalars(select(CorrectionRow.said).where(which)).all()
    return {one["person_id"] for said in rows for one in said if one.get("person_id")}
