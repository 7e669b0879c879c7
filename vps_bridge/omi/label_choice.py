"""Which labels OMI is told, never over what it, or people there, said. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from schemas.conversation import ConversationUpdated
from vps_bridge.ledger.omi_conversations import Labels, ToldLabels
from vps_bridge.ledger.told_segment import ToldSegment

_SURE = ("matched", "confirmed")
_NOTHING = ToldSegment()


def labels_of(update: ConversationUpdated) -> dict[str, list[str]]:
    """Return the segments of each person that an update names for sure."""
    found: dict[str, list[str]] = {}
    for label in update.segments:
        if label.person_id is not None and label.identity in _SURE:
            found.setdefault(label.person_id, []).append(label.id)
    return found


def taken_back(update: ConversationUpdated, labels: Labels, told: ToldLabels) -> list[str]:
    """Return the segments that OMI was told are somebody's, and of which a final update names nobody for sure.

    `labels`: whom it names for sure.
    """
    if update.state != "final":
        return []
    said = {one for ids in labels.values() for one in ids}
    return were_somebodys([label.id for label in update.segments if label.id not in said], told)


def were_somebodys(segment_ids: Collection[str], told: ToldLabels) -> list[str]:
    """Return those that OMI was told are somebody's, or may have been; what another conversation told it stays."""
    return [one for one in segment_ids if told.assigned.get(one, _NOTHING).is_somebody]


def new_labels(labels: Labels, told: ToldLabels) -> dict[str, list[str]]:
    """Return the labels that OMI was not told yet, without segments that it had named by itself."""
    fresh = {person: [one for one in ids if _is_new(one, person, told)] for person, ids in labels.items()}
    return {person: ids for person, ids in fresh.items() if ids}


def free_segments(segment_ids: Collection[str], now: Mapping[str, str | None], told: ToldLabels) -> list[str]:
    """Return the segments that have nobody in OMI (`now`: whom), or still the one whom it was told last.

    Where somebody else stands there, or nobody any more, a person changed it there.
    """
    return [one for one in segment_ids if _is_free(one, now, told)]


def _is_new(segment_id: str, person: str, told: ToldLabels) -> bool:
    before = told.assigned.get(segment_id, _NOTHING)
    if before == _NOTHING:
        return segment_id not in told.named
    return before.ours != person or bool(before.tried)


def _is_free(segment_id: str, now: Mapping[str, str | None], told: ToldLabels) -> bool:
    """Whether a label may be written; what OMI does not have any more cannot."""
    before = told.assigned.get(segment_id, _NOTHING)
    return segment_id in now and now[segment_id] in (before.theirs, *before.tried)
