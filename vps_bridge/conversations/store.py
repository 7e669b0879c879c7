"""The protocol of a store that keeps conversations, and the records that the bridge exchanges with it."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from schemas.conversation import SegmentPiece, TranscriptSegment, Word
from schemas.corrections import Correction

LabelSource = Literal["manual", "auto"]
SAME_EXTENT_S = 0.5
SHORT_S = 2.0
"""What a segment says that is shorter may well be said again, by anybody."""


def speaker_name(speaker_id: int | None) -> str | None:
    """Return the label of a number: `SPEAKER_00` for 0, None for None. All labels are padded here and nowhere else."""
    return None if speaker_id is None else f"SPEAKER_{speaker_id:02d}"


def speaker_number(speaker: str | None) -> int | None:
    """Return the number of a label: 0 for `SPEAKER_00` and `SPEAKER_0`, None if it does not end in `_<number>`."""
    digits = (speaker or "").rpartition("_")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and "_" in (speaker or "") else None


def shared_s(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return how many seconds two spans share; below zero, how far they lie from each other."""
    return min(one[1], other[1]) - max(one[0], other[0])


def is_same_place(before: tuple[float, float], now: tuple[float, float]) -> bool:
    """Whether two spans of seconds share at least half of the shorter one: neighbours touch, and overlap a little."""
    shorter_s = min(before[1] - before[0], now[1] - now[0])
    # A length below zero, which cannot be, is the same as itself.
    return shared_s(before, now) >= min(shorter_s / 2, shorter_s)


def is_same_extent(before: tuple[float, float], now: tuple[float, float]) -> bool:
    """Whether a line begins and ends where it did, as far as speech-to-text says that the same twice."""
    return all(abs(one - other) <= SAME_EXTENT_S for one, other in zip(before, now, strict=True))


def is_same_span(before: tuple[float, float], now: tuple[float, float]) -> bool:
    """Whether a line begins and ends where it did: a short one's neighbours do so nearly, and lie beside it."""
    return is_same_extent(before, now) and is_same_place(before, now)


def find_move(moved_s: Sequence[float]) -> float:
    """Return by how much all lines of a transcript have moved, of which each moved so far; 0 where they have not."""
    have_moved = len(moved_s) > 1 and max(moved_s) - min(moved_s) <= SAME_EXTENT_S < abs(moved_s[0])
    return moved_s[0] if have_moved else 0.0


def sum_text(text: str) -> int:
    """Return a checksum of what a line says: the text itself is kept in one place only."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class StoredSegment:
    """A piece of transcript and its label. Times are in seconds of the transcript, as the backend sent them."""

    id: str
    start_s: float
    end_s: float
    text: str = ""
    speaker: str | None = None
    speaker_id: int | None = None
    original_speaker: str | None = None
    """The label that the backend sent last, even if this pipeline wrote another since."""
    is_user: bool = False
    person_id: str | None = None
    label_source: LabelSource | None = None
    """Who gave the label; None where the backend does not say. `manual` too where a person corrected it here."""
    words: tuple[Word, ...] | None = None
    pieces: tuple[SegmentPiece, ...] = ()
    """Who said which of its words, as this pipeline wrote it; none where the segment is not cut."""
    matched_person: str | None = None
    """The person whom a voiceprint names here, as this pipeline wrote it. No person's word."""
    is_undone: bool = field(default=False, compare=False)
    """A person took a write back here: that the label is right is a person's word. No part of the segment itself."""

    @property
    def span(self) -> tuple[float, float]:
        """When it begins and ends."""
        return self.start_s, self.end_s

    @property
    def is_human_labelled(self) -> bool:
        """Whether a person labelled it. Where the source is unknown, a label for the owner or a person counts."""
        if self.is_undone:
            return True
        if self.label_source is None:
            return self.is_user or self.person_id is not None
        return self.label_source == "manual"


@dataclass(frozen=True)
class StoredConversation:
    """A conversation as it was when it was read."""

    conversation_id: str
    revision: str
    """Differs after every change of the conversation; `apply` compares it. The text itself means nothing."""
    version: int
    """Number of the last write or undo; 0 where there was none."""
    segments: tuple[StoredSegment, ...]
    """Without the removed ones, sorted by (start_s, end_s, id)."""


