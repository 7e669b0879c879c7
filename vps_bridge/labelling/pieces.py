"""Pieces: which words of a segment each voice said, and the numbers they are written under."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from schemas.conversation import MAX_PIECES, SegmentPiece
from vps_bridge.conversations.store import StoredSegment, speaker_name
from vps_bridge.labelling.number import Naming
from vps_bridge.labelling.vote import Vote, VoteOutcome

_WITH_VOICES = (VoteOutcome.CLEAR, VoteOutcome.TWO_SPEAKERS, VoteOutcome.LOW_COVERAGE, VoteOutcome.NO_VOICE)


@dataclass(frozen=True)
class VoicePiece:
    """Neighbouring words of one segment that one voice said."""

    start_s: float
    end_s: float
    first_word: int
    last_word: int
    """Both are indices into the segment's words, or into its text split at white space; the last one belongs to it."""
    voice: int | None
    """Index of the partition; None where nobody speaks nearby, or only a local speaker that is in no voice."""


def settle_votes(
    votes: Sequence[Vote], cut: Mapping[str, Sequence[VoicePiece]], parted: Collection[str] = ()
) -> tuple[Vote, ...]:
    """Return the votes; a segment of two speakers is clear after all where one of them said all of its words.

    The other one's turns are then in its pauses, or errors of the diarizer. So it is with one that a person split off a
    voice, or left in it (`parted`): it is whoever speaks most, for it may not stay with the voice that it was parted
    from.
    """

    def settle(vote: Vote) -> Vote:
        pieces = cut.get(vote.segment_id, ())
        is_settled = len(pieces) == 1 and pieces[0].voice is not None and pieces[0].voice == vote.winner
        is_settled |= vote.segment_id in parted and vote.winner is not None and vote.winner >= 0
        if vote.outcome is not VoteOutcome.TWO_SPEAKERS or not is_settled:
            return vote
        return replace(vote, outcome=VoteOutcome.CLEAR)

    return tuple(settle(vote) for vote in votes)


def voices_of_pieces(cut: Mapping[str, Sequence[VoicePiece]]) -> frozenset[int]:
    """Return the voices that said the words of some piece."""
    return frozenset(piece.voice for pieces in cut.values() for piece in pieces if piece.voice is not None)


def decide_pieces(
    segments: Sequence[StoredSegment], votes: Sequence[Vote], cut: Mapping[str, Sequence[VoicePiece]], naming: Naming
) -> tuple[tuple[SegmentPiece, ...], ...]:
    """Return the pieces of each segment, in the order given; none where all of its words read the same number.

    A segment of which nothing is known now keeps the pieces it has: its audio or clock is missing, or its times cannot
    be.

    Args:
        segments: the transcript.
        votes: by segment.
        cut: what `cut_segments` returned.
        naming: the number of each voice.
    """
    into: dict[int | None, int | None] = {
        change.speaker_id: change.into for change in naming.changes if change.change == "merged"
    }

    def decide(segment: StoredSegment, vote: Vote) -> tuple[SegmentPiece, ...]:
        if vote.outcome is VoteOutcome.HUMAN:
            return segment.pieces
        if vote.outcome not in _WITH_VOICES:
            kept = segment.pieces
            return _join_numbers(segment, kept, [into.get(piece.speaker_id, piece.speaker_id) for piece in kept])
        found = cut.get(segment.id, ())
        return _join_numbers(segment, found, [_number(piece, naming.numbers) for piece in found])

    return tuple(decide(segment, vote) for segment, vote in zip(segments, votes, strict=True))


def _number(piece: VoicePiece, numbers: Sequence[int | None]) -> int | None:
    return None if piece.voice is None else numbers[piece.voice]


def _join_numbers(
    segment: StoredSegment, pieces: Sequence[VoicePiece | SegmentPiece], numbers: Sequence[int | None]
) -> tuple[SegmentPiece, ...]:
    """Return the pieces under their numbers, neighbours of one number as one; none where only one is left."""
    joined = []
    for number, group in groupby(zip(pieces, numbers, strict=True), key=lambda item: item[1]):
        run = [piece for piece, _ in group]
        joined.append(
            SegmentPiece(
                start_s=run[0].start_s,
                end_s=run[-1].end_s,
                first_word=run[0].first_word,
                last_word=run[-1].last_word,
                speaker=speaker_name(number),
                speaker_id=number,
                estimated=not segment.words,
            )
        )
    return tuple(joined) if 1 < len(joined) <= MAX_PIECES else ()
