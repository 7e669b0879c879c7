"""The tables of the SQLite store, which `migrations/` creates."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
)

segments = Table(
    "segments",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("segment_id", Text, primary_key=True),
    Column("backend_revision", Integer, nullable=False),  # of the removal, else the least that may set a field
    Column("field_revisions", JSON(none_as_null=True)),  # field -> revision of the event that set it, where higher
    Column("removed", Boolean, nullable=False),
    Column("text", Text, nullable=False),
    Column("start_s", Float, nullable=False),
    Column("end_s", Float, nullable=False),
    Column("speaker", Text),
    Column("original_speaker", Text),
    Column("written_version", Integer),  # the write that gave `speaker`; NULL: the backend did
    Column("undone", Boolean, nullable=False),  # a person took a label back: no write changes it again
    Column("corrected", Boolean, nullable=False),  # a person said here who speaks: no write changes it again
    Column("corrected_person", Text),  # the person they named
    Column("matched_person", Text),  # the person whom a voiceprint named; no person's word
    Column("is_user", Boolean, nullable=False),
    Column("person_id", Text),
    Column("label_source", Text),
    Column("words", JSON(none_as_null=True)),
    Column("pieces", JSON(none_as_null=True)),  # as this pipeline wrote them last; NULL: the segment is not cut
)

writes = Table(
    "writes",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("write_key", Text, nullable=False),
    Column("written_at_s", Float, nullable=False),
    Column("made_by", Text),
    Column("undoes", Integer),
    Column("corrections", JSON(none_as_null=True)),
)

changes = Table(
    "changes",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("segment_id", Text, primary_key=True),
    Column("before", Text),
    Column("after", Text),
    Column("pieces_before", JSON(none_as_null=True)),
    Column("pieces_after", JSON(none_as_null=True)),
    Column("origin_before", JSON(none_as_null=True)),
    Column("origin_after", JSON(none_as_null=True)),
)

packed_conversations = Table(
    "packed_conversations",
    metadata,
    Column("conversation_id", Text, primary_key=True),
    Column("packed", LargeBinary, nullable=False),  # its rows of all tables but `conversations`
)
