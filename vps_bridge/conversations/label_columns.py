"""The columns of a segment that say who speaks, and where that label comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Text, bindparam, select, update

from vps_bridge.conversations.store import Change, LabelOrigin
from vps_bridge.conversations.tables import segments
from vps_bridge.conversations.writes import pieces_to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

_ID, _SEGMENT_ID = bindparam("of_conversation", type_=Text), bindparam("of_segment", type_=Text)
_ORIGINS = select(
    segments.c.segment_id,
    segments.c.written_version,
    segments.c.undone,
    segments.c.corrected,
    segments.c.corrected_person,
    segments.c.matched_person,
).where(segments.c.conversation_id == _ID)
_SET_LABEL = (
    update(segments)
    .where(segments.c.conversation_id == _ID, segments.c.segment_id == _SEGMENT_ID)
    .values(
        speaker=bindparam("new_speaker"),
        written_version=bindparam("new_version"),
        undone=bindparam("is_undone"),
        corrected=bindparam("is_corrected"),
        corrected_person=bindparam("new_person"),
        matched_person=bindparam("new_match"),
        pieces=bindparam("new_pieces", type_=segments.c.pieces.type),
    )
)


def read_origins(connection: Connection, conversation_id: str) -> dict[str, LabelOrigin]:
    """Return where the label of each segment comes from, by segment id."""
    rows = connection.execute(_ORIGINS, {"of_conversation": conversation_id})
    return {segment_id: LabelOrigin(*origin) for segment_id, *origin in rows}


def set_labels(connection: Connection, conversation_id: str, made: Sequence[Change]) -> None:
    """Give each changed segment its label, its pieces, and where they come from."""
    rows: list[dict[str, Any]] = [
        {
            "of_conversation": conversation_id,
            "of_segment": change.segment_id,
            "new_speaker": change.after,
            "new_version": change.origin_after.written_version,
            "is_undone": change.origin_after.is_undone,
            "is_corrected": change.origin_after.is_corrected,
            "new_person": change.origin_after.person_id,
            "new_match": change.origin_after.matched_person,
            "new_pieces": pieces_to_json(change.pieces_after),
        }
        for change in made
    ]
    if rows:
        connection.execute(_SET_LABEL, rows)
