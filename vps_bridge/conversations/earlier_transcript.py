"""What a conversation has of an earlier transcript, and the one that is imported now does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.store import StoredSegment, is_same_place


@dataclass(frozen=True)
class EarlierTranscript:
    """Ids of segments that the conversation has already."""

    gone: tuple[str, ...] = ()
    """Not in the new transcript, and no person labelled them."""
    gone_labelled: tuple[str, ...] = ()
    """Not in the new transcript; a person labelled them."""
    moved_labelled: tuple[str, ...] = ()
    """A person labelled them, and under their id the new transcript has what is said at another time."""
    overwritten: tuple[str, ...] = ()
    """Under their id the new transcript has other words, said at another time; and theirs are nowhere in it."""


def compare_transcripts(stored: Sequence[StoredSegment], new: Sequence[TranscriptSegment]) -> EarlierTranscript:
    """Compare the segments that a conversation has with all those of a new transcript."""
    by_id = {segment.id: segment for segment in new}
    gone = [segment for segment in stored if segment.id not in by_id]
    said = {_plain_words(segment.text) for segment in new} | {""}
    moved = [s for s in stored if s.id in by_id and not _is_same_talk(s, by_id[s.id])]
    return EarlierTranscript(
        gone=tuple(segment.id for segment in gone if not segment.is_human_labelled),
        gone_labelled=tuple(segment.id for segment in gone if segment.is_human_labelled),
        moved_labelled=tuple(segment.id for segment in moved if segment.is_human_labelled),
        overwritten=tuple(
            segment.id
            for segment in moved
            if "text" in by_id[segment.id].model_fields_set and _plain_words(segment.text) not in said
        ),
    )


def _plain_words(text: str) -> str:
    return " ".join(text.split()).casefold()


def _is_same_talk(stored: StoredSegment, new: TranscriptSegment) -> bool:
    if not new.has_times:
        return True  # it keeps those it has
    return is_same_place((stored.start_s, stored.end_s), (new.start_s, new.end_s))
