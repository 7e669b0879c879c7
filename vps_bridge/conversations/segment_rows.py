"""A segment as a store keeps it, by the columns that `tables` has, and what events of the backend do to it. Pure.

Columns that no message has: `backend_revision` is the revision of the event that removed the segment, else the least
that may set a field; `field_revisions` are the revisions of the events that set fields, where higher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from schemas.conversation import SegmentPiece, TranscriptSegment, Word
from vps_bridge.conversations.sent_lines import SentLines
from vps_bridge.conversations.store import (
    Change,
    LabelOrigin,
    SegmentIncomplete,
    StoredSegment,
    is_same_place,
    speaker_name,
    speaker_number,
)


class Row(Protocol):
    """A segment, or a change, by the names of its columns: a dict, or what a database gives."""

    def __getitem__(self, column: str, /) -> Any:  # noqa: ANN401 - what a column holds
        """Return what a column holds."""
        ...


SPOKEN = ("text", "start_s", "end_s", "words")  # where one of these changes, pieces mean nothing any more
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
_REVISIONS = ("backend_revision", "field_revisions")
_PERSON = ("is_user", "person_id", "label_source")  # said of one line; an event that leaves them out says no other's


def take_event(
    known: Mapping[str, Row], revision: int, segments: Sequence[TranscriptSegment], removed: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return the columns that an event of the backend sets, by segment id, and whether that changes anything.

    `known` has at least the segments that the event names and the store has. Raises `SegmentIncomplete`.
    """
    lines = SentLines(segments, known)
    others = {one.id for one in segments if one.id in known and lines.have_under_another_id(known[one.id])}
    sent = {one.id: _backend_columns(one, known.get(one.id), revision, is_other=one.id in others) for one in segments}
    sent |= {
        segment_id: make_tombstone(segment_id, revision)
        for segment_id in removed
        if segment_id not in known or newest_revision(known[segment_id]) <= revision
    }
    current = {segment_id: columns for segment_id, columns in sent.items() if columns}
    changed = any(
        segment_id not in known
        or any(known[segment_id][name] != value for name, value in columns.items() if name not in _REVISIONS)
        for segment_id, columns in current.items()
    )
    return current, changed


def _backend_columns(segment: TranscriptSegment, row: Row | None, revision: int, *, is_other: bool) -> dict[str, Any]:
    """Return the columns that a segment of the backend sets: those it names and no higher revision has set.

    Where its id is another line's now, whoever spoke the line before does not speak it. `is_other`: the line that it
    was is under another id now.
    """
    is_new = row is None or row["removed"]
    floor = 0 if row is None else row["backend_revision"]
    set_at: dict[str, int] = {} if row is None else row["field_revisions"] or {}
    named = segment.model_fields_set - {"id"}
    sent = segment.model_dump(mode="json", include=named).items()
    fields = {name: value for name, value in sent if max(floor, set_at.get(name, 0)) <= revision}
    if revision < floor or not (fields or is_new):
        return {}
    if row is not None and "words" not in named and set_at.get("words", 0) <= revision and _has_old_words(fields, row):
        fields["words"] = None
    if is_new and not segment.has_times:
        raise SegmentIncomplete(segment.id)
    if row is not None and not row["removed"] and is_another_line(fields, row, is_other=is_other):
        fields = {name: BLANK[name] for name in _PERSON if set_at.get(name, 0) <= revision} | fields
    later = {name: at for name, at in (set_at | dict.fromkeys(fields, revision)).items() if at > floor}
    columns = {"segment_id": segment.id, "removed": False, **fields}
    if "speaker" in columns:
        columns["original_speaker"] = columns.pop("speaker")
    columns |= {"backend_revision": floor, "field_revisions": later or None}
    columns |= _label_columns(segment, columns, row, is_other=is_other)
    if row is not None and (_is_spoken_anew(columns, row) or _is_human_labelled(columns, row)):
        columns |= {"pieces": None, "matched_person": None}
    return columns


def _label_columns(
    segment: TranscriptSegment, columns: Mapping[str, Any], row: Row | None, *, is_other: bool
) -> dict[str, Any]:
    """Return the columns of the label that counts from now on, none where it stays.

    One that this pipeline or an undo set stays, unless a person has labelled the segment since, or its id is another
    line's now.
    """
    if row is not None and not row["removed"] and is_another_line(columns, row, is_other=is_other):
        return given_label(columns.get("original_speaker", row["original_speaker"])) | {"undone": False}
    said = {"corrected": False, "corrected_person": None} if _names_another_person(columns, row) else {}
    if "original_speaker" not in columns:
        return said
    source = columns.get("label_source", None if row is None else row["label_source"])
    is_label_ours = row is not None and (row["written_version"] is not None or row["undone"] or row["corrected"])
    if is_label_ours and (source != "manual" or segment.speaker is None):
        return said
    return given_label(segment.speaker)


def _names_another_person(columns: Mapping[str, Any], row: Row | None) -> bool:
    """Whether a person says in the backend who speaks, and it is not whom a correction named before.

    Nothing is said where the backend sends what it had already.
    """
    if row is None or row["removed"] or row["corrected_person"] is None:
        return False
    names = ("label_source", "is_user", "person_id")
    now = source, is_user, person_id = tuple(columns.get(name, row[name]) for name in names)
    if source != "manual" or now == tuple(row[name] for name in names):
        return False
    return is_user or person_id not in (None, row["corrected_person"])


