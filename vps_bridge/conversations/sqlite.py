"""The conversation store in a SQLite file: for backends that only speak MQTT, and for files on a laptop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, Text, bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from schemas.conversation import Word
from vps_bridge.conversations.backend_segments import BLANK, backend_fields, newest_revision, removed_columns
from vps_bridge.conversations.label_changes import corrected, has_result, taken_back, written
from vps_bridge.conversations.label_columns import read_origins, set_labels
from vps_bridge.conversations.packing import find_sizes, find_unpacked, pack, reading_unpacked, writing_unpacked
from vps_bridge.conversations.reversal import find_to_redo, find_to_undo
from vps_bridge.conversations.store import (
    AlreadyWritten,
    Applied,
    Change,
    Conflict,
    HumanLabel,
    Label,
    StoredConversation,
    StoredSegment,
    Write,
    WriteKind,
    WriteNotFound,
    speaker_name,
    speaker_number,
)
from vps_bridge.conversations.tables import conversations, segments
from vps_bridge.conversations.writes import find_version, pieces_from_json, read_history, record_write
from vps_bridge.database import open_database

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from schemas.conversation import TranscriptSegment
    from schemas.corrections import Correction

STORE_FILE = "conversations.sqlite3"
MANY_SEGMENTS = 1_000  # for more than this, all rows are read: SQLite limits how many values a statement may name

MIGRATIONS = Path(__file__).parent / "migrations"

# Statements are built once: building one takes several times as long as running it. SQLAlchemy reserves the columns'
# names as parameters of an UPDATE, so the parameters that choose the row are called `of_...`.
_ID, _SEGMENT_ID = bindparam("of_conversation", type_=Text), bindparam("of_segment", type_=Text)
_GET = select(conversations).where(conversations.c.conversation_id == _ID)
_NEW = insert(conversations).values(revision=0, version=0).on_conflict_do_nothing()
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
_CHANGE_SEGMENT = update(segments).where(segments.c.conversation_id == _ID, segments.c.segment_id == _SEGMENT_ID)
# The columns that an event of the backend may set. `undone` is set by `undo`; a removal takes it back.
_EVENT_COLUMNS = tuple(column for column in segments.c if column.name not in ("conversation_id", "segment_id"))
_SET_EVENT_COLUMNS = _CHANGE_SEGMENT.values(
    {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in _EVENT_COLUMNS}
)
_REVISIONS = ("backend_revision", "field_revisions")


class SqliteConversations:
    """A `ConversationStore` in one file."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, or create it. Raises `vps_bridge.database.DatabaseError`."""
        self._database = open_database(path, MIGRATIONS)

    def find_damage(self) -> list[str]:
        """Return what is wrong with the file."""
        return self._database.find_damage()

    def close(self) -> None:
        """See `ConversationStore.close`."""
        self._database.close()

    def upsert_segments(
        self,
        conversation_id: str,
        revision: int,
        segments: Sequence[TranscriptSegment],
        removed: Sequence[str] = (),
    ) -> bool:
        """See `ConversationStore.upsert_segments`."""
        sent_ids = [*(segment.id for segment in segments), *removed]
        with writing_unpacked(self._database, conversation_id) as connection:
            known = _known_segments(connection, conversation_id, sent_ids)
            sent = {segment.id: backend_fields(segment, known.get(segment.id), revision) for segment in segments}
            sent |= {
                segment_id: removed_columns(segment_id, revision)
                for segment_id in removed
                if segment_id not in known or newest_revision(known[segment_id]) <= revision
            }
            current = {segment_id: fields for segment_id, fields in sent.items() if fields}
            connection.execute(_NEW, {"conversation_id": conversation_id})
            changed = any(
                segment_id not in known
                or any(known[segment_id][name] != value for name, value in fields.items() if name not in _REVISIONS)
                for segment_id, fields in current.items()
            )
            _put_segments(connection, conversation_id, known, current)
            if changed:
                _advance(connection, conversation_id)
            return changed

    def read(self, conversation_id: str) -> StoredConversation | None:
        """See `ConversationStore.read`."""
        with reading_unpacked(self._database, conversation_id) as connection:
            return _read(connection, conversation_id)

    def apply(
        self, conversation_id: str, expected_revision: str, write_key: str, labels: Sequence[Label]
    ) -> Applied | Conflict | AlreadyWritten:
        """See `ConversationStore.apply`."""
        with writing_unpacked(self._database, conversation_id) as connection:
            known_version = find_version(connection, conversation_id, write_key)
            conversation = _read(connection, conversation_id)
            if conversation is None:
                return Conflict(None)
            known = {segment.id: segment for segment in conversation.segments}
            if known_version is not None and _have_labels(known, labels):
                return AlreadyWritten(known_version)
            refused = any(
                label.segment_id not in known or known[label.segment_id].is_human_labelled for label in labels
            )
            if conversation.revision != expected_revision or refused:
                return Conflict(conversation.revision)
            version = conversation.version + 1
            origins = read_origins(connection, conversation_id)
            wanted = [written(known[label.segment_id], label, origins, version) for label in labels]
            made = tuple(change for change in wanted if change.is_change)
            _write(connection, conversation, "apply", write_key, made)
            return Applied(version)

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
        with writing_unpacked(self._database, conversation_id) as connection:
            known_version = find_version(connection, conversation_id, write_key)
            if known_version is not None:
                return Applied(known_version)
            connection.execute(_NEW, {"conversation_id": conversation_id})
            conversation = _read(connection, conversation_id)
            if conversation is None:
                raise WriteNotFound(conversation_id, 0)
            known = {segment.id: segment for segment in conversation.segments}
            origins = read_origins(connection, conversation_id)
            made = tuple(
                corrected(known[label.segment_id], label, origins[label.segment_id])
                for label in labels
                if label.segment_id in known
            )
            return _write(connection, conversation, "correct", write_key, made, by=by, corrections=tuple(corrections))

    def undo(
        self, conversation_id: str, version: int, *, by: str | None = None, write_key: str | None = None
    ) -> Applied:
        """See `ConversationStore.undo`."""
        return self._reverse(conversation_id, version, "undo", by, write_key)

    def redo(
        self, conversation_id: str, version: int, *, by: str | None = None, write_key: str | None = None
    ) -> Applied:
        """See `ConversationStore.redo`."""
        return self._reverse(conversation_id, version, "redo", by, write_key)

    def _reverse(
        self, conversation_id: str, version: int, kind: WriteKind, by: str | None, write_key: str | None
    ) -> Applied:
        find = find_to_undo if kind == "undo" else find_to_redo
        with writing_unpacked(self._database, conversation_id) as connection:
            known_version = None if write_key is None else find_version(connection, conversation_id, write_key)
            if known_version is not None:
                return Applied(known_version)
            conversation = _read(connection, conversation_id)
            if conversation is None:
                raise WriteNotFound(conversation_id, version)
            target = find(read_history(connection, conversation_id), conversation_id, version)
            known = {segment.id: segment for segment in conversation.segments}
            origins = read_origins(connection, conversation_id)
            made = tuple(
                taken_back(change, origins[change.segment_id], is_protected=target.kind == "apply")
                for change in target.changes
                if change.segment_id in known
                and has_result(known[change.segment_id], origins[change.segment_id], change)
            )
            key = write_key or f"{kind}-{target.version}-{conversation.version + 1}"
            return _write(connection, conversation, kind, key, made, by=by, undoes=target.version)

    def history(self, conversation_id: str) -> tuple[Write, ...]:
        """See `ConversationStore.history`."""
        with reading_unpacked(self._database, conversation_id) as connection:
            return read_history(connection, conversation_id)

    def delete(self, conversation_id: str) -> None:
        """See `ConversationStore.delete`."""
        with self._database.writing() as connection:
            connection.execute(delete(conversations).where(conversations.c.conversation_id == conversation_id))
        self.forget_deleted_pages()

    def pack(self, conversation_id: str) -> bool:
        """See `ConversationStore.pack`."""
        with self._database.writing() as connection:
            return pack(connection, conversation_id)

    def known(self) -> list[str]:
        """See `ConversationStore.known`."""
        with self._database.reading() as connection:
            return list(connection.scalars(select(conversations.c.conversation_id)))

    def unpacked(self) -> list[str]:
        """See `ConversationStore.unpacked`."""
        with self._database.reading() as connection:
            return find_unpacked(connection)

    def packed_sizes(self) -> list[int]:
        """Return how many bytes each packed conversation takes."""
        with self._database.reading() as connection:
            return find_sizes(connection)

    def free_pages(self, most: int) -> int:
        """See `ConversationStore.free_pages`."""
        return self._database.free_pages(most)

    def make_shrinkable(self) -> bool:
        """Have the file give room back, where an earlier version made it so that it cannot; see `Database`."""
        return self._database.make_shrinkable()

    def forget_deleted_pages(self) -> None:
        """See `ConversationStore.forget_deleted_pages`."""
        self._database.erase_deleted()