@dataclass(frozen=True)
class Label:
    """The speaker that a segment is to have (None: an unknown one), and the pieces that it is to be cut into."""

    segment_id: str
    speaker_id: int | None
    pieces: tuple[SegmentPiece, ...] = ()
    matched_person: str | None = None
    """Whom a voiceprint names."""


@dataclass(frozen=True)
class HumanLabel:
    """Who speaks in a segment, as a person corrects it: a speaker of the conversation, or a person, or both."""

    segment_id: str
    speaker_id: int | None = None
    """None: the speaker stays as it is."""
    person_id: str | None = None


@dataclass(frozen=True)
class LabelOrigin:
    """Where a segment's label comes from: the backend, unless something here says otherwise."""

    written_version: int | None = None
    """The write of this pipeline that gave it."""
    is_undone: bool = False
    """A person took a write back."""
    is_corrected: bool = False
    """A person said who speaks."""
    person_id: str | None = None
    """The person whom a correction named."""
    matched_person: str | None = None
    """The person whom a voiceprint named."""


@dataclass(frozen=True)
class Applied:
    """The labels were written."""

    version: int
    """Number of this write."""


@dataclass(frozen=True)
class AlreadyWritten:
    """A write with the same key was made before, and every segment still has the label that is to be written."""

    version: int
    """Number of that write."""


@dataclass(frozen=True)
class Conflict:
    """Nothing was written, because the conversation has changed since it was read: read it and relabel again."""

    revision: str | None
    """Its revision now; None where there is no such conversation."""


@dataclass(frozen=True)
class Change:
    """One segment's label, pieces and matched person before and after one write."""

    segment_id: str
    before: str | None
    after: str | None
    pieces_before: tuple[SegmentPiece, ...] = ()
    pieces_after: tuple[SegmentPiece, ...] = ()
    origin_before: LabelOrigin = field(default=LabelOrigin(), compare=False)
    origin_after: LabelOrigin = field(default=LabelOrigin(), compare=False)

    @property
    def is_change(self) -> bool:
        """Whether anything differs."""
        before = self.before, self.pieces_before, self.origin_before.matched_person
        return before != (self.after, self.pieces_after, self.origin_after.matched_person)


WriteKind = Literal["apply", "correct", "undo", "redo"]


@dataclass(frozen=True)
class Write:
    """One entry of the history: a write of this pipeline (`apply`), or what a person did."""

    version: int
    kind: WriteKind
    write_key: str
    written_at_s: float
    """Unix time."""
    changes: tuple[Change, ...]
    by: str | None = None
    """Who did it; None: this pipeline, or nobody said."""
    undoes: int | None = None
    """The write that an undo or a redo reverses."""
    corrections: tuple[Correction, ...] = ()
    """What a person said, of a `correct`."""


class StoreError(Exception):
    """A request that a conversation store cannot fulfil; the message names the remedy."""


class SegmentIncomplete(StoreError):
    """A new segment without its times."""

    def __init__(self, segment_id: str) -> None:
        super().__init__(
            f"segment {segment_id!r} is not in the transcript yet (or was removed): send its start_s and end_s too. "
            "Nothing of this event was taken."
        )


class WriteNotFound(StoreError):
    """There is no such write to undo."""

    def __init__(self, conversation_id: str, version: int) -> None:
        super().__init__(
            f"Conversation {conversation_id} has no write {version} that can be undone. "
            f"See which it has: omi-bridge history {conversation_id}"
        )


class UndoRefused(StoreError):
    """A write that cannot be taken back or brought back as things are; the message says why."""


