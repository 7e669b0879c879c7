"""What wrong labels of people do to the words that nobody labelled: two real calls in made-up jobs of 60 to 120 s."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.labels.made_up_jobs import make_evidence
from benchmarks.real_transcripts import HeardWord, RealTranscript, cut_at_sentences, read_transcripts
from vps_bridge.conversations.store import StoredSegment, speaker_number
from vps_bridge.labelling.relabel import RelabelPolicy, relabel

LABELLED = (0.03, 0.1, 0.5)


@dataclass(frozen=True)
class WordsRight:
    """Of the words in segments that nobody labelled, whose speaker the reference knows."""

    words: int = 0
    right: int = 0

    def __add__(self, other: WordsRight) -> WordsRight:
        return WordsRight(self.words + other.words, self.right + other.right)

    @property
    def share(self) -> float:
        """How many have the right speaker."""
        return self.right / max(1, self.words)


def measure(
    shared: Path, labelled: float, wrong: float, seeds: Iterable[int]
) -> Iterator[tuple[WordsRight, WordsRight]]:
    """Yield (with right labels, with a share of them wrong), for each recording and seed."""
    for transcript in read_transcripts(shared):
        for seed in seeds:
            yield count_words(transcript, labelled, 0.0, seed), count_words(transcript, labelled, wrong, seed)


def count_words(transcript: RealTranscript, labelled: float, wrong: float, seed: int) -> WordsRight:
    """Label one transcript, some of its segments by people, and count the words of the others."""
    draw = random.Random(seed)  # noqa: S311 - the same labels at every run
    blocks = [block for block in cut_at_sentences(transcript.words) if block]
    persons = sorted({turn.speaker for turn in transcript.turns})
    segments, flips = [], random.Random(seed + 1)  # noqa: S311
    for place, block in enumerate(blocks):
        segment = StoredSegment(f"s{place}", block[0].start_s, block[-1].end_s, speaker="SPEAKER_00", speaker_id=0)
        spoken_by = _main_speaker(block)
        if spoken_by is not None and draw.random() < labelled:
            is_wrong = flips.random() < wrong
            person = flips.choice([name for name in persons if name != spoken_by]) if is_wrong else spoken_by
            segment = replace(segment, person_id=person, label_source="manual", speaker=None, speaker_id=None)
        segments.append(segment)
    found = relabel(make_evidence(transcript, tuple(segments), seed), RelabelPolicy())
    number_of = {label.id: speaker_number(label.speaker) for label in found.segments}
    said: dict[int | None, Counter[str]] = defaultdict(Counter)
    for segment, block in zip(segments, blocks, strict=True):
        if segment.person_id is None:
            said[number_of[segment.id]].update(word.speaker for word in block if word.speaker is not None)
    words = sum(counted.total() for counted in said.values())
    right = sum(counted.most_common(1)[0][1] for number, counted in said.items() if number is not None and counted)
    return WordsRight(words, right)


def _main_speaker(block: Sequence[HeardWord]) -> str | None:
    counted = Counter(word.speaker for word in block if word.speaker is not None)
    return counted.most_common(1)[0][0] if counted else None
