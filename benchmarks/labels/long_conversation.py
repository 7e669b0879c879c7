"""What a conversation of 480 jobs of a minute and 4,800 segments costs: its clock, and all of a relabelling."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import ParamSpec, TypeVar

import numpy as np

from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerVoice
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.align import AlignmentRules, Stretch, find_clock
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import RelabelPolicy, relabel
from vps_bridge.rules.assemble import ChunkInfo

JOBS, SEGMENTS = 480, 4_800
JOB_S, CHUNK_S, STARTED_AT_S = 60, 10, 1_700_000_000.0
OFFSET_S = 33.0
VOICES, DIM = 4, 256
RUNS = 3
P = ParamSpec("P")
R = TypeVar("R")


def print_long_conversation() -> None:
    """Print the processor time of the clock, and of a relabelling without and with voices to link."""
    speech = make_speech()
    segments = [(start_s + OFFSET_S, end_s + OFFSET_S) for start_s, end_s in speech]
    for name, prior_s in (("right times", OFFSET_S), ("no times", None)):
        stretch = Stretch(0, JOBS * float(JOB_S), prior_s, prior_s is not None)
        took_s, clock = _measure(find_clock, stretch, speech, [(0.0, stretch.length_s)], segments, AlignmentRules())
        print(f"\n{JOBS} jobs, {len(segments)} segments, {name}: {took_s:.2f} s of processor time for the clock,")
        print(f"offset {clock.offset_s:.2f} s ({OFFSET_S:.2f} is right), {len(clock.pieces)} pieces")
    evidence = make_conversation(speech)
    took_s, found = _measure(relabel, evidence, RelabelPolicy())
    print(f"\n{JOBS} jobs, {len(segments)} segments, {found.speakers} voices linked by embeddings: {took_s:.2f} s of")
    print(f"processor time for a relabelling (median of {RUNS}); clustering of voice samples: `make bench-linking`")


def _measure(work: Callable[P, R], *args: P.args, **options: P.kwargs) -> tuple[float, R]:
    """Return the median processor time of some runs, and what they return."""
    took_s = []
    for _ in range(RUNS):
        began_s = time.process_time()
        found = work(*args, **options)
        took_s.append(time.process_time() - began_s)
    return median(took_s), found


def make_speech() -> list[Span]:
    """Return turns of 1 to 9 s with pauses of 0.2 to 2 s, as long as the jobs are and at most as many as segments."""
    draw, speech, at_s = random.Random(5), list[Span](), 0.5  # noqa: S311 - made-up speech, no secret
    while at_s < JOBS * JOB_S - 20 and len(speech) < SEGMENTS:
        length_s = draw.uniform(1.0, 9.0)
        speech.append((at_s, at_s + length_s))
        at_s += length_s + draw.uniform(0.2, 2.0)
    return speech


def make_conversation(speech: Sequence[Span]) -> ConversationEvidence:
    """Return the speech of four people as jobs that share 10 s, and a segment for each turn."""
    draw = np.random.default_rng(5)
    voices = np.linalg.qr(draw.normal(size=(DIM, VOICES)))[0].T
    said_by = draw.integers(VOICES, size=len(speech)).tolist()
    turns = [(start_s, end_s, str(who)) for (start_s, end_s), who in zip(speech, said_by, strict=True)]
    count = JOBS * JOB_S // CHUNK_S
    chunks = tuple(
        ChunkInfo(f"c{n}", n, n, STARTED_AT_S + OFFSET_S + n * CHUNK_S, float(CHUNK_S)) for n in range(count)
    )
    segments = tuple(
        StoredSegment(f"s{place}", start_s + OFFSET_S, end_s + OFFSET_S, speaker="SPEAKER_00", speaker_id=0)
        for place, (start_s, end_s) in enumerate(speech)
    )
    jobs = tuple(_diarize(number, turns, voices, draw) for number in range(JOBS))
    return ConversationEvidence("long", chunks, jobs, segments, started_at_s=STARTED_AT_S)


def _diarize(
    number: int, turns: Sequence[tuple[float, float, str]], voices: np.ndarray, draw: np.random.Generator
) -> JobEvidence:
    first_s, last_s = max(0, number * JOB_S - CHUNK_S), (number + 1) * JOB_S
    heard = tuple(
        SpeakerTurn(start_s=max(start_s, first_s) - first_s, end_s=min(end_s, last_s) - first_s, speaker=who)
        for start_s, end_s, who in turns
        if start_s < last_s and end_s > first_s
    )
    speakers = tuple(
        SpeakerVoice(
            speaker=who,
            clean_speech_s=sum(turn.end_s - turn.start_s for turn in heard if turn.speaker == who),
            embedding=(voices[int(who)] + 0.02 * draw.normal(size=DIM)).astype("<f4").tobytes(),
        )
        for who in sorted({turn.speaker for turn in heard})
    )
    spans = tuple(
        ChunkSpan(chunk_id=f"c{at_s // CHUNK_S}", start_s=at_s - first_s, duration_s=CHUNK_S)
        for at_s in range(first_s, last_s, CHUNK_S)
    )
    return JobEvidence(f"job-{number:03d}", spans, heard, heard, speakers, "wespeaker", "made up")
