"""What the bridge asks of a place that keeps conversations, and the records it exchanges with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from schemas.conversation import TranscriptSegment, Word

LabelSource = Literal["manual", "auto"]


def speaker_name(speaker_id: int | None) -> str | None:
    """`SPEAKER_00` for 0; None for nobody. The one place that pads, so label and number never disagree."""
    return None if speaker_id is None else f"SPEAKER_{speaker_id:02d}"


def speaker_number(speaker: str | None) -> int | None:
    """0 for `SPEAKER_00` and for `SPEAKER_0`; None for anything that ends in no number."""
    digits = (speaker or "").rpartition("_")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and "_" in (speaker or "") else None


@dataclass(frozen=True)
class StoredSegment:
    """A piece of transcript and its label. Times are seconds on the transcript's clock, as they were sent."""

    id: str
    start_s: float
    end_s: float
    text: str = ""
    speaker: str | None = None
    speaker_id: int | None = None
    original_speaker: str | None = None
    """The label the backend sent, whatever was written since: tells speech-to-text's default from a label."""
    is_user: bool = False
    person_id: str | None = None
    label_source: LabelSource | None = None
    """`manual` also where a person undid what this pipeline wrote."""
    words: tuple[Word, ...] | None = None

    @property
    def is_human_labelled(self) -> bool:
        """Whether a person labelled it; where the backend cannot say who did, every person label counts."""
        if self.label_source is None:
            return self.is_user or self.person_id is not None
        return self.label_source == "manual"


@dataclass(frozen=True)
class StoredConversation:
    """A conversation as it is kept now."""

    conversation_id: str
    revision: str
    """Opaque; changes with every change of the conversation. What `apply` compares."""
    version: int
    """Number of the last write of this pipeline; 0 where there was none."""
    segments: tuple[StoredSegment, ...]
    """Sorted by (start_s, end_s, id)."""


@dataclass(frozen=True)
class Label:
    """The speaker a segment shall have; None reads unknown."""

    segment_id: str
    speaker_id: int | None


@dataclass(frozen=True)
class Applied:
    """The labels are in the store."""

    version: int


@dataclass(frozen=True)
class AlreadyWritten:
    """A write with this key is in the store already, and so are its labels."""

    version: int


@dataclass(frozen=True)
class Conflict:
    """The conversation is not what it was when it was read: read it and relabel again."""

    revision: str | None
    """What it is now; None where there is no such conversation."""


@dataclass(frozen=True)
class Change:
    """One segment's label before and after one write."""

    segment_id: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Write:
    """One write of this pipeline (`apply`) or of a person taking it back (`undo`)."""

    version: int
    kind: Literal["apply", "undo"]
    write_key: str
    written_at_s: float
    """Unix time."""
    changes: tuple[Change, ...]


class StoreError(Exception):
    """A request a conversation store cannot fulfil; the message names the remedy."""


class WriteNotFound(StoreError):
    """There is no such write to undo."""

    def __init__(self, conversation_id: str, version: int) -> None:
        super().__init__(
            f"Conversation {conversation_id} has no write {version} that can be undone. "
            f"See which it has: omi-bridge history {conversation_id}"
        )


class ConversationStore(Protocol):
    """A place that keeps conversations. Methods may be called from any thread."""

    def upsert_segments(
        self,
        conversation_id: str,
        revision: int,
        segments: Sequence[TranscriptSegment],
        removed: Sequence[str] = (),
    ) -> bool:
        """Take text, times and human labels from the backend; never replaces a machine label of this pipeline.

        A segment that a higher `revision` wrote or removed is left as it is.
        Returns whether anything changed.
        """
        ...

    def read(self, conversation_id: str) -> StoredConversation | None:
        """Return the conversation, or None where there is none."""
        ...

    def apply(
        self, conversation_id: str, expected_revision: str, write_key: str, labels: Sequence[Label]
    ) -> Applied | Conflict | AlreadyWritten:
        """Write labels, all or none, if the conversation still is at `expected_revision`.

        `AlreadyWritten` (this key, and its labels stand) wins over `Conflict`. A label for a human-labelled or a
        missing segment is a `Conflict`.
        """
        ...

    def undo(self, conversation_id: str, version: int) -> Applied:
        """Take one write back where its labels still stand; those segments count as labelled by a person.

        Raises:
            WriteNotFound: there is no such write.
        """
        ...

    def history(self, conversation_id: str) -> tuple[Write, ...]:
        """Return every write, oldest first."""
        ...

    def delete(self, conversation_id: str) -> None:
        """Leave nothing of the conversation behind; unknown ids are fine."""
        ...

    def forget_deleted_pages(self) -> None:
        """See that what was deleted or replaced is in no file any more."""
        ...

    def close(self) -> None:
        """Close it; nothing can be read or written any more."""
        ...
