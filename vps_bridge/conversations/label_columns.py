"""The columns of a segment that say who speaks, and where that label comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Text, bindparam, select, update

from vps_bridge.conversations.many_rows import execute_many
from vps_bridge.conversations.segment_rows import changed_columns, read_origin
from vps_bridge.conversations.store import Change, LabelOrigin
from vps_bridge.conversations.tables import segments

if TYPE_CHECKING:
    from collections.abc import Sequence

_ID, _SEGMENT_ID = bindparam("of_conversation", type_=Text), bindparam("of_segment", type_=Text)
_ORIGIN = ("written_version", "undone", "corrected", "corrected_person", "matched_person")
_ORIGINS = select(segments.c.segment_id, *(segments.c[name] for name in _ORIGIN)).where(
    segments.c.conversation_id == _ID
)
_SET_LABEL = (
    update(segments)
    .where(segments.c.conversation_id == _ID, segments.c.segment_id == _SEGMENT_ID)
    .values({name: bindparam(f"new_{name}", type_=segments.c[name].type) for name in ("speaker", *_ORIGIN, "pieces")})
)


def read_origins(connection: Connection, conversation_id: str) -> dict[str, LabelOrigin]:
    """Return where the label of each segment comes from, by segment id."""
    rows = connection.execute(_ORIGINS, {"of_conversation": conversation_id}).mappings()
    return {row["segment_id"]: read_origin(row) for row in rows}


def set_labels(connection: Connection, conversation_id: str, made: Sequence[Change]) -> None:
    """Give each changed segment its label, its pieces, and where they come from."""
    rows: list[dict[str, Any]] = [
        {
            "of_conversation": conversation_id,
            "of_segment": change.segment_id,
            **{f"new_{name}": value for name, value in changed_columns(change).items()},
        }
        for change in made
    ]
    execute_many(connection, _SET_LABEL, rows)
