"""Which labels OMI is told, never over what it, or people there, said. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.conversation import ConversationUpdated
from vps_bridge.ledger.omi_conversations import Labels, ToldLabels

_SURE = ("matched", "confirmed")


def labels_of(update: ConversationUpdated) -> dict[str, list[str]]:
    """Return the segments of each person that an update names for sure."""
    found: dict[str, list[str]] = {}
    for label in update.segments:
        if label.person_id is not None and label.identity in _SURE:
            found.setdefault(label.person_id, []).append(label.id)
    return found


def new_labels(labels: Labels, told: ToldLabels) -> dict[str, list[str]]:
    """Return the labels that OMI was not told yet, without segments that it had named by itself."""
    fresh = {person: [one for one in ids if _is_new(one, person, told)] for person, ids in labels.items()}
    return {person: ids for person, ids in fresh.items() if ids}


def labels_to_change(labels: Labels, now: Mapping[str, str | None], told: ToldLabels) -> dict[str, list[str]]:
    """Return the labels whose segments have nobody in OMI (`now`: whom), or still the one whom it was told last.

    Where somebody else stands there, or nobody any more, a person changed it there.
    """
    free = {person: [one for one in ids if _is_free(one, now, told)] for person, ids in labels.items()}
    return {person: ids for person, ids in free.items() if ids}


def _is_new(segment_id: str, person: str, told: ToldLabels) -> bool:
    ours, _ = told.assigned.get(segment_id, (None, None))
    return ours != person and (ours is not None or segment_id not in told.named)


def _is_free(segment_id: str, now: Mapping[str, str | None], told: ToldLabels) -> bool:
    """Whether a label may be written; what OMI does not have any more cannot."""
    _, theirs = told.assigned.get(segment_id, (None, None))
    return segment_id in now and now[segment_id] == theirs
