"""The conversation store in SQL tables: what SQLite and PostgreSQL have in common, which is all but opening them."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, RowMapping, Text, bindparam, delete, insert, select, text, update

from vps_bridge.conversations.label_columns import read_origins, set_labels
from vps_bridge.conversations.many_rows import execute_many
from vps_bridge.conversations.reversible_store import Reversal, ReversibleStore
from vps_bridge.conversations.segment_rows import BLANK, read_segment, take_event
from vps_bridge.conversations.store import (
    AlreadyWritten,
    Applied,
    Change,
    Conflict,
    HumanLabel,
    Label,
    StoredConversation,
    Write,
    WriteKind,
    WriteNotFound,
)
from vps_bridge.conversations.tables import conversations, segments
from vps_bridge.conversations.write_decisions import (
    decide_apply,
    decide_correct,
    decide_reversal,
    find_target,
    refuse_apply,
)
from vps_bridge.conversations.writes import find_version, read_history, record_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schemas.conversation import TranscriptSegment
    from schemas.corrections import Correction

MANY_SEGMENTS = 1_000  # for more than this, all rows are read: a database limits how many values a statement may name

# Statements are built once: building one takes several times as long as running it. SQLAlchemy reserves the columns'
# names as parameters of an UPDATE, so the parameters that choose the row are called `of_...`.
_ID, _SEGMENT_ID = bindparam("of_conversation", type_=Text), bindparam("of_segment", type_=Text)
_GET = select(conversations).where(conversations.c.conversation_id == _ID)
# Whoever writes into a conversation holds its row first, so that of two writers one sees what the other did. SQLite has
# no such lock and needs none: its transactions that write come one after the other.
_LOCK = _GET.with_for_update()
_NEW = text(  # SQLAlchemy has ON CONFLICT for each kind of database by itself only
    "INSERT INTO conversations (conversation_id, revision, version) VALUES (:of_conversation, 0, 0) "
    "ON CONFLICT DO NOTHING"
)
_ADVANCE_REVISION = (
    update(conversations).where(conversations.c.conversation_id == _ID).values(revision=conversations.c.revision + 1)
)
_ADVANCE_VERSION = _ADVANCE_REVISION.values(version=bindparam("new_version"))
_SEGMENTS = (
    select(segments)
    .where(segments.c.conversation_id == _ID)
    .order_by(segments.c.start_s, segments.c.end_s, segments.c.segment_id)
)
_KNOWN = _SEGMENTS.where(segments.c.segment_id.in_(bindparam("segment_ids", expanding=True)))
_NEW_SEGMENT = insert(segments)
# The columns that an event of the backend may set. `undone` is set by `undo`; a removal takes it back.
_EVENT_COLUMNS = tuple(column for column in segments.c if column.name not in ("conversation_id", "segment_id"))
_SET_EVENT_COLUMNS = (
    update(segments)
    .where(segments.c.conversation_id == _ID, segments.c.segment_id == _SEGMENT_ID)
    .values({column.name: bindparam(f"new_{column.name}", type_=column.type) for column in _EVENT_COLUMNS})
)


class SqlDatabase(Protocol):
    """What a SQL store needs of its database."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection whose statements all see the same."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """Lend a connection for one transaction: done as a whole or, where an error is raised, not at all."""
        ...


