"""What wrong labels of people do to the words that nobody labelled: two real calls, true turns, made-up voices.

Jobs of 60 to 120 s have the reference's turns, 5 % of the speech given to somebody else, and embeddings as like and as
unlike as those of WeSpeaker (`vps_bridge.labelling.link.LinkingRules`).
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.real_transcripts import HeardWord, RealTranscript, cut_at_sentences, read_transcripts
from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerVoice
from vps_bridge.conversations.store import StoredSegment, speaker_number
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import ConversationEvidence, RelabelPolicy, relabel
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, JobPlan, plan_jobs

LABELLED = (0.03, 0.1, 0.5)
CONFUSED, CONFUSION_S = 0.05, (0.5, 3.0)
CHUNK_S, STARTED_AT_S, DIM = 30.0, 1_700_000_000.0, 64
COMMON, NOISE = 0.63, 0.43
"""Of each voice's vector: what all voices share (cosine of two voices 0.40), and noise (of one voice 0.84)."""

Turn = tuple[float, float, str]


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
    found = relabel(_evidence(transcript, persons, tuple(segments), seed), RelabelPolicy())
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


def _evidence(
    transcript: RealTranscript, persons: Sequence[str], segments: tuple[StoredSegment, ...], seed: int
) -> ConversationEvidence:
    turns = _confuse(transcript, persons)
    chunks = tuple(
        ChunkInfo(f"c{number:04d}", number, number, STARTED_AT_S + number * CHUNK_S, CHUNK_S)
        for number in range(int(turns[-1][1] / CHUNK_S) + 1)
    )
    plans = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    draw = np.random.default_rng(seed)
    basis = np.linalg.qr(draw.normal(size=(DIM, len(persons) + 1)))[0].T
    voices = {name: COMMON * basis[0] + np.sqrt(1 - COMMON**2) * basis[place] for place, name in enumerate(persons, 1)}
    jobs = tuple(_diarize(plan, turns, voices, draw) for plan in plans)
    return ConversationEvidence("call", chunks, jobs, segments, started_at_s=STARTED_AT_S)


def _diarize(
    plan: JobPlan, turns: Sequence[Turn], voices: dict[str, np.ndarray], draw: np.random.Generator
) -> JobEvidence:
    """Return a job with the turns in its audio; its labels are its own."""
    first_s = int(plan.chunks[0].chunk_id[1:]) * CHUNK_S
    last_s = (int(plan.chunks[-1].chunk_id[1:]) + 1) * CHUNK_S
    heard = [
        SpeakerTurn(start_s=max(start_s, first_s) - first_s, end_s=min(end_s, last_s) - first_s, speaker=name)
        for start_s, end_s, name in turns
        if start_s < last_s and end_s > first_s
    ]
    speakers = []
    for name in sorted({turn.speaker for turn in heard}):
        noise = draw.normal(size=DIM)
        vector = voices[name] + NOISE * noise / np.linalg.norm(noise)
        clean_s = sum(turn.end_s - turn.start_s for turn in heard if turn.speaker == name)
        speakers.append(SpeakerVoice(speaker=name, clean_speech_s=clean_s, embedding=vector.astype("<f4").tobytes()))
    spans = tuple(
        ChunkSpan(chunk_id=chunk.chunk_id, start_s=place * CHUNK_S, duration_s=CHUNK_S)
        for place, chunk in enumerate(plan.chunks)
    )
    job_id = f"job-{plan.fresh[0]}"
    return JobEvidence(job_id, spans, tuple(heard), tuple(heard), tuple(speakers), "wespeaker", "made up")


def _confuse(transcript: RealTranscript, persons: Sequence[str]) -> list[Turn]:
    """Return the true turns without overlap, a share of the speech given to somebody else."""
    draw, found, until_s = random.Random(1), list[Turn](), 0.0  # noqa: S311
    for turn in transcript.turns:
        at_s = max(turn.start_s, until_s)
        while at_s < turn.end_s:
            end_s = min(turn.end_s, at_s + draw.uniform(*CONFUSION_S))
            is_wrong = draw.random() < CONFUSED
            name = draw.choice([other for other in persons if other != turn.speaker]) if is_wrong else turn.speaker
            found.append((at_s, end_s, name))
            at_s = end_s
        until_s = max(until_s, turn.end_s)
    return found
