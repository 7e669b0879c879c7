"""Pieces of short speech, without a PLDA: who says little in a job is linked by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from schemas.turns import VoiceSamples
from tests.vps_bridge.labelling.settled_jobs import settled
from tests.vps_bridge.labelling.test_relabel import PEOPLE, POLICY, evidence_of
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.relabel import Relabelling, relabel

# A and B talk; C says 24 s in the first minute, and 2 s after the second: too little for an embedding to be compared.
SPOKEN = [
    *(("ABC"[n % 3], n * 5.0 + 0.5, n * 5.0 + 4.5) for n in range(18)),
    *(("AB"[n % 2], n * 5.0 + 0.5, n * 5.0 + 4.5) for n in range(18, 40) if n != 34),
    ("C", 171.0, 173.0),
]
PIECE_S = 0.8


def with_pieces(evidence: ConversationEvidence, *, noise: float = 0.1) -> ConversationEvidence:
    """The same jobs, with a sample for each 0.8 s of a turn, as the embedded engine sends them."""
    rng = np.random.default_rng(5)
    jobs = []
    for job in evidence.jobs:
        voice_of = {voice.speaker: np.frombuffer(voice.embedding or b"", "<f4") for voice in job.speakers}
        rows = [
            (start_s, min(start_s + PIECE_S, turn.end_s), turn.speaker)
            for turn in job.exclusive_turns
            for start_s in np.arange(turn.start_s, turn.end_s - 0.1, PIECE_S)
        ]
        vectors = np.array([voice_of[who] + rng.normal(scale=noise, size=32) for *_, who in rows])
        samples = VoiceSamples(
            count=len(rows),
            times_s=np.array([(a, b, b - a) for a, b, _ in rows]).astype("<f4").tobytes(),
            embeddings=vectors.astype("<f2").tobytes(),
        )
        jobs.append(replace(job, voice_samples=samples))
    return replace(evidence, jobs=tuple(jobs))


def who_says(found: Relabelling, moment_s: float) -> set[int]:
    return {turn.speaker_id for turn in found.turns if turn.start_s <= moment_s < turn.end_s}


def test_who_says_little_in_a_job_is_known_by_the_pieces_and_stays_known_without_them() -> None:
    evidence = evidence_of(SPOKEN, 200.0)
    assert who_says(relabel(evidence, POLICY), 172.0) == set(), "without pieces it is nobody"
    sampled = with_pieces(evidence)
    found = relabel(sampled, POLICY)
    assert who_says(found, 172.0) == who_says(found, 12.0) != set()
    assert found.speakers == 3
    later = replace(sampled, jobs=settled(sampled.jobs), voices=found.voices)
    assert relabel(later, POLICY).turns == found.turns


def test_pieces_that_are_like_nobody_clearly_link_nobody() -> None:
    halfway = (PEOPLE["A"] + PEOPLE["B"]) / np.sqrt(2)
    evidence = evidence_of(SPOKEN, 200.0)
    jobs = [
        replace(
            job,
            speakers=tuple(
                voice.model_copy(update={"embedding": halfway.astype("<f4").tobytes()})
                if voice.clean_speech_s < 3
                else voice
                for voice in job.speakers
            ),
        )
        for job in evidence.jobs
    ]
    found = relabel(with_pieces(replace(evidence, jobs=tuple(jobs)), noise=0.0), POLICY)
    assert who_says(found, 172.0) == set()
    assert found.speakers == 3


def test_who_says_little_and_is_none_of_the_known_voices_is_not_given_to_the_nearest() -> None:
    stranger = [("D", start_s, end_s) if start_s == 171.0 else (who, start_s, end_s) for who, start_s, end_s in SPOKEN]
    found = relabel(with_pieces(evidence_of(stranger, 200.0)), POLICY)
    assert who_says(found, 172.0) == set()
    assert found.speakers == 3
