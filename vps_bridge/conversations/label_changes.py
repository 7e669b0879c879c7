"""What a write, a person's word or an undo changes about one segment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vps_bridge.conversations.store import Change, HumanLabel, Label, LabelOrigin, StoredSegment, speaker_name


def written(segment: StoredSegment, label: Label, origins: Mapping[str, LabelOrigin], version: int) -> Change:
    """Return what a write of this pipeline changes.

    One that only cuts a segment, or says who its speaker is, leaves the label the backend's own.
    """
    speaker, before = speaker_name(label.speaker_id), origins[segment.id]
    origin = before if speaker == segment.speaker else LabelOrigin(version)
    after = replace(origin, matched_person=label.matched_person)
    return Change(segment.id, segment.speaker, speaker, segment.pieces, label.pieces, before, after)


def corrected(segment: StoredSegment, label: HumanLabel, before: LabelOrigin) -> Change:
    """Return what a person's word changes: who is named, and that the segment is theirs. It is cut no more."""
    speaker = segment.speaker if label.speaker_id is None else speaker_name(label.speaker_id)
    after = LabelOrigin(None, is_corrected=True, person_id=label.person_id)
    return Change(segment.id, segment.speaker, speaker, segment.pieces, (), before, after)


def taken_back(change: Change, segment: StoredSegment, now: LabelOrigin, *, is_protected: bool) -> Change:
    """Return the change that takes one back; protected: what was before it is a person's word from now on."""
    after = LabelOrigin(is_undone=True) if is_protected else change.origin_before
    return Change(segment.id, segment.speaker, change.before, segment.pieces, change.pieces_before, now, after)


def is_taken_back(segment: StoredSegment, now: LabelOrigin, change: Change) -> bool:
    """Whether an undo or redo of a write changes a segment: it has what the write gave it.

    A person's label that an undo took away comes back where only this pipeline has labelled the segment since.
    """
    took_human_label = change.origin_before.is_corrected and not change.origin_after.is_corrected
    return _has_result(segment, now, change) or (took_human_label and not segment.is_human_labelled)


def still_says(segment: StoredSegment, now: LabelOrigin, change: Change) -> bool:
    """Whether a segment still has the word of a person that a write gave it.

    A line that changed little by little has it, though nobody could tell any more that it is the same one.
    """
    return change.origin_after.is_corrected and _has_result(segment, now, change)


def _has_result(segment: StoredSegment, now: LabelOrigin, change: Change) -> bool:
    """Whether a segment still has the label and the pieces that a write gave it, and nobody has said more since."""
    is_same = (segment.speaker, segment.pieces) == (change.after, change.pieces_after)
    return is_same and _who(now) == _who(change.origin_after)


def _who(origin: LabelOrigin) -> tuple[bool, str | None, str | None]:
    """Return who is named, and by whom."""
    return origin.is_corrected, origin.person_id, origin.matched_person
