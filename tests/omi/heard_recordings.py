"""Real recordings as OMI's users have them: pauses of seconds between turns, and a transcript without word times."""

import itertools
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.labels.chunk_table import select_recordings
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording
from schemas.conversation import ConversationUpdated
from tests.omi.coded_talk import SpokenTurn
from tests.omi.traffic import Talk

NAMES = ("repair_call_40", "sample", "talk3-1")
WORD_S = 0.3
LONGEST_SEGMENT_S = 8.0
MIN_PAUSE_S, PAUSED = 0.2, 0.3  # the share of such pauses that becomes one of seconds
BACKGROUND = 20.0  # of 32,768: a room is never silent


@dataclass(frozen=True)
class HeardRecording:
    """A recording with pauses, and who says which word when."""

    name: str
    talk: Talk
    turns: tuple[SpokenTurn, ...]

    def rows(self, conversation_id: str, zero_s: float) -> list[dict[str, Any]]:
        """Segments as speech-to-text cuts them; second 0 of the transcript is `zero_s` before the talk."""
        return [
            {"id": f"{conversation_id}-{place}", "start": start_s + zero_s, "end": end_s + zero_s, "text": "words"}
            for place, (start_s, end_s, _) in enumerate(self.turns)
        ]

    def words_right(self, update: ConversationUpdated, conversation_id: str) -> float:
        """The share of words with the right speaker, under the best naming of the numbers."""
        labels = {label.id: label.speaker_id for label in update.segments}
        words: dict[tuple[int | None, str], int] = {}
        for place, (start_s, end_s, who) in enumerate(self.turns):
            key = labels[f"{conversation_id}-{place}"], who
            words[key] = words.get(key, 0) + max(1, round((end_s - start_s) / WORD_S))
        numbers = sorted({number for number, _ in words if number is not None})
        speakers: list[str | None] = [*sorted({who for _, who in words})]
        speakers += [None] * max(0, len(numbers) - len(speakers))
        best = 0
        for naming in itertools.permutations(speakers, len(numbers)):
            pairs = zip(numbers, naming, strict=False)
            best = max(best, sum(words.get((number, who), 0) for number, who in pairs if who is not None))
        return best / sum(words.values())

    def words_unlabelled(self, update: ConversationUpdated, conversation_id: str) -> float:
        """The share of words in lines that have no label."""
        labels = {label.id: label.speaker_id for label in update.segments}
        words = [max(1, round((end_s - start_s) / WORD_S)) for start_s, end_s, _ in self.turns]
        missing = [labels[f"{conversation_id}-{place}"] is None for place in range(len(self.turns))]
        return sum(count for count, is_missing in zip(words, missing, strict=True) if is_missing) / sum(words)


def hear(began_at: float) -> list[HeardRecording]:
    """The recordings, each with silences of up to 14 s put into its pauses."""
    return [with_pauses(recording, seed, began_at) for seed, recording in enumerate(select_recordings(NAMES))]


def with_pauses(recording: Recording, seed: int, began_at: float) -> HeardRecording:
    """A recording, with silences of 2 to 13 s put into some of its pauses."""
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    merged = _merge(recording.reference)
    cuts_s = [
        (before[1] + after[0]) / 2
        for before, after in itertools.pairwise(merged)
        if after[0] - before[1] > MIN_PAUSE_S and draw.random() < PAUSED
    ]
    parts, inserted, last_s = [], [], 0.0
    samples = recording.waveform * 32_767
    for cut_s in [*cuts_s, recording.duration_s]:
        parts.append(samples[round(last_s * SAMPLE_RATE_HZ) : round(cut_s * SAMPLE_RATE_HZ)])
        if cut_s < recording.duration_s:
            pause_s = draw.uniform(2.0, 13.0)
            parts.append(np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.float32))
            inserted.append((cut_s, pause_s))
        last_s = cut_s
    heard = np.concatenate(parts)
    heard += noise.normal(0, BACKGROUND, len(heard)).astype(np.float32)

    def later(moment_s: float) -> float:
        return moment_s + sum(pause_s for cut_s, pause_s in inserted if cut_s <= moment_s)

    turns = tuple(
        (later(start_s), later(start_s) + end_s - start_s, who)
        for a, b, who in sorted(recording.reference)
        for start_s, end_s in _split(a, b, [cut_s for cut_s, _ in inserted])
    )
    speech = tuple((later(a), later(a) + b - a) for a, b in merged)
    talk = Talk(np.clip(heard, -32_768, 32_767).astype(np.int16), SAMPLE_RATE_HZ, began_at, speech)
    return HeardRecording(recording.name, talk, turns)


def _merge(reference: tuple[SpokenTurn, ...]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start_s, end_s, _ in sorted(reference):
        if merged and start_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return merged


def _split(start_s: float, end_s: float, cuts_s: list[float]) -> list[tuple[float, float]]:
    """A turn as segments: none is longer than speech-to-text makes them, and none goes over a pause."""
    count = max(1, int(np.ceil((end_s - start_s) / LONGEST_SEGMENT_S)))
    borders = np.linspace(start_s, end_s, count + 1).tolist()
    borders = sorted({*borders, *(cut_s for cut_s in cuts_s if start_s < cut_s < end_s)})
    return list(itertools.pairwise(borders))
