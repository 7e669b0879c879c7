"""How many words of real calls get the right speaker when the call comes in one job, and in jobs of 60 to 120 s.

The whole relabelling works: clock, linking, votes, pieces and numbers. Each number counts as one person, and each
person has one number, the best assignment of both; words have times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.labels.made_up_jobs import CHUNK_S, make_evidence
from benchmarks.labels.wrong_labels import WordsRight
from benchmarks.real_transcripts import CUTS, HeardWord, RealTranscript, read_transcripts
from schemas.conversation import SegmentLabel, Word
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.relabel import RelabelPolicy, relabel

CONFUSED = (0.0, 0.05)
SEED = 1


def print_words_in_jobs(shared: Path) -> None:
    """Print the table."""
    transcripts = read_transcripts(shared)
    print("| segments | speech confused | one job | jobs of 60 to 120 s | points less |")
    print("|---|---|---|---|---|")
    for confused in CONFUSED:
        for cut in CUTS:
            one, several = (
                sum((count_words(each, cut, confused, one_job=one_job) for each in transcripts), WordsRight())
                for one_job in (True, False)
            )
            cells = f"{100 * one.share:.1f} % | {100 * several.share:.1f} % | {100 * (one.share - several.share):.1f}"
            print(f"| {cut} | {100 * confused:.0f} % | {cells} |", flush=True)


def count_words(transcript: RealTranscript, cut: str, confused: float, *, one_job: bool) -> WordsRight:
    """Label one transcript and count the words whose speaker the reference knows."""
    chunk_s = max(turn.end_s for turn in transcript.turns) + 1.0 if one_job else CHUNK_S
    blocks = CUTS[cut](transcript.words)
    segments = tuple(_segment(str(place), block) for place, block in enumerate(blocks))
    evidence = make_evidence(transcript, segments, SEED, confused=confused, chunk_s=chunk_s)
    labels = relabel(evidence, RelabelPolicy()).segments
    said: Counter[tuple[str, int | None]] = Counter()
    for block, label in zip(blocks, labels, strict=True):
        said.update(
            (word.speaker, number)
            for word, number in zip(block, _numbers(label, len(block)), strict=True)
            if word.speaker is not None
        )
    return WordsRight(said.total(), _right(said))


def _numbers(label: SegmentLabel, words: int) -> Iterator[int | None]:
    """Yield the number of each word: by the segment's pieces, where it has some, else by its label."""
    if not label.pieces:
        yield from [label.speaker_id] * words
    for piece in label.pieces or ():
        yield from [piece.speaker_id] * (piece.last_word - piece.first_word + 1)


def _right(said: Counter[tuple[str, int | None]]) -> int:
    """Return how many words are right where every number is one person."""
    persons = sorted({person for person, _ in said})
    numbers = sorted({number for _, number in said if number is not None})
    together = np.array([[said[person, number] for number in numbers] for person in persons])
    return int(together[linear_sum_assignment(-together)].sum())


def _segment(name: str, block: Sequence[HeardWord]) -> StoredSegment:
    words = tuple(Word(text=word.text, start_s=word.start_s, end_s=word.end_s) for word in block)
    text = " ".join(word.text for word in block)
    return StoredSegment(name, block[0].start_s, block[-1].end_s, text=text, words=words)
