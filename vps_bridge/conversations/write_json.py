"""A write of the history as stores keep it, apart from its number and its changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from schemas.corrections import Correction
from vps_bridge.conversations.segment_rows import Row
from vps_bridge.conversations.store import Change, Write


def write_to_json(write: Write) -> dict[str, Any]:
    """Return a write as a store keeps it, without its number and its changes."""
    said = [correction.model_dump(mode="json", exclude_none=True) for correction in write.corrections]
    return {
        "kind": write.kind,
        "write_key": write.write_key,
        "written_at_s": write.written_at_s,
        "made_by": write.by,
        "undoes": write.undoes,
        "corrections": said or None,
    }


def write_from_json(row: Row, its_changes: Sequence[Change]) -> Write:
    """Return a write that a store keeps."""
    return Write(
        version=row["version"],
        kind=row["kind"],
        write_key=row["write_key"],
        written_at_s=row["written_at_s"],
        changes=tuple(its_changes),
        by=row["made_by"],
        undoes=row["undoes"],
        corrections=tuple(Correction.model_validate(said) for said in row["corrections"] or ()),
    )
