"""Jobs with voice samples, cut out of recorded stages of the real pipeline (shared/golden)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerVoice, VoiceSamples
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.rules.assemble import ChunkInfo

GOLDEN = Path(__file__).parents[3].parent / "shared" / "golden"
CHUNK_S = 10


class Recorded:
    """One recording: pyannote's answer for it as a whole, and what the networks gave for each window."""

    def __init__(self, name: str) -> None:
        folder = GOLDEN / name
        self.speech = np.load(folder / "segmentations.npz")["segmentations"] > 0
        self.embeddings = np.load(folder / "raw_embeddings.npz")["embeddings"]
        found = np.load(folder / "plda_embeddings.npz")
        self.plda = np.zeros((*self.embeddings.shape[:2], found["post_plda"].shape[1]))
        self.plda[found["train_chunk_idx"], found["train_speaker_idx"]] = found["post_plda"]
        self.phi = found["phi"]
        rows = [line.split() for line in (folder / "reference.rttm").read_text().splitlines()]
        self.reference = [(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows]
        self.end_s = len(self.speech) + 9

    def samples(self, first_s: int, last_s: int) -> VoiceSamples:
        """Return the samples of a job on these seconds: of the windows that it contains."""
        windows = slice(first_s, max(first_s + 1, last_s - 9))
        spoken = self.speech[windows]
        window, slot = np.nonzero(spoken.any(axis=1))
        clean_s = (spoken & (spoken.sum(axis=2, keepdims=True) == 1)).mean(axis=1)[window, slot] * 10
        steps = spoken[:, np.linspace(2, spoken.shape[1] - 3, 100).astype(int)].transpose(0, 2, 1)[window, slot]
        return VoiceSamples(
            count=len(window),
            times_s=np.column_stack([window, window + 10, clean_s]).astype("<f4").tobytes(),
            speech=np.packbits(steps, axis=1).tobytes(),
            embeddings=self.embeddings[windows][window, slot].astype("<f2").tobytes(),
            plda=self.plda[windows][window, slot].astype("<f2").tobytes(),
            phi=self.phi.astype("<f4").tobytes(),
        )

    def job(self, number: int, first_s: int, last_s: int, *, mixed: bool) -> JobEvidence:
        """Return a job with the recorded turns; mixed: with all of them under one label."""
        turns = tuple(
            SpeakerTurn(
                start_s=max(start_s, first_s) - first_s,
                end_s=min(end_s, last_s) - first_s,
                speaker="SPEAKER_00" if mixed else who,
            )
            for start_s, end_s, who in self.reference
            if min(end_s, last_s) > max(start_s, first_s)
        )
        labels = sorted({turn.speaker for turn in turns})
        samples = self.samples(first_s, last_s)
        return JobEvidence(
            job_id=f"j{number:02d}",
            chunks=tuple(
                ChunkSpan(chunk_id=f"c{at}", start_s=at * CHUNK_S - first_s, duration_s=CHUNK_S)
                for at in range(first_s // CHUNK_S, -(-last_s // CHUNK_S))
            ),
            turns=turns,
            exclusive_turns=_exclusive(turns),
            speakers=tuple(_describe(label, turns, samples) for label in labels),
            embedding_model="wespeaker",
            embedding_revision="golden",
            voice_samples=samples,
        )

    def conversation(self, length_s: int, *, mixed: bool = True, overlap_s: int = 10) -> ConversationEvidence:
        """Return the recording as jobs of this length, each with some seconds of the job before it."""
        starts = range(0, self.end_s - 15, length_s)
        jobs = tuple(
            self.job(number, max(0, start - overlap_s), min(start + length_s, self.end_s), mixed=mixed)
            for number, start in enumerate(starts)
        )
        chunks = tuple(
            ChunkInfo(f"c{at}", at, at, 1_000.0 + at * CHUNK_S, float(CHUNK_S))
            for at in range(-(-self.end_s // CHUNK_S))
        )
        return ConversationEvidence("c", chunks, jobs)


def _exclusive(turns: tuple[SpeakerTurn, ...]) -> tuple[SpeakerTurn, ...]:
    """Return the turns without those seconds in which another began before."""
    ended_s, kept = 0.0, []
    for turn in sorted(turns, key=lambda turn: turn.start_s):
        start_s = max(turn.start_s, ended_s)
        if turn.end_s > start_s:
            kept.append(SpeakerTurn(start_s=start_s, end_s=turn.end_s, speaker=turn.speaker))
            ended_s = turn.end_s
    return tuple(kept)


def _describe(label: str, turns: tuple[SpeakerTurn, ...], samples: VoiceSamples) -> SpeakerVoice:
    """Return a speaker with the mean of the embeddings of its clean speech, as engines send it."""
    mine = np.zeros(4_000)
    for turn in turns:
        mine[round(10 * turn.start_s) : round(10 * turn.end_s)] = turn.speaker == label
    start_s, _, clean_s = np.frombuffer(samples.times_s, "<f4").reshape(-1, 3).T
    speech = np.unpackbits(np.frombuffer(samples.speech, np.uint8).reshape(samples.count, -1), axis=1)[:, :100]
    share = [mine[round(10 * at) :][:100] @ row / max(row.sum(), 1) for at, row in zip(start_s, speech, strict=True)]
    total = ((np.array(share) > 0.8) * (clean_s >= 2)) @ np.frombuffer(samples.embeddings, "<f2").reshape(
        samples.count, -1
    ).astype(np.float64)
    length = np.linalg.norm(total)
    embedding = (total / length).astype("<f4").tobytes() if length else None
    return SpeakerVoice(speaker=label, clean_speech_s=mine.sum() / 10, embedding=embedding)
