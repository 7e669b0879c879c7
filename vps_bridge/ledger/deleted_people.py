"""Whom nothing is known of any more: who was named only in a conversation that is deleted, or by what was undone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select

from vps_bridge.ledger.conversation_changes import belongs_to
from vps_bridge.ledger.people_rows import ASKED_AGAIN
from vps_bridge.ledger.records import FORGOTTEN
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
    named = named_in(connection, CorrectionRow.conversation_id == conversation_id)
    mine = (PrintRow.conversation_id == conversation_id) & (PrintRow.source == FROM_CONVERSATION)
    connection.execute(delete(PrintRow).where(mine))
    connection.execute(delete(PersonDecisionRow).where(PersonDecisionRow.conversation_id == conversation_id))
    forget_named(connection, owner, conversation_id, named)


def forget_named(connection: Connection, owner: str, conversation_id: str, persons: set[str]) -> None:
    """Delete those of an owner's people of whom nothing is known but what was said in this conversation."""
    if not persons:
        return
    others = select(ConversationRow.conversation_id).where(
        belongs_to(owner), ConversationRow.conversation_id != conversation_id
    )
    named = named_in(connection, CorrectionRow.conversation_id.in_(others))
    _delete_unknown(connection, owner, persons - named)


def delete_unnamed(connection: Connection, conversation_id: str) -> None:
    """Delete whom corrections of a conversation named that all are undone, where nothing else is known of them."""
    owner = connection.scalar(select(ConversationRow.owner).where(ConversationRow.conversation_id == conversation_id))
    undone = named_in(connection, CorrectionRow.conversation_id == conversation_id, ~CorrectionRow.in_force)
    if not undone:
        return
    its = select(ConversationRow.conversation_id).where(belongs_to(owner or ""))
    in_force = named_in(connection, CorrectionRow.conversation_id.in_(its), CorrectionRow.in_force)
    _delete_unknown(connection, owner or "", undone - in_force)


def _delete_unknown(connection: Connection, owner: str, persons: set[str]) -> None:
    """Delete those of whom there is neither a fact, nor a voiceprint, nor an event."""
    is_known = PersonRow.name.is_not(None) | PersonRow.consent_date.is_not(None) | PersonRow.is_owner
    for table in (PrintRow, PersonEventRow):
        of_person = (table.owner == PersonRow.owner) & (table.person_id == PersonRow.person_id)
        is_known |= select(table.owner).where(of_person).exists()
    unknown = select(PersonRow.person_id).where(PersonRow.owner == owner, PersonRow.person_id.in_(persons), ~is_known)
    gone = connection.scalars(unknown).all()
    # What other conversations lost is kept with them: where the correction is done again, they are asked again.
    decided = delete(PersonDecisionRow).where(PersonDecisionRow.what != ASKED_AGAIN)
    connection.execute(decided.where(PersonDecisionRow.owner == owner, PersonDecisionRow.person_id.in_(gone)))
    connection.execute(delete(PersonRow).where(PersonRow.owner == owner, PersonRow.person_id.in_(gone)))


def named_in(connection: Connection, *which: Any) -> set[str]:  # noqa: ANN401 - conditions
    """Return whom corrections name, but for whoever was forgotten since."""
    rows = connection.scalars(select(CorrectionRow.said).where(*which)).all()
    return {person_id for said in rows for person_id in persons_of(said)}


def persons_of(said: Any) -> set[str]:  # noqa: ANN401 - JSON
    """Return whom the corrections of an event name, but for whoever was forgotten since."""
    return {one["person_id"] for one in said if one.get("person_id") and FORGOTTEN not in one}
