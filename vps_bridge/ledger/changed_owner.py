"""A conversation gets another owner: what it taught of people goes along, and its old owner keeps nothing of it."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, delete, select, update

from vps_bridge.ledger.deleted_people import forget_named, named_in
from vps_bridge.ledger.people_rows import add_person, ask_asked_again, ask_labels, ask_told
from vps_bridge.ledger.tables import ConversationRow, CorrectionRow, PersonDecisionRow, PrintRow

_WITHOUT_MATCH = 4
"""So many items has a voice of `VoiceBook.to_json` of whom no voiceprint said who it is."""


def move_people(connection: Connection, conversation_id: str, owner: str) -> None:
    """Have the people of a conversation be its new owner's, before its row says so; none where it has that owner.

    That is: its voiceprints, what was decided of them, and whom people named in it. Names, consent and the voiceprints
    of other conversations were told of the old owner's people and stay. Whom those matched is forgotten here: a person
    of one owner names no voice of another's conversation. The new owner's person of an id may be somebody else: where
    that one has voiceprints of its own, labelling makes this one anew, and asks where it sounds unlike them.
    """
    this = ConversationRow.conversation_id == conversation_id
    row = connection.execute(select(ConversationRow.owner, ConversationRow.voices).where(this)).first()
    if row is None or (row.owner or "") == owner:
        return
    before = row.owner or ""
    its_prints, its_corrections = _of(PrintRow, conversation_id), _of(CorrectionRow, conversation_id)
    taught = set(connection.scalars(select(PrintRow.person_id).where(its_prints)))
    moving = taught | named_in(connection, its_corrections, CorrectionRow.in_force, CorrectionRow.teaches)
    for person_id in sorted(moving):
        add_person(connection, owner, person_id)
    its_decisions = _of(PersonDecisionRow, conversation_id)
    elsewhere = select(PrintRow.person_id).where(PrintRow.owner == owner, ~its_prints)
    doubtful = set(connection.scalars(elsewhere.where(PrintRow.person_id.in_(taught))))
    connection.execute(delete(PrintRow).where(its_prints, PrintRow.person_id.in_(doubtful)))
    connection.execute(update(PrintRow).where(its_prints).values(owner=owner))
    going = update(PersonDecisionRow).where(its_decisions, PersonDecisionRow.person_id.in_(moving))
    connection.execute(going.values(owner=owner))
    connection.execute(delete(PersonDecisionRow).where(its_decisions, PersonDecisionRow.owner != owner))
    for person_id in sorted(taught):  # whom it taught of the old owner, it taught by mistake
        ask_told(connection, before, person_id, but=conversation_id)
        ask_asked_again(connection, owner, person_id)
    forget_named(connection, before, conversation_id, taught | named_in(connection, its_corrections))
    if row.voices:
        connection.execute(update(ConversationRow).where(this).values(voices=_without_matches(row.voices)))
    if taught:  # they named voices of the one, and may name voices of the other
        ask_labels(connection, before, but=conversation_id)
        ask_labels(connection, owner, but=conversation_id)


def _of(table: Any, conversation_id: str) -> Any:  # noqa: ANN401 - a table, and its condition
    return table.conversation_id == conversation_id


def _without_matches(voices: str) -> str:
    book = json.loads(voices)
    return json.dumps({**book, "voices": [voice[:_WITHOUT_MATCH] for voice in book["voices"]]})
