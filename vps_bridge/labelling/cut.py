"""Cutting: a segment in which the speaker changes is cut between its words into pieces of one voice each.

Never within a word, and never a segment that a person labelled.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf

from schemas.conversation import MAX_WORDS, Word
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.estimate import EstimateRules, cut_at_sentences
from vps_bridge.labelling.pieces import VoicePiece
from vps_bridge.labelling.transcript_times import has_credible_words
from vps_bridge.labelling.vote import TranscriptTurn

_MAX_SECOND_S = 1.0
"""A word in which a second voice speaks as long is nobody's: it has the times of its line, and tells nothing. It is no
rule: those are in the write keys of stored conversations."""


@dataclass(frozen=True)
class CuttingRules:
    """When a run of words is a piece of its own. A shorter run joins the piece beside it."""

    min_words: int = 2
    min_piece_s: float = 0.6
    """A single word that lasts as long is a piece too."""
    max_distance_s: float = 0.5
    """A word that no turn covers belongs to the nearest turn within this: the times of words are wrong by as much."""
    max_doubtful_s: float = 3.0
    min_pause_s: float = 0.1
    """A shorter piece between two of one other voice is believed only with such a pause before and after it, one at the
    edge of a segment only with a pause between it and the rest: errors of a diarizer lie anywhere, people begin to
    speak after a pause (`benchmarks/bench_words.py`)."""
    rest_ratio: float = 2.0
    """How many times as long as such an edge the piece beside it must be; else neither of them is doubted."""
    estimate: EstimateRules = field(default_factory=EstimateRules)
    """For segments whose words have no times."""


def cut_segments(
    turns: Iterable[TranscriptTurn], segments: Iterable[StoredSegment], rules: CuttingRules
) -> dict[str, tuple[VoicePiece, ...]]:
    """Return who said which words of each segment, by segment id: pieces, or one piece where one voice said them all.

    Segments are left out of which nothing is known, those without word times that stay whole, and those whose words are
    said to be elsewhere.

    Args:
        turns: exclusive turns of voices, in any order.
        segments: the transcript; a person's are not cut. Without times of words the pieces are estimates.
        rules: the thresholds.
    """
    ordered = sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker_index))
    starts, ends = [turn.start_s for turn in ordered], [turn.end_s for turn in ordered]
    cut = {}
    for segment in segments:
        first = bisect_right(ends, segment.start_s - rules.max_distance_s)
        last = bisect_left(starts, segment.end_s + rules.max_distance_s)
        if not segment.is_human_labelled and last > first:
            cut[segment.id] = _cut_segment(ordered[first:last], segment, rules)
    return {segment_id: pieces for segment_id, pieces in cut.items() if pieces}


def _cut_segment(
    turns: Sequence[TranscriptTurn], segment: StoredSegment, rules: CuttingRules
) -> tuple[VoicePiece, ...]:
    if segment.words:
        return cut_words(turns, segment.words, rules) if has_credible_words(segment) else ()
    pieces = cut_at_sentences(turns, segment, rules.estimate)
    return pieces if not pieces or pieces[-1].last_word < MAX_WORDS else ()


def cut_words(turns: Sequence[TranscriptTurn], words: Sequence[Word], rules: CuttingRules) -> tuple[VoicePiece, ...]:
    """Cut words into pieces of one voice each; `turns` are sorted and do not overlap."""
    starts, ends = [turn.start_s for turn in turns], [turn.end_s for turn in turns]
    voices = []
    for word in words:
        first = max(0, bisect_right(ends, word.start_s - rules.max_distance_s))
        last = bisect_left(starts, word.end_s + rules.max_distance_s)
        voices.append(_voice_of_word(word, turns[first:last]))
    runs = [[place for place, _ in group] for _, group in groupby(enumerate(voices), key=lambda item: item[1])]
    pieces = _join_short([_piece(words, run[0], run[-1], voices[run[0]]) for run in runs], words, rules)
    return _join_doubtful(pieces, words, rules)


def _voice_of_word(word: Word, near: Sequence[TranscriptTurn]) -> int | None:
    """Return who speaks longest within a word, else whose turn is nearest; None where none is near, or two speak."""
    seconds: dict[int, float] = {}
    for turn in near:
        shared_s = min(word.end_s, turn.end_s) - max(word.start_s, turn.start_s)  # negative: this far away
        before_s = seconds.get(turn.speaker_index, -inf)
        seconds[turn.speaker_index] = max(before_s, shared_s, before_s + shared_s)
    voices = sorted(seconds, key=lambda voice: (-seconds[voice], voice < 0, voice))
    is_of_two = any(seconds[second] >= _MAX_SECOND_S for second in voices[1:2])
    return None if is_of_two or not voices or voices[0] < 0 else voices[0]


def _join_short(runs: Sequence[VoicePiece], words: Sequence[Word], rules: CuttingRules) -> tuple[VoicePiece, ...]:
    """Join each run that is too short to be a piece with its neighbour beyond the shorter gap, from left to right."""
    pieces: list[VoicePiece] = []
    for place, run in enumerate(runs):
        pieces.append(run)
        _join_last(pieces, words)
        if not _is_short(pieces[-1], rules):
            continue
        before, after = pieces[-2] if len(pieces) > 1 else None, runs[place + 1] if place + 1 < len(runs) else None
        if before and (after is None or _gap_s(before, pieces[-1]) <= _gap_s(pieces[-1], after)):
            pieces[-1] = replace(pieces[-1], voice=before.voice)
        elif after:
            pieces[-1] = replace(pieces[-1], voice=after.voice)
        _join_last(pieces, words)
    return tuple(pieces)


def _join_doubtful(pieces: Sequence[VoicePiece], words: Sequence[Word], rules: CuttingRules) -> tuple[VoicePiece, ...]:
    """Join short pieces that no pause sets apart with what is around them."""
    kept: list[VoicePiece] = []
    for piece in pieces:
        kept.append(piece)
        _join_last(kept, words)
        if len(kept) > 2 and kept[-3].voice == kept[-1].voice:  # noqa: PLR2004 - one before, one after
            before, between, after = kept[-3:]
            pause_s = min(_gap_s(before, between), _gap_s(between, after))
            if _length_s(between) < rules.max_doubtful_s and pause_s < rules.min_pause_s:
                kept[-3:] = [_piece(words, before.first_word, after.last_word, after.voice)]
    if len(kept) > 1 and _is_doubtful_edge(kept[0], kept[1], _gap_s(kept[0], kept[1]), rules):
        kept[:2] = [_piece(words, kept[0].first_word, kept[1].last_word, kept[1].voice)]
    if len(kept) > 1 and _is_doubtful_edge(kept[-1], kept[-2], _gap_s(kept[-2], kept[-1]), rules):
        kept[-2:] = [_piece(words, kept[-2].first_word, kept[-1].last_word, kept[-2].voice)]
    return tuple(kept)


def _is_doubtful_edge(edge: VoicePiece, beside: VoicePiece, pause_s: float, rules: CuttingRules) -> bool:
    """Whether the first or last piece of a segment is more likely an error of the diarizer than somebody else."""
    is_short = _length_s(edge) < min(rules.max_doubtful_s, _length_s(beside) / rules.rest_ratio)
    return is_short and pause_s < rules.min_pause_s


def _length_s(piece: VoicePiece) -> float:
    return piece.end_s - piece.start_s


def _join_last(pieces: list[VoicePiece], words: Sequence[Word]) -> None:
    """Make one piece of the last two where they are of one voice."""
    if len(pieces) > 1 and pieces[-1].voice == pieces[-2].voice:
        last, before = pieces.pop(), pieces.pop()
        pieces.append(_piece(words, before.first_word, last.last_word, last.voice))


def _is_short(piece: VoicePiece, rules: CuttingRules) -> bool:
    words = piece.last_word - piece.first_word + 1
    return words < rules.min_words and _length_s(piece) < rules.min_piece_s


def _gap_s(before: VoicePiece, after: VoicePiece) -> float:
    return after.start_s - before.end_s


def _piece(words: Sequence[Word], first: int, last: int, voice: int | None) -> VoicePiece:
    return VoicePiece(words[first].start_s, words[last].end_s, first, last, voice)
