"""Events of the backend in the ledger: each is applied once, and answered the same however often it comes."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from schemas.conversation import ConversationEvent, EventType, Verdict
from schemas.failure import FailureCode
from vps_bridge.ledger.both_dialects import insert, larger, smaller
from vps_bridge.ledger.changed_owner import move_people
from vps_bridge.ledger.conversation_changes import HINTS, OF_CONVERSATION, THIS_CONVERSATION, open_conversation
from vps_bridge.ledger.conversations import ITS_END, TOMBSTONE
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.event_content import digest_event, is_another
from vps_bridge.ledger.packing import reading_unpacked, writing_unpacked
from vps_bridge.ledger.tables import ConversationRow, EventRow
from vps_bridge.rules.completion import CompletionFacts, is_all_here

# Statements are made once: making one costs several times what running it does.
_OF_EVENT = EventRow.conversation_id == OF_CONVERSATION, EventRow.event_id == bindparam("event_id")
_OF_IT = ConversationRow.conversation_id == OF_CONVERSATION
# One row, whatever is known of the conversation: with its deletion, an earlier answer, and the revisions applied last.
_KNOWN = select(
    TOMBSTONE.exists().label("is_deleted"),
    *(
        select(column).where(*_OF_EVENT).scalar_subquery().label(column.key)
        for column in (EventRow.verdict, EventRow.reason, EventRow.content)
    ),
    *(
        func.coalesce(select(column).where(_OF_IT).scalar_subquery(), -1).label(column.key)
        for column in (ConversationRow.started_revision, ConversationRow.completed_revision)
    ),
)
_EVENT = insert(EventRow)
_NOTE_EVENT = _EVENT.on_conflict_do_update(
    index_elements=[EventRow.conversation_id, EventRow.event_id],
    set_={name: _EVENT.excluded[name] for name in ("verdict", "reason", "content")},
)
_ACTIVITY: dict[str, Any] = {"last_activity_at": bindparam("now")}
_NOTE_ACTIVITY = THIS_CONVERSATION.values(**_ACTIVITY)
_MARK_TEMPORARY = THIS_CONVERSATION.values(throwaway=True, only_agent=bindparam("for_agent"))
_OPEN_AGAIN = THIS_CONVERSATION.values(final_at=None)
_ALWAYS = {**HINTS, **_ACTIVITY}
_APPLY = {
    EventType.STARTED: THIS_CONVERSATION.values(
        started_revision=bindparam("revision"),
        started_at_s=func.coalesce(bindparam("new_start_s"), ConversationRow.started_at_s),
        language=func.coalesce(bindparam("new_language"), ConversationRow.language),
        owner=func.coalesce(bindparam("new_owner"), ConversationRow.owner),
        enrols=func.coalesce(bindparam("new_enrols"), ConversationRow.enrols),
        final_at=None,
        dirty=ConversationRow.dirty + 1,
        **_ALWAYS,
    ),
    EventType.SEGMENTS: THIS_CONVERSATION.values(final_at=None, dirty=ConversationRow.dirty + 1, **_ALWAYS),
    EventType.COMPLETED: THIS_CONVERSATION.values(
        completed_revision=bindparam("revision"),
        completed=True,
        completed_chunks=bindparam("chunks"),
        last_audio_at_s=bindparam("new_audio_s"),
        dirty=ConversationRow.dirty + 1,
        **_ALWAYS,
    ),
    EventType.APPLIED: THIS_CONVERSATION.values(
        applied_version=larger(
            ConversationRow.applied_version, smaller(bindparam("version"), ConversationRow.updated_version)
        ),
        **_ALWAYS,
    ),
    EventType.RESYNC: THIS_CONVERSATION.values(
        applied_version=larger(0, smaller(ConversationRow.applied_version, ConversationRow.updated_version - 1)),
        **_ALWAYS,
    ),
}


# What people say of labels is in the store and in `corrections` already.
_HEAR = THIS_CONVERSATION.values(dirty=ConversationRow.dirty + 1, **_ALWAYS)


class EventBook:
    """Events of all conversations."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def find_answer(self, event: ConversationEvent, conversation_id: str) -> tuple[Verdict, str | None] | None:
        """Return (verdict, reason) for an event that changes nothing, or None for one that is to be applied.

        It changes nothing where its conversation is deleted, where it or another event of its id was answered before,
        or where a `started` or
        `completed` event of a higher revision came before it.
        """
        about = {"of_conversation": conversation_id, "event_id": event.event_id}
        with reading_unpacked(self._database, conversation_id) as connection:
            known = connection.execute(_KNOWN, about).one()
        if known.is_deleted:
            return Verdict.DISCARDED, FailureCode.CONVERSATION_DELETED
        if known.verdict is not None and is_another(known.content, event):
            return Verdict.REFUSED, FailureCode.EVENT_ID_CONFLICT
        if known.verdict is not None:
            return Verdict(known.verdict), known.reason
        newest = {EventType.STARTED: known.started_revision, EventType.COMPLETED: known.completed_revision}
        if event.revision < newest.get(event.type, -1):
            return Verdict.DISCARDED, FailureCode.REVISION_STALE
        return None

    def note(self, event: ConversationEvent, conversation_id: str, verdict: Verdict, reason: str | None = None) -> None:
        """Apply an event and keep its answer; for any event but `deleted`. Segments are in the store already.

        An event that is not accepted changes nothing but the time of the last activity. What a final conversation's
        labels stand on opens it again.
        """
        answer = {"event_id": event.event_id, "verdict": verdict, "reason": reason, "content": digest_event(event)}
        with writing_unpacked(self._database, conversation_id) as connection:
            if event.type is EventType.STARTED and event.owner and verdict is Verdict.ACCEPTED:
                move_people(connection, conversation_id, event.owner)
            if not _apply(connection, event, conversation_id, verdict):  # it was never heard of
                if open_conversation(connection, conversation_id) and event.temporary:
                    marks = {"of_conversation": conversation_id, "for_agent": event.only_agent}
                    connection.execute(_MARK_TEMPORARY, marks)
                _apply(connection, event, conversation_id, verdict)
            if event.type is EventType.COMPLETED and verdict is Verdict.ACCEPTED:
                _wait_for_missing(connection, conversation_id)
            connection.execute(_NOTE_EVENT, {"conversation_id": conversation_id, **answer})


