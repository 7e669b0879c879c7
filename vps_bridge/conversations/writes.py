"""The history of a conversation in the SQLite store: every write with its changes, and what takes back what."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Text, bindparam, func, select
from sqlalchemy.dialects.sqlite import insert

from schemas.conversation import SegmentPiece
from schemas.corrections import Correction
from vps_bridge.conversations.store import Change, LabelOrigin, Write
from vps_bridge.conversations.tables import changes, writes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ID = bindparam("of_conversation", type_=Text)
_VERSION_OF_KEY = select(func.max(writes.c.version)).where(
    writes.c.conversation_id == _ID, writes.c.write_key == bindparam("write_key")
)
_NEW_WRITE, _NEW_CHANGE = insert(writes), insert(changes)
_WRITES = select(writes).where(writes.c.conversation_id == _ID).order_by(writes.c.version)
_CHANGES = select(changes).where(changes.c.conversation_id == _ID).order_by(changes.c.segment_id)


def find_version(connection: Connection, conversation_id: str, write_key: str) -> int | None:
    """Return the number of the last write with this key, or None where there was none."""
    version: int | None = connection.scalar(
        _VERSION_OF_KEY, {"of_conversation": conversation_id, "write_key": write_key}
    )
    return version


def record_write(connection: Connection, conversation_id: str, write: Write) -> None:
    """Add a write with its changes to the history."""
    key = {"conversation_id": conversation_id, "version": write.version}
    columns = {"kind": write.kind, "write_key": write.write_key, "written_at_s": write.written_at_s}
    said = [correction.model_dump(mode="json", exclude_none=True) for correction in write.corrections]
    people = {"made_by": write.by, "undoes": write.undoes, "corrections": said or None}
    connection.execute(_NEW_WRITE, {**key, **columns, **people})
    rows = [
        {
            **key,
            "segment_id": change.segment_id,
            "before": change.before,
            "after": change.after,
            "pieces_before": pieces_to_json(change.pieces_before),
            "pieces_after": pieces_to_json(change.pieces_after),
            "origin_before": asdict(change.origin_before),
            "origin_after": asdict(change.origin_after),
        }
        for change in write.changes
    ]
    if rows:
        connection.execute(_NEW_CHANGE, rows)


def read_history(connection: Connection, conversation_id: str) -> tuple[Write, ...]:
    """Return every write, oldest first."""
    changes_of: dict[int, list[Change]] = {}
    key = {"of_conversation": conversation_id}
    for row in connection.execute(_CHANGES, key).mappings():
        pieces = pieces_from_json(row["pieces_before"]), pieces_from_json(row["pieces_after"])
        # Changes that an earlier version wrote do not tell; what was there before them is taken for the backend's.
        origins = LabelOrigin(**row["origin_before"] or {}), LabelOrigin(**row["origin_after"] or {})
        change = Change(row["segment_id"], row["before"], row["after"], *pieces, *origins)
        changes_of.setdefault(row["version"], []).append(change)
    return tuple(
        Write(
            version=row["version"],
            kind=row["kind"],
            write_key=row["write_key"],
            written_at_s=row["written_at_s"],
            changes=tuple(changes_of.get(row["version"], ())),
            by=row["made_by"],
            undoes=row["undoes"],
            corrections=tuple(Correction.model_validate(said) for said in row["corrections"] or ()),
        )
        for row in connection.execute(_WRITES, key).mappings()
    )


def pieces_to_json(pieces: Sequence[SegmentPiece]) -> list[dict[str, Any]] | None:
    """Return the pieces as a column holds them; None where there are none."""
    return [piece.model_dump() for piece in pieces] or None


def pieces_from_json(pieces: Sequence[Mapping[str, Any]] | None) -> tuple[SegmentPiece, ...]:
    """Return the pieces that a column holds."""
    return tuple(SegmentPiece.model_validate(piece) for piece in pieces or ())