def _has_old_words(fields: Mapping[str, Any], row: Row) -> bool:
    """Whether a segment's words are no longer those of what it is to say, or lie elsewhere than it is to lie."""
    words, text = row["words"] or (), fields.get("text", row["text"])
    if not words or text.split() != row["text"].split():
        return bool(words)
    start_s, end_s = (fields.get(name, row[name]) for name in ("start_s", "end_s"))
    is_moved = (start_s, end_s) != (row["start_s"], row["end_s"])
    return is_moved and not all(start_s <= (word["start_s"] + word["end_s"]) / 2 <= end_s for word in words)


def given_label(speaker: str | None) -> dict[str, Any]:
    """Return the columns of a label that the backend gave, and that counts."""
    number = speaker_number(speaker)
    label = speaker if number is None else speaker_name(number)
    return {
        "speaker": label,
        "written_version": None,
        "corrected": False,
        "corrected_person": None,
        "matched_person": None,
    }


def _is_spoken_anew(columns: Mapping[str, Any], row: Row) -> bool:
    """Whether text, times or words change: the pieces that were cut from them mean nothing any more."""
    return any(name in columns and columns[name] != row[name] for name in SPOKEN)


def is_another_line(columns: Mapping[str, Any], row: Row, *, is_other: bool) -> bool:
    """Whether an id is from now on that of a line elsewhere: no label of the line before says who speaks it."""
    text, *now = (columns.get(name, row[name]) for name in ("text", "start_s", "end_s"))
    if is_same_place((row["start_s"], row["end_s"]), (now[0], now[1])):
        return is_other and text != row["text"]
    return is_other or text != row["text"]


def find_other_lines(segments: Sequence[TranscriptSegment], before: Mapping[str, Row]) -> set[str]:
    """Return the ids that are other lines in a whole transcript than before."""
    lines = SentLines(segments, before)
    return {
        one.id
        for one in segments
        if (row := before.get(one.id)) is not None
        and is_another_line(
            {"text": one.text, "start_s": one.start_s, "end_s": one.end_s},
            row,
            is_other=lines.have_under_another_id(row),
        )
    }


def _is_human_labelled(columns: Mapping[str, Any], row: Row) -> bool:
    source, is_user, person_id = (columns.get(name, row[name]) for name in ("label_source", "is_user", "person_id"))
    return source == "manual" or (source is None and (is_user or person_id is not None))


def newest_revision(row: Row) -> int:
    """Return the highest revision of those that set or removed a segment."""
    revisions: dict[str, int] = row["field_revisions"] or {}
    return max([int(row["backend_revision"]), *revisions.values()])


def make_tombstone(segment_id: str, revision: int) -> dict[str, Any]:
    """Return the columns of a removed segment: nothing but its id, so that an older event cannot add it again."""
    return {"segment_id": segment_id, "removed": True, "backend_revision": revision, **BLANK}


def read_segment(row: Row) -> StoredSegment:
    """Return a segment as the bridge sees it."""
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


def read_origin(row: Row) -> LabelOrigin:
    """Return where a segment's label comes from."""
    return LabelOrigin(
        row["written_version"], row["undone"], row["corrected"], row["corrected_person"], row["matched_person"]
    )


def changed_columns(change: Change) -> dict[str, Any]:
    """Return the columns that a change sets on its segment."""
    origin = change.origin_after
    return {
        "speaker": change.after,
        "written_version": origin.written_version,
        "undone": origin.is_undone,
        "corrected": origin.is_corrected,
        "corrected_person": origin.person_id,
        "matched_person": origin.matched_person,
        "pieces": pieces_to_json(change.pieces_after),
    }


def change_to_json(change: Change) -> dict[str, Any]:
    """Return a change of the history as a store keeps it."""
    return {
        "segment_id": change.segment_id,
        "before": change.before,
        "after": change.after,
        "pieces_before": pieces_to_json(change.pieces_before),
        "pieces_after": pieces_to_json(change.pieces_after),
        "origin_before": asdict(change.origin_before),
        "origin_after": asdict(change.origin_after),
    }


def change_from_json(row: Row) -> Change:
    """Return a change of the history that a store keeps.

    Changes that an early version wrote do not tell the origins; what was there before them is taken for the backend's.
    """
    pieces = pieces_from_json(row["pieces_before"]), pieces_from_json(row["pieces_after"])
    origins = LabelOrigin(**row["origin_before"] or {}), LabelOrigin(**row["origin_after"] or {})
    return Change(row["segment_id"], row["before"], row["after"], *pieces, *origins)


def pieces_to_json(pieces: Sequence[SegmentPiece]) -> list[dict[str, Any]] | None:
    """Return the pieces as a store keeps them; None where there are none."""
    return [piece.model_dump() for piece in pieces] or None


def pieces_from_json(pieces: Sequence[Mapping[str, Any]] | None) -> tuple[SegmentPiece, ...]:
    """Return the pieces that a store keeps."""
    return tuple(SegmentPiece.model_validate(piece) for piece in pieces or ())
