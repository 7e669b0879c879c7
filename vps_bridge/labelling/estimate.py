"""Estimated pieces: where a speaker changes within a segment whose words have no times.

The words are laid over the speech inside the segment, each as long as its characters. A change of speaker that meets
the end of a sentence cuts there. Where one does not, the segment stays whole: a guess is worse than no answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.pieces import VoicePiece
from vps_bridge.labelling.vote import TranscriptTurn

SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", "؟", "।")
CLOSING_MARKS = "\"'”’»)]"
MAX_RUNS = 200  # a segment with more changes of speaker is not cut


@dataclass(frozen=True)
class EstimateRules:
    """When an estimate is good enough (`benchmarks/words.md` has the table)."""

    max_error_s: float = 3.0
    """A sentence that ends farther from a change of speaker than this is not what the change meets; 0: never cut."""
    min_run_s: float = 1.5
    """What is shorter ("yes", an error of the diarizer) is not looked for in the text."""


def cut_at_sentences(
    turns: Sequence[TranscriptTurn], segment: StoredSegment, rules: EstimateRules
) -> tuple[VoicePiece, ...]:
    """Cut a segment at the sentence ends that changes of speaker meet; nothing where some change meets none.

    Args:
        turns: the turns near the segment, sorted, not overlapping.
        segment: a segment with text. Words are counted in its text split at white space.
        rules: the thresholds.
    """
    speech = _inside(turns, segment)
    runs = _long_runs(speech, rules)
    words = segment.text.split()
    if not 1 < len(runs) <= MAX_RUNS or not words or not rules.max_error_s:
        return ()
    ends_s = _estimated_ends(words, speech)
    sentences = [place for place, word in enumerate(words[:-1]) if _ends_sentence(word)]
    cuts = [_nearest_sentence(sentences, ends_s, (a.end_s + b.start_s) / 2, rules) for a, b in pairwise(runs)]
    lasts = [cut for cut in cuts if cut is not None]
    if len(lasts) < len(cuts) or any(b <= a for a, b in pairwise(lasts)):
        return ()
    firsts, lasts = [0, *(last + 1 for last in lasts)], [*lasts, len(words) - 1]
    starts_s = [segment.start_s, *(run.start_s for run in runs[1:])]
    stops_s = [*(run.end_s for run in runs[:-1]), segment.end_s]
    return tuple(
        VoicePiece(start_s, stop_s, first, last, run.speaker_index if run.speaker_index >= 0 else None)
        for start_s, stop_s, first, last, run in zip(starts_s, stops_s, firsts, lasts, runs, strict=True)
    )


def _inside(turns: Sequence[TranscriptTurn], segment: StoredSegment) -> list[TranscriptTurn]:
    """Return the parts of turns that lie inside the segment."""
    return [
        replace(turn, start_s=max(turn.start_s, segment.start_s), end_s=min(turn.end_s, segment.end_s))
        for turn in turns
        if turn.end_s > segment.start_s and turn.start_s < segment.end_s
    ]


def _long_runs(speech: Sequence[TranscriptTurn], rules: EstimateRules) -> list[TranscriptTurn]:
    """Return runs of one voice each, without those shorter than `min_run_s`, the shortest left out first."""
    runs = _joined(speech)
    while 1 < len(runs) <= MAX_RUNS:
        shortest = min(range(len(runs)), key=lambda place: (runs[place].end_s - runs[place].start_s, place))
        if runs[shortest].end_s - runs[shortest].start_s >= rules.min_run_s:
            break
        runs = _joined([*runs[:shortest], *runs[shortest + 1 :]])
    return runs


def _joined(speech: Sequence[TranscriptTurn]) -> list[TranscriptTurn]:
    runs: list[TranscriptTurn] = []
    for turn in speech:
        if runs and runs[-1].speaker_index == turn.speaker_index:
            runs[-1] = replace(runs[-1], end_s=turn.end_s)
        else:
            runs.append(turn)
    return runs


def _estimated_ends(words: Sequence[str], speech: Sequence[TranscriptTurn]) -> list[float]:
    """Return when each word ends, if all characters take equally long and nobody speaks in the pauses."""
    spoken_s = [0.0, *accumulate(turn.end_s - turn.start_s for turn in speech)]
    letters = list(accumulate(len(word) + 1 for word in words))
    ends_s = []
    for letter in letters:
        at_s = spoken_s[-1] * letter / letters[-1]
        turn = min(bisect_left(spoken_s, at_s, lo=1), len(speech)) - 1
        ends_s.append(speech[turn].start_s + at_s - spoken_s[turn])
    return ends_s


def _ends_sentence(word: str) -> bool:
    return word.rstrip(CLOSING_MARKS).endswith(SENTENCE_ENDS)


def _nearest_sentence(
    sentences: Sequence[int], ends_s: Sequence[float], change_s: float, rules: EstimateRules
) -> int | None:
    """Return the word that ends a sentence nearest to a change of speaker, or None where none is near enough."""
    nearest = min(sentences, key=lambda place: (abs(ends_s[place] - change_s), place), default=None)
    return nearest if nearest is not None and abs(ends_s[nearest] - change_s) <= rules.max_error_s else None
