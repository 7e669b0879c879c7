"""What an event of the backend sets of a segment: the columns that it names, and that no later event has set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vps_bridge.conversations.store import SegmentIncomplete, speaker_name, speaker_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping

    from schemas.conversation import TranscriptSegment

_SPOKEN = ("text", "start_s", "end_s", "words")  # where one of these changes, pieces mean nothing any more
# What a segment has that no event has named yet, and one that was removed.
BLANK: dict[str, Any] = {
    "field_revisions": None,
    "text": "",
    "start_s": 0.0,
    "end_s": 0.0,
    "speaker": None,
    "original_speaker": None,
    "written_version": None,
    "undone": False,
    "corrected": False,
    "corrected_person": None,
    "matched_person": None,
    "is_user": False,
    "person_id": None,
    "label_source": None,
    "words": None,
    "pieces": None,
}


def backend_fields(segment: TranscriptSegment, row: RowMapping | None, revision: int) -> dict[str, Any]:
    """Return the columns that a segment of the backend sets: those it names and no higher revision has set.

    The label is not among them if this pipeline or an undo set it, unless a person has labelled the segment since.
    """
    is_new = row is None or row["removed"]
    floor = 0 if row is None else row["backend_revision"]
    set_at: dict[str, int] = {} if row is None else row["field_revisions"] or {}
    named = segment.model_fields_set - {"id"}
    sent = segment.model_dump(mode="json", include=named).items()
    fields = {name: value for name, value in sent if max(floor, set_at.get(name, 0)) <= revision}
    if revision < floor or not (fields or is_new):
        return {}
    if is_new and not segment.has_times:
        raise SegmentIncomplete(segment.id)
    later = {name: at for name, at in (set_at | dict.fromkeys(fields, revision)).items() if at > floor}
    columns = {"segment_id": segment.id, "removed": False, **fields}
    columns |= {"backend_revision": floor, "field_revisions": later or None}
    if "speaker" in fields:
        columns["original_speaker"] = columns.pop("speaker")
        source = fields.get("label_source", None if row is None else row["label_source"])
        is_label_ours = row is not None and (row["written_version"] is not None or row["undone"] or row["corrected"])
        if not is_label_ours or (source == "manual" and segment.speaker is not None):
            number = speaker_number(segment.speaker)
            columns["speaker"] = segment.speaker if number is None else speaker_name(number)
            columns |= {"written_version": None, "corrected": False, "corrected_person": None, "matched_person": None}
    if row is not None and (_is_spoken_anew(columns, row) or _is_human_labelled(columns, row)):
        columns |= {"pieces": None, "matched_person": None}
    return columns


def _is_spoken_anew(columns: Mapping[str, Any], row: RowMapping) -> bool:
    """Whether text, times or words change: the pieces that were cut from them mean nothing any more."""
    return any(name in columns and columns[name] != row[name] for name in _SPOKEN)


def _is_human_labelled(columns: Mapping[str, Any], row: RowMapping) -> bool:
    source, is_user, person_id = (columns.get(name, row[name]) for name in ("label_source", "is_user", "person_id"))
    return source == "manual" or (source is None and (is_user or person_id is not None))


def newest_revision(row: RowMapping) -> int:
    """Return the highest revision of those that set or removed a segment."""
    revisions: dict[str, int] = row["field_revisions"] or {}
    return max([int(row["backend_revision"]), *revisions.values()])


def removed_columns(segment_id: str, revision: int) -> dict[str, Any]:
    """Return the columns of a removed segment: nothing but its id, so that an older event cannot add it again."""
    return {"segment_id": segment_id, "removed": True, "backend_revision": revision, **BLANK}