class SqlConversations(ReversibleStore):
    """All of a `ConversationStore` but opening, closing and what is done about deleted pages."""

    def __init__(self, database: SqlDatabase) -> None:
        """Use tables that are there already."""
        self._tables = database

    def upsert_segments(
        self,
        conversation_id: str,
        revision: int,
        segments: Sequence[TranscriptSegment],
        removed: Sequence[str] = (),
    ) -> bool:
        """See `ConversationStore.upsert_segments`."""
        sent_ids = [*(segment.id for segment in segments), *removed]
        with self._writing(conversation_id) as connection:
            connection.execute(_NEW, {"of_conversation": conversation_id})
            connection.execute(_LOCK, {"of_conversation": conversation_id})
            known = _known_segments(connection, conversation_id, sent_ids)
            current, changed = take_event(known, revision, segments, removed)
            _put_segments(connection, conversation_id, known, current)
            if changed:
                _advance(connection, conversation_id)
            return changed

    def read(self, conversation_id: str) -> StoredConversation | None:
        """See `ConversationStore.read`."""
        with self._reading(conversation_id) as connection:
            return _read(connection, conversation_id)

    def apply(
        self, conversation_id: str, expected_revision: str, write_key: str, labels: Sequence[Label]
    ) -> Applied | Conflict | AlreadyWritten:
        """See `ConversationStore.apply`."""
        with self._writing(conversation_id) as connection:
            conversation = _read_to_write(connection, conversation_id)
            known_version = find_version(connection, conversation_id, write_key)
            refused = refuse_apply(conversation, known_version, expected_revision, labels)
            if refused is not None or conversation is None:
                return refused or Conflict(None)
            made = decide_apply(conversation, read_origins(connection, conversation_id), labels)
            return _write(connection, conversation, "apply", write_key, made)

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
        with self._writing(conversation_id) as connection:
            connection.execute(_NEW, {"of_conversation": conversation_id})
            conversation = _read_to_write(connection, conversation_id)
            known_version = find_version(connection, conversation_id, write_key)
            if known_version is not None:
                return Applied(known_version)
            if conversation is None:
                raise WriteNotFound(conversation_id, 0)
            made = decide_correct(conversation, read_origins(connection, conversation_id), labels)
            return _write(connection, conversation, "correct", write_key, made, by=by, corrections=tuple(corrections))

    def _reverse(self, conversation_id: str, reversal: Reversal) -> Applied:
        kind, version, write_key = reversal.kind, reversal.version, reversal.write_key
        with self._writing(conversation_id) as connection:
            conversation = _read_to_write(connection, conversation_id)
            known_version = find_version(connection, conversation_id, write_key)
            if known_version is not None:
                return Applied(known_version)
            if conversation is None:
                raise WriteNotFound(conversation_id, version)
            history = read_history(connection, conversation_id)
            target = find_target(history, conversation_id, version, kind)
            origins = read_origins(connection, conversation_id)
            made = decide_reversal(conversation, origins, history, target, reversal.other_lines)
            return _write(connection, conversation, kind, write_key, made, by=reversal.by, undoes=target.version)

    def history(self, conversation_id: str) -> tuple[Write, ...]:
        """See `ConversationStore.history`."""
        with self._reading(conversation_id) as connection:
            return read_history(connection, conversation_id)

    def known(self) -> list[str]:
        """Return the ids of all conversations."""
        with self._tables.reading() as connection:
            return list(connection.scalars(select(conversations.c.conversation_id)))

    def _reading(self, _conversation_id: str) -> AbstractContextManager[Connection]:
        """Lend a connection to read a conversation."""
        return self._tables.reading()

    def _writing(self, _conversation_id: str) -> AbstractContextManager[Connection]:
        """Lend a connection for one transaction on a conversation."""
        return self._tables.writing()

    def _delete_rows(self, conversation_id: str) -> None:
        """Delete a conversation; what belongs to it goes with it, by the tables' foreign keys."""
        with self._tables.writing() as connection:
            connection.execute(delete(conversations).where(conversations.c.conversation_id == conversation_id))


def _segment_rows(connection: Connection, conversation_id: str) -> Iterable[RowMapping]:
    return connection.execute(_SEGMENTS, {"of_conversation": conversation_id}).mappings()


def _known_segments(connection: Connection, conversation_id: str, segment_ids: list[str]) -> dict[str, RowMapping]:
    if len(segment_ids) > MANY_SEGMENTS:
        return {row["segment_id"]: row for row in _segment_rows(connection, conversation_id)}
    rows = connection.execute(_KNOWN, {"of_conversation": conversation_id, "segment_ids": segment_ids}).mappings()
    return {row["segment_id"]: row for row in rows}


def _put_segments(
    connection: Connection,
    conversation_id: str,
    known: Mapping[str, RowMapping],
    sent: Mapping[str, dict[str, Any]],
) -> None:
    """Write the columns that were sent, by segment id; a known segment keeps the others."""
    added, changed = [], []
    for segment_id, columns in sent.items():
        if segment_id in known:
            row, names = known[segment_id], [column.name for column in _EVENT_COLUMNS]
            key = {"of_conversation": conversation_id, "of_segment": segment_id}
            changed.append(key | {f"new_{name}": columns.get(name, row[name]) for name in names})
        else:
            added.append({"conversation_id": conversation_id, **BLANK, **columns})
    execute_many(connection, _NEW_SEGMENT, added)
    execute_many(connection, _SET_EVENT_COLUMNS, changed)


def _write(
    connection: Connection,
    conversation: StoredConversation,
    kind: WriteKind,
    write_key: str,
    made: tuple[Change, ...],
    **facts: Any,  # noqa: ANN401 - fields of `Write`
) -> Applied:
    """Make changes and add them to the history as the conversation's next write."""
    write = Write(conversation.version + 1, kind, write_key, time.time(), made, **facts)
    record_write(connection, conversation.conversation_id, write)
    set_labels(connection, conversation.conversation_id, made)
    _advance(connection, conversation.conversation_id, write.version)
    return Applied(write.version)


def _advance(connection: Connection, conversation_id: str, version: int | None = None) -> None:
    """Give the conversation its next revision and, for a write or an undo, its version."""
    key = {"of_conversation": conversation_id}
    if version is None:
        connection.execute(_ADVANCE_REVISION, key)
    else:
        connection.execute(_ADVANCE_VERSION, {**key, "new_version": version})


def _read_to_write(connection: Connection, conversation_id: str) -> StoredConversation | None:
    """Hold a conversation's row until the transaction ends, then read the conversation."""
    connection.execute(_LOCK, {"of_conversation": conversation_id})
    return _read(connection, conversation_id)


def _read(connection: Connection, conversation_id: str) -> StoredConversation | None:
    row = connection.execute(_GET, {"of_conversation": conversation_id}).mappings().first()
    if row is None:
        return None
    return StoredConversation(
        conversation_id=row["conversation_id"],
        revision=str(row["revision"]),
        version=row["version"],
        segments=tuple(
            read_segment(segment) for segment in _segment_rows(connection, conversation_id) if not segment["removed"]
        ),
    )
