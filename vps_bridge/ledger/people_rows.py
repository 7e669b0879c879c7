"""Rows of people, written within the transaction of their cause."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Text, cast, false, func, select, update

from vps_bridge.ledger.both_dialects import holds, insert
from vps_bridge.ledger.conversation_changes import belongs_to, mark_dirty
from vps_bridge.ledger.tables import ConversationRow, PackedRow, PersonDecisionRow, PersonRow, PrintRow

ASKED_AGAIN = "asked_again"
"""The decision about a final conversation that told of a person, when a voiceprint of that person was taken back."""


def add_person(connection: Connection, owner: str, person_id: str) -> None:
    """Make a person of whom nothing is known yet; one who is there stays as it is."""
    new = insert(PersonRow).values(owner=owner, person_id=person_id, created_at=time.time())
    connection.execute(new.on_conflict_do_nothing())


def put_print(connection: Connection, owner: str, found: Mapping[str, Any]) -> None:
    """Keep a voiceprint, by the names of its columns, in place of an earlier one of its person and source."""
    new = insert(PrintRow).values(owner=owner, created_at=time.time(), **found)
    changed = {name: new.excluded[name] for name in ("embedding_space", "vector", "clean_s")}
    connection.execute(
        new.on_conflict_do_update(
            index_elements=[PrintRow.owner, PrintRow.person_id, PrintRow.source, PrintRow.conversation_id],
            set_=changed,
        )
    )


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
    ask_labels_where(connection, belongs_to(owner), is_open)


def ask_labels_where(connection: Connection, *which: Any) -> None:  # noqa: ANN401 - conditions
    """Ask for new labels of the conversations that meet all of these conditions."""
    connection.execute(update(ConversationRow).where(*which).values(dirty=ConversationRow.dirty + 1))


def tells_of(person_id: str) -> Any:  # noqa: ANN401 - a condition
    """Return the condition that a conversation's voices or its latest update name a person."""
    written = json.dumps(person_id)
    packed = select(PackedRow.conversation_id).where(holds(cast(PackedRow.people, Text), written))
    return (
        holds(ConversationRow.updated_payload, written.encode())
        | _is_in_voices(person_id)
        | ConversationRow.conversation_id.in_(packed)
    )


def ask_told(connection: Connection, owner: str, person_id: str, *, but: str) -> None:
    """Ask for new labels of the owner's final conversations that tell of a person: a voiceprint was taken back.

    It is noted of each, so that `ask_asked_again` finds those that lost a match once the person is learned anew.
    """
    told = select(ConversationRow.conversation_id).where(
        belongs_to(owner),
        ConversationRow.final_at.is_not(None),
        ConversationRow.conversation_id != but,
        tells_of(person_id),
    )
    names = set(connection.scalars(told))
    asked = set(connection.scalars(_asked_again(owner, person_id)))
    for name in sorted(names - asked):
        note_decision(connection, owner, person_id, ASKED_AGAIN, name)
    for name in names:  # one by one: a statement holds only so many values
        mark_dirty(connection, name)


def ask_asked_again(connection: Connection, owner: str, person_id: str) -> None:
    """Ask for new labels of the conversations that lost a match, now that the person is learned anew, or better.

    Not of those that kept it, which may be thousands; one that is dirty may be losing it now.
    """
    has_kept_it = func.coalesce(_is_in_voices(person_id), false()) & (ConversationRow.dirty == 0)
    was_asked = ConversationRow.conversation_id.in_(_asked_again(owner, person_id))
    ask_labels_where(connection, was_asked, ~has_kept_it)


def _asked_again(owner: str, person_id: str) -> Any:  # noqa: ANN401 - a statement
    return select(PersonDecisionRow.conversation_id).where(
        PersonDecisionRow.owner == owner,
        PersonDecisionRow.person_id == person_id,
        PersonDecisionRow.what == ASKED_AGAIN,
    )


def _is_in_voices(person_id: str) -> Any:  # noqa: ANN401 - a condition
    written = json.dumps(json.dumps(person_id))[1:-1]  # voices are JSON within a JSON text
    return holds(cast(ConversationRow.voices, Text), written)