class ConversationStore(Protocol):
    """A store that keeps conversations: the text and labels from the backend, and every write of this pipeline.

    This is all that the bridge and its commands ask of a store; only opening one differs from store to store. Methods
    may be called from any thread. What a method did is on disk when it returns, and is done as a whole or not at all.
    Another process may have the same store open. A store beyond this machine may raise `StoreUnavailable` anywhere.
    """

    def upsert_segments(
        self,
        conversation_id: str,
        revision: int,
        segments: Sequence[TranscriptSegment],
        removed: Sequence[str] = (),
    ) -> bool:
        """Take text, times and labels from the backend. An unknown conversation or segment is added.

        A field that a segment does not name (`model_fields_set`) stays as it is; None takes it away. A label that this
        pipeline wrote, or that `undo` brought back, stays unless the event says that a person labelled the segment.
        Its pieces go when its text, times or words change, or a person labels it. What an event with a higher
        `revision` set, field by field, or removed is left as it is.

        Args:
            conversation_id: the conversation.
            revision: the number of the backend's event; a higher one is newer.
            segments: the segments that are new or changed.
            removed: ids of segments that are no longer part of the transcript.

        Returns whether anything changed.

        Raises:
            SegmentIncomplete: a segment is new and has no times; nothing was changed.
        """
        ...

    def read(self, conversation_id: str) -> StoredConversation | None:
        """Return the conversation, or None where there is none."""
        ...

    def apply(
        self, conversation_id: str, expected_revision: str, write_key: str, labels: Sequence[Label]
    ) -> Applied | Conflict | AlreadyWritten:
        """Write labels, all or none, if the conversation is still at `expected_revision`.

        The result is `AlreadyWritten`, at any revision, if there was a write with this key and every segment has its
        label. Otherwise it is a `Conflict` if the revision differs, or if a label is for a segment that is missing or
        labelled by a person.

        Args:
            conversation_id: the conversation.
            expected_revision: `StoredConversation.revision` as it was read.
            write_key: identifies the evidence for the labels, so that the same evidence is written once.
            labels: the labels to write.
        """
        ...

    def correct(
        self,
        conversation_id: str,
        write_key: str,
        labels: Sequence[HumanLabel],
        *,
        corrections: Sequence[Correction],
        by: str | None,
    ) -> Applied:
        """Write what a person says into the history, and onto the segments that it names; return the write.

        Those segments count as labelled by a person. Ids that are not in the transcript are left out. A second call
        with the same key returns the first one's write and changes nothing.
        """
        ...

    def undo(
        self,
        conversation_id: str,
        version: int,
        *,
        by: str | None = None,
        write_key: str | None = None,
        other_lines: Collection[str] = (),
    ) -> Applied:
        """Take one write back; return the undo as a write of its own. An undo can be undone too.

        Only segments that still have what that write gave them get the old label and pieces back, and a person's label
        comes back where only this pipeline has labelled the segment since it was taken away. Where the write was
        this pipeline's they count as labelled by a person from then on; an undo of that undo makes them as they were.

        Args:
            conversation_id: the conversation.
            version: the write to take back, of whatever kind.
            by: who does it.
            write_key: a second call with the same key returns the first one's write and changes nothing.
            other_lines: segments that stay as they are, but for a person's word of this write that they still have:
                their ids were given to other lines since.

        Raises:
            WriteNotFound: there is no such write.
            UndoRefused: it is undone already.
        """
        ...

    def redo(
        self,
        conversation_id: str,
        version: int,
        *,
        by: str | None = None,
        write_key: str | None = None,
        other_lines: Collection[str] = (),
    ) -> Applied:
        """Bring back what an undo took away; `version` is the undo, or the write that it undid. See `undo`.

        Raises:
            WriteNotFound: there is no such write.
            UndoRefused: it is not undone.
        """
        ...

    def history(self, conversation_id: str) -> tuple[Write, ...]:
        """Return every write and undo, oldest first; none where there is no such conversation."""
        ...

    def delete(self, conversation_id: str) -> None:
        """Delete the conversation with its history, and from the files too, as `forget_deleted_pages` does.

        An unknown conversation is no error.
        """
        ...

    def pack(self, conversation_id: str) -> bool:
        """Keep a conversation that nothing happens to in little room, until it is asked for again.

        Returns False where there is nothing to pack. Nothing that the other methods return changes.
        """
        ...

    def unpacked(self) -> list[str]:
        """Return the conversations that could be packed and are not."""
        ...

    def free_pages(self, most: int) -> int:
        """Give at most so many unused pages back to the disk; return how many unused ones are left."""
        ...

    def forget_deleted_pages(self) -> None:
        """Remove from the files, too, what was deleted or replaced, so that nobody can read it there."""
        ...

    def close(self) -> None:
        """Close the store; nothing can be read or written any more."""
        ...
