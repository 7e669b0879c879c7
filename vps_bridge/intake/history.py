"""The history of a conversation as it is told: who changed which labels, what they said, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.codec import decode
from schemas.conversation import ConversationUpdated, SegmentPiece
from schemas.corrections import Correction, CorrectionOutcome
from schemas.record import Record
from vps_bridge.conversations.reversal import undone_by
from vps_bridge.conversations.store import Change, ConversationStore, Write
from vps_bridge.ledger import Ledger

BRIDGE = "bridge"


class HistoryChange(Record):
    """One segment before and after a write; a person is there where a correction named one."""

    segment_id: str
    before: str | None
    after: str | None
    person_before: str | None = None
    person_after: str | None = None
    matched_before: str | None = None
    """Whom a voiceprint named."""
    matched_after: str | None = None
    pieces_before: tuple[SegmentPiece, ...] = ()
    pieces_after: tuple[SegmentPiece, ...] = ()


class HistoryEntry(Record):
    """One write."""

    version: int
    kind: str
    """`apply`: this pipeline's; `correct`, `undo` and `redo`: a person's."""
    by: str | None
    """`bridge`, or who the person said they are."""
    written_at_s: float
    write_key: str
    undoes: int | None = None
    """Of an undo or redo: which write it reverses."""
    undone_by: int | None = None
    """The undo that took this write back, while it is taken back."""
    because_of: int | None = None
    """Of an `apply`: the person's write just before it, whose consequence it is."""
    corrections: tuple[Correction, ...] = ()
    outcomes: tuple[CorrectionOutcome, ...] = ()
    """What became of each correction, as the latest update told."""
    changes: tuple[HistoryChange, ...] = ()


class ConversationHistory(Record):
    """Every change that was made to a conversation's labels, oldest first."""

    conversation_id: str
    writes: tuple[HistoryEntry, ...]


def read_history(conversation_id: str, ledger: Ledger, store: ConversationStore) -> ConversationHistory | None:
    """Return a conversation's history, or None where it was never heard of or is deleted."""
    record = ledger.conversations.get(conversation_id)
    if record is None:
        return None
    told = decode(ConversationUpdated, record.updated_payload).corrections if record.updated_payload else ()
    outcomes: dict[int, list[CorrectionOutcome]] = {}
    for outcome in told:
        outcomes.setdefault(outcome.write, []).append(outcome)
    writes = store.history(conversation_id)
    return ConversationHistory(conversation_id=conversation_id, writes=tuple(_describe(writes, outcomes)))


def count_labels(writes: Sequence[Write], version: int) -> int:
    """Return how many labels an undo of a write would change: its own, and those that were worked out because of it."""
    places = {write.version: place for place, write in enumerate(writes)}
    if version not in places:
        return 0
    write, following = writes[places[version]], writes[places[version] + 1 : places[version] + 2]
    changed = {change.segment_id for change in write.changes}
    if write.kind != "apply":
        changed |= {change.segment_id for later in following if later.kind == "apply" for change in later.changes}
    return len(changed)


def _describe(writes: Sequence[Write], outcomes: Mapping[int, Sequence[CorrectionOutcome]]) -> list[HistoryEntry]:
    undone = undone_by(writes)
    entries, before = [], None
    for write in writes:
        is_ours = write.kind == "apply"
        is_consequence = is_ours and before is not None and before.kind != "apply"
        entries.append(
            HistoryEntry(
                version=write.version,
                kind=write.kind,
                by=BRIDGE if is_ours else write.by,
                written_at_s=write.written_at_s,
                write_key=write.write_key,
                undoes=write.undoes,
                undone_by=undone.get(write.version),
                because_of=before.version if before is not None and is_consequence else None,
                corrections=write.corrections,
                outcomes=tuple(outcomes.get(write.version, ())),
                changes=tuple(_describe_change(change) for change in write.changes),
            )
        )
        before = write
    return entries


def _describe_change(change: Change) -> HistoryChange:
    return HistoryChange(
        segment_id=change.segment_id,
        before=change.before,
        after=change.after,
        person_before=change.origin_before.person_id,
        person_after=change.origin_after.person_id,
        matched_before=change.origin_before.matched_person,
        matched_after=change.origin_after.matched_person,
        pieces_before=change.pieces_before,
        pieces_after=change.pieces_after,
    )