def _have_labels(known: Mapping[str, StoredSegment], labels: Sequence[Label]) -> bool:
    """Whether every segment has its label; one that was removed and sent again has lost it."""
    return all(
        label.segment_id in known
        and _label_of(known[label.segment_id]) == (speaker_name(label.speaker_id), label.pieces, label.matched_person)
        for label in labels
    )


def _label_of(segment: StoredSegment) -> tuple[object, ...]:
    return segment.speaker, segment.pieces, segment.matched_person


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
    if added:
        connection.execute(_NEW_SEGMENT, added)
    if changed:
        connection.execute(_SET_EVENT_COLUMNS, changed)


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


def _read(connection: Connection, conversation_id: str) -> StoredConversation | None:
    row = connection.execute(_GET, {"of_conversation": conversation_id}).mappings().first()
    if row is None:
        return None
    return StoredConversation(
        conversation_id=row["conversation_id"],
        revision=str(row["revision"]),
        version=row["version"],
        segments=tuple(
            _stored_segment(segment) for segment in _segment_rows(connection, conversation_id) if not segment["removed"]
        ),
    )


def _stored_segment(row: RowMapping) -> StoredSegment:
    words = None if row["words"] is None else tuple(Word.model_validate(word) for word in row["words"])
    return StoredSegment(
        id=row["segment_id"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        text=row["text"],
        speaker=row["speaker"],
        speaker_id=speaker_number(row["speaker"]),
        original_speaker=row["original_speaker"],
        is_user=row["is_user"],
        person_id=row["corrected_person"] or row["person_id"],
        label_source="manual" if row["corrected"] else row["label_source"],
        words=words,
        pieces=pieces_from_json(row["pieces"]),
        matched_person=row["matched_person"],
        is_undone=row["undone"],
    )
