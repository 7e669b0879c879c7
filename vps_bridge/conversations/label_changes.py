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


def taken_back(change: Change, now: LabelOrigin, *, is_protected: bool) -> Change:
    """Return the change that takes one back; protected: what was before it is a person's word from now on."""
    back = change.reversed
    after = LabelOrigin(is_undone=True) if is_protected else back.origin_after
    return replace(back, origin_before=now, origin_after=after)


def has_result(segment: StoredSegment, now: LabelOrigin, change: Change) -> bool:
    """Whether a segment still has the label and the pieces that a write gave it, and nobody has said more since."""
    is_same = (segment.speaker, segment.pieces) == (change.after, change.pieces_after)
    return is_same and _who(now) == _who(change.origin_after)


def _who(origin: LabelOrigin) -> tuple[bool, str | None, str | None]:
    """Return who is named, and by whom."""
    return origin.is_corrected, origin.person_id, origin.matched_person
