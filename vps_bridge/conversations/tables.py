"""The tables of the stores in SQL, which `migrations/` creates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import JSON, Boolean, Column, Float, Integer, LargeBinary, MetaData, Table, Text, TypeDecorator

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect

_ESCAPE = "\ufdd0"  # a character that stands for nothing in any text
_PAIRS = ((_ESCAPE, _ESCAPE + "e"), ("\0", _ESCAPE + "0"))


class AnyText(TypeDecorator[str]):
    """Text that comes back as it was, also with a character 0 in it, which PostgreSQL alone cannot keep."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None] | None:
        """Escape it for PostgreSQL."""
        return _escape if dialect.name == "postgresql" else None

    def result_processor(self, dialect: Dialect, _coltype: object, /) -> Callable[[str | None], str | None] | None:
        """Take that back."""
        return _unescape if dialect.name == "postgresql" else None


def _escape(text: str | None) -> str | None:
    if text is not None and ("\0" in text or _ESCAPE in text):
        for plain, escaped in _PAIRS:
            text = text.replace(plain, escaped)
    return text


def _unescape(text: str | None) -> str | None:
    if text is not None and _ESCAPE in text:
        for plain, escaped in reversed(_PAIRS):
            text = text.replace(escaped, plain)
    return text


metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", AnyText, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
)

segments = Table(
    "segments",
    metadata,
    Column("conversation_id", AnyText, primary_key=True),
    Column("segment_id", AnyText, primary_key=True),
    Column("backend_revision", Integer, nullable=False),  # of the removal, else the least that may set a field
    Column("field_revisions", JSON(none_as_null=True)),  # field -> revision of the event that set it, where higher
    Column("removed", Boolean, nullable=False),
    Column("text", AnyText, nullable=False),
    Column("start_s", Float, nullable=False),
    Column("end_s", Float, nullable=False),
    Column("speaker", AnyText),
    Column("original_speaker", AnyText),
    Column("written_version", Integer),  # the write that gave `speaker`; NULL: the backend did
    Column("undone", Boolean, nullable=False),  # a person took a label back: no write changes it again
    Column("corrected", Boolean, nullable=False),  # a person said here who speaks: no write changes it again
    Column("corrected_person", AnyText),  # the person they named
    Column("matched_person", AnyText),  # the person whom a voiceprint named; no person's word
    Column("is_user", Boolean, nullable=False),
    Column("person_id", AnyText),
    Column("label_source", AnyText),
    Column("words", JSON(none_as_null=True)),
    Column("pieces", JSON(none_as_null=True)),  # as this pipeline wrote them last; NULL: the segment is not cut
)

writes = Table(
    "writes",
    metadata,
    Column("conversation_id", AnyText, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("kind", AnyText, nullable=False),
    Column("write_key", AnyText, nullable=False),
    Column("written_at_s", Float, nullable=False),
    Column("made_by", AnyText),
    Column("undoes", Integer),
    Column("corrections", JSON(none_as_null=True)),
)

changes = Table(
    "changes",
    metadata,
    Column("conversation_id", AnyText, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("segment_id", AnyText, primary_key=True),
    Column("before", AnyText),
    Column("after", AnyText),
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
