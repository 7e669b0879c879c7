"""Made-up jobs of a real call: the reference's turns, 5 % of the speech given to somebody else, and made-up voices.

The embeddings are as like and as unlike as those of WeSpeaker (`vps_bridge.labelling.link.LinkingRules`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_transcripts import RealTranscript
from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerVoice
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo, JobPlan, plan_jobs

CONFUSED, CONFUSION_S = 0.05, (0.5, 3.0)
CHUNK_S, STARTED_AT_S, DIM = 30.0, 1_700_000_000.0, 64
COMMON, NOISE = 0.63, 0.43
"""Of each voice's vector: what all voices share (cosine of two voices 0.40), and noise (of one voice 0.84)."""

Turn = tuple[float, float, str]


def make_evidence(
    transcript: RealTranscript,
    segments: tuple[StoredSegment, ...],
    seed: int,
    *,
    confused: float = CONFUSED,
    chunk_s: float = CHUNK_S,
) -> ConversationEvidence:
    """Return a call as its jobs found it.

    Args:
        transcript: the call.
        segments: its transcript as a backend keeps it.
        seed: of the voices.
        confused: the share of the speech that goes to somebody else.
        chunk_s: the length of its chunks; one as long as the call is one job.
    """
    persons = sorted({turn.speaker for turn in transcript.turns})
    turns = _confuse(transcript, persons, confused)
    chunks = tuple(
        ChunkInfo(f"c{number:04d}", number, number, STARTED_AT_S + number * chunk_s, chunk_s)
        for number in range(int(turns[-1][1] / chunk_s) + 1)
    )
    plans = plan_jobs(chunks, closing=True, idle_s=0.0, rules=AssemblyRules())
    draw = np.random.default_rng(seed)
    basis = np.linalg.qr(draw.normal(size=(DIM, len(persons) + 1)))[0].T
    voices = {name: COMMON * basis[0] + np.sqrt(1 - COMMON**2) * basis[place] for place, name in enumerate(persons, 1)}
    jobs = tuple(_diarize(plan, turns, voices, draw, chunk_s) for plan in plans)
    return ConversationEvidence("call", chunks, jobs, segments, started_at_s=STARTED_AT_S)


def _diarize(
    plan: JobPlan,
    turns: Sequence[Turn],
    voices: Mapping[str, NDArray[np.float64]],
    draw: np.random.Generator,
    chunk_s: float,
) -> JobEvidence:
    """Return a job with the turns in its audio; its labels are its own."""
    first_s = int(plan.chunks[0].chunk_id[1:]) * chunk_s
    last_s = (int(plan.chunks[-1].chunk_id[1:]) + 1) * chunk_s
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
        ChunkSpan(chunk_id=chunk.chunk_id, start_s=place * chunk_s, duration_s=chunk_s)
        for place, chunk in enumerate(plan.chunks)
    )
    job_id = f"job-{plan.fresh[0]}"
    return JobEvidence(job_id, spans, tuple(heard), tuple(heard), tuple(speakers), "wespeaker", "made up")


def _confuse(transcript: RealTranscript, persons: Sequence[str], confused: float) -> list[Turn]:
    """Return the true turns without overlap, a share of the speech given to somebody else."""
    draw, found, until_s = random.Random(1), list[Turn](), 0.0  # noqa: S311
    for turn in transcript.turns:
        at_s = max(turn.start_s, until_s)
        while at_s < turn.end_s:
            end_s = min(turn.end_s, at_s + draw.uniform(*CONFUSION_S))
            is_wrong = draw.random() < confused
            name = draw.choice([other for other in persons if other != turn.speaker]) if is_wrong else turn.speaker
            found.append((at_s, end_s, name))
            at_s = end_s
        until_s = max(until_s, turn.end_s)
    return found
