"""What audio, events and jobs change in a conversation's row; within the transaction of their cause."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, bindparam, exists, func, or_, select, update

from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.job_states import WITH_RESULT, JobState
from vps_bridge.ledger.records import SpeakerHints
from vps_bridge.ledger.tables import ConversationRow, JobRow

# A name in an UPDATE that is no column's: which conversation it is about.
OF_CONVERSATION: BindParameter[str] = bindparam("of_conversation")
_NEW = insert(ConversationRow).on_conflict_do_nothing()
THIS_CONVERSATION = update(ConversationRow).where(ConversationRow.conversation_id == OF_CONVERSATION)
_MARK_DIRTY = THIS_CONVERSATION.values(dirty=ConversationRow.dirty + 1)
_MARK_CHANGED = _MARK_DIRTY.values(last_activity_at=bindparam("now"))
# A later hint replaces an earlier one; None leaves it.
HINTS: dict[str, Any] = {
    "num_speakers": func.coalesce(bindparam("num"), ConversationRow.num_speakers),
    "min_speakers": func.coalesce(bindparam("minimum"), ConversationRow.min_speakers),
    "max_speakers": func.coalesce(bindparam("maximum"), ConversationRow.max_speakers),
}
_ACTIVE_NOW: dict[str, Any] = {"last_activity_at": bindparam("now")}
_WITH_AUDIO = insert(ConversationRow)
_OPEN_FOR_AUDIO = _WITH_AUDIO.on_conflict_do_update(
    index_elements=[ConversationRow.conversation_id],
    set_={
        "final_at": None,
        "completed": ConversationRow.completed | _WITH_AUDIO.excluded.completed,
        "stripped": False,
        "last_activity_at": _WITH_AUDIO.excluded.last_activity_at,
        **{
            name: func.coalesce(_WITH_AUDIO.excluded[name], getattr(ConversationRow, name))
            for name in ("num_speakers", "min_speakers", "max_speakers")
        },
    },
).returning(ConversationRow.completed, ConversationRow.completed_chunks, ConversationRow.last_audio_at_s)
# Whoever grants a lease locks the conversation too (`claim`): what is looked up afterwards has that lease.
_LOCKED_MODEL = (
    select(ConversationRow.embedding_model).where(ConversationRow.conversation_id == OF_CONVERSATION).with_for_update()
)
_USES_ITS_MODEL = exists().where(
    JobRow.conversation_id == ConversationRow.conversation_id, JobRow.state.in_((JobState.LEASED, *WITH_RESULT))
)
_LET_MODEL_GO = THIS_CONVERSATION.where(~_USES_ITS_MODEL).values(embedding_model=None, embedding_revision=None)
_KEEP_MODEL = THIS_CONVERSATION.where(
    or_(
        ConversationRow.embedding_model.is_(None),
        (ConversationRow.embedding_model == bindparam("model"))
        & (ConversationRow.embedding_revision == bindparam("revision")),
    )
).values(embedding_model=bindparam("model"), embedding_revision=bindparam("revision"))
_REOPEN = THIS_CONVERSATION.values(final_at=None, **_ACTIVE_NOW)


def belongs_to(owner: str) -> ColumnElement[bool]:
    """Return the condition that a conversation is an owner's; empty: nobody's. Spelled so that an index serves."""
    return (
        ConversationRow.owner == owner if owner else or_(ConversationRow.owner.is_(None), ConversationRow.owner == "")
    )


def open_for_audio(connection: Connection, conversation_id: str, hints: SpeakerHints, *, completed: bool) -> bool:
    """Let a conversation wait for the job of its new audio; one that was never heard of is made.

    Returns whether it had ended, and nobody had said that this audio is still to come.
    """
    new = {"conversation_id": conversation_id, "last_activity_at": time.time(), "completed": completed}
    given = {"num_speakers": hints.num, "min_speakers": hints.minimum, "max_speakers": hints.maximum}
    values = {**new, **{name: number or None for name, number in given.items()}}
    has_ended, *named = connection.execute(_OPEN_FOR_AUDIO, values).one()
    return has_ended and not completed and named == [None, None]


def reopen(connection: Connection, conversation_id: str) -> None:
    """Let a conversation wait for a job that is tried again."""
    connection.execute(_REOPEN, {"of_conversation": conversation_id, "now": time.time()})


def mark_dirty(connection: Connection, conversation_id: str) -> None:
    """Ask for a new assignment."""
    connection.execute(_MARK_DIRTY, {"of_conversation": conversation_id})


def mark_changed(connection: Connection, conversation_id: str) -> None:
    """Ask for a new assignment, and note that something happened to the conversation now."""
    connection.execute(_MARK_CHANGED, {"of_conversation": conversation_id, "now": time.time()})


def open_conversation(connection: Connection, conversation_id: str) -> bool:
    """Make the row of a conversation that was never heard of; a known one is left as it is. Return if it is new."""
    made = connection.execute(_NEW, {"conversation_id": conversation_id, "last_activity_at": time.time()})
    return bool(made.rowcount)


def let_model_go(connection: Connection, conversation_id: str) -> None:
    """Let any agent have a conversation's jobs where none works on it and nothing was found with its model."""
    if connection.scalar(_LOCKED_MODEL, {"of_conversation": conversation_id}) is not None:
        connection.execute(_LET_MODEL_GO, {"of_conversation": conversation_id})


def keep_model(connection: Connection, conversation_id: str, embedding: tuple[str, str]) -> bool:
    """Keep a conversation's jobs for agents of this model; False where they are kept for those of another."""
    model, revision = embedding
    values = {"of_conversation": conversation_id, "model": model, "revision": revision}
    return bool(connection.execute(_KEEP_MODEL, values).rowcount)
