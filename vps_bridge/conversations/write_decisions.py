"""What a write, a correction or an undo changes in a conversation as it is now: the same in every store. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vps_bridge.conversations.label_changes import corrected, is_taken_back, still_says, taken_back, written
from vps_bridge.conversations.reversal import find_root, find_to_redo, find_to_undo
from vps_bridge.conversations.store import (
    AlreadyWritten,
    Change,
    Conflict,
    HumanLabel,
    Label,
    LabelOrigin,
    StoredConversation,
    StoredSegment,
    Write,
    WriteKind,
    speaker_name,
)

Origins = Mapping[str, LabelOrigin]


def refuse_apply(
    stored: StoredConversation | None, known_version: int | None, expected_revision: str, labels: Sequence[Label]
) -> AlreadyWritten | Conflict | None:
    """Return why labels are not to be written; None where they are. `known_version`: the last write with their key."""
    if stored is None:
        return Conflict(None)
    known = _by_id(stored)
    if known_version is not None and _have_labels(known, labels):
        return AlreadyWritten(known_version)
    refused = any(label.segment_id not in known or known[label.segment_id].is_human_labelled for label in labels)
    return Conflict(stored.revision) if stored.revision != expected_revision or refused else None


def decide_apply(stored: StoredConversation, origins: Origins, labels: Sequence[Label]) -> tuple[Change, ...]:
    """Return what the next write changes, of labels that `refuse_apply` did not refuse."""
    known, version = _by_id(stored), stored.version + 1
    wanted = [written(known[label.segment_id], label, origins, version) for label in labels]
    return tuple(change for change in wanted if change.is_change)


def decide_correct(stored: StoredConversation, origins: Origins, labels: Sequence[HumanLabel]) -> tuple[Change, ...]:
    """Return what a person's labels change; those of segments that are not there are left out."""
    known = _by_id(stored)
    return tuple(
        corrected(known[label.segment_id], label, origins[label.segment_id])
        for label in labels
        if label.segment_id in known
    )


def find_target(history: Sequence[Write], conversation_id: str, version: int, kind: WriteKind) -> Write:
    """Return the write that an undo or a redo reverses. Raises `WriteNotFound` or `UndoRefused`."""
    return (find_to_undo if kind == "undo" else find_to_redo)(history, conversation_id, version)


def decide_reversal(
    stored: StoredConversation,
    origins: Origins,
    history: Sequence[Write],
    target: Write,
    other_lines: Collection[str] = (),
) -> tuple[Change, ...]:
    """Return what taking a write back changes: nothing of segments that are other lines now.

    Of those that still have the word of a person that it gave them, it is taken: a store drops it from other lines.
    """
    known, is_protected = _by_id(stored), target.kind == "apply"
    other_lines = {*other_lines, *_labelled_anew(origins, history, target)}
    return tuple(
        taken_back(change, segment, origins[segment.id], is_protected=is_protected)
        for change in target.changes
        if (segment := known.get(change.segment_id)) is not None
        and (segment.id not in other_lines or still_says(segment, origins[segment.id], change))
        and is_taken_back(segment, origins[segment.id], change)
    )


def _labelled_anew(origins: Origins, history: Sequence[Write], target: Write) -> set[str]:
    """Return the segments whose label was the backend's again since this pipeline wrote: they may be other lines now.

    Of what a person said it is kept which lines it was about, and looked for there.
    """
    root = find_root(history, target.version)
    if root is None or root.kind != "apply":
        return set()
    latest = {change.segment_id: change.origin_after for change in target.changes}
    later = [change for write in history if write.version > target.version for change in write.changes]
    steps = [(one.segment_id, one.origin_before, one.origin_after) for one in later]
    steps += [(name, origin, origin) for name, origin in origins.items()]
    found = set[str]()
    for name, before, after in steps:
        if name in latest and _is_ours(latest[name]) and not (_is_ours(before) or before.is_corrected):
            found.add(name)
        latest[name] = after
    return found


def _is_ours(origin: LabelOrigin) -> bool:
    return origin.written_version is not None or origin.is_undone


def _by_id(stored: StoredConversation) -> dict[str, StoredSegment]:
    return {segment.id: segment for segment in stored.segments}


def _have_labels(known: Mapping[str, StoredSegment], labels: Sequence[Label]) -> bool:
    """Whether every segment has its label; one that was removed and sent again has lost it."""
    return all(
        label.segment_id in known
        and _label_of(known[label.segment_id]) == (speaker_name(label.speaker_id), label.pieces, label.matched_person)
        for label in labels
    )


def _label_of(segment: StoredSegment) -> tuple[object, ...]:
    return segment.speaker, segment.pieces, segment.matched_person