def _apply(connection: Connection, event: ConversationEvent, conversation_id: str, verdict: Verdict) -> bool:
    """Change what an event changes in the conversation's row; return False where there is none."""
    statement, values = _NOTE_ACTIVITY, {"of_conversation": conversation_id, "now": time.time()}
    if verdict is Verdict.ACCEPTED:
        statement, values = _APPLY.get(event.type, _HEAR), {**values, **_read_event(event)}
    return bool(connection.execute(statement, values).rowcount)


def _wait_for_missing(connection: Connection, conversation_id: str) -> None:
    """Open a final conversation again where more audio is named than has come."""
    its_end = connection.execute(ITS_END, {"of_conversation": conversation_id}).one()
    if is_all_here(CompletionFacts(**its_end._asdict())) is False:
        connection.execute(_OPEN_AGAIN, {"of_conversation": conversation_id})


def _read_event(event: ConversationEvent) -> dict[str, Any]:
    """Return what the statement of its type in `_APPLY` needs of an event."""
    values: dict[str, Any] = {}
    if event.type is EventType.STARTED:
        start_s = event.started_at.timestamp() if event.started_at else None
        values = {"revision": event.revision, "new_start_s": start_s, "new_language": event.language or None}
        values |= {"new_owner": event.owner or None, "new_enrols": event.enrols}
    elif event.type is EventType.COMPLETED:
        audio_s = event.last_audio_at.timestamp() if event.last_audio_at else None
        values = {"revision": event.revision, "chunks": event.chunks, "new_audio_s": audio_s}
    elif event.type is EventType.APPLIED:
        values = {"version": event.updated_version or 0}
    return {
        **values,
        "num": event.num_speakers or None,
        "minimum": event.min_speakers or None,
        "maximum": event.max_speakers or None,
    }
