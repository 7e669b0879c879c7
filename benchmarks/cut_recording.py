"""A recording cut into jobs, each through a real engine: who has which label, against the reference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.labels.chunked_talk import KeptAnswers
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording
from mac_agent.engines.engine import Diarization
from mac_agent.voice_samples import add_samples
from schemas.codec import encode
from schemas.turns import ChunkSpan, EngineDescription, SpeakerTurn, SpeakerTurns, SpeakerVoice
from vps_bridge.labelling.evidence import ConversationEvidence, build_audio_timeline
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import RelabelPolicy, relabel
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo

CHUNK_S, STEP_S = 5, 0.02
SHORTEST_JOB_S = 15
Turns = Sequence[tuple[float, float, Any]]


class CutRecording(ABC):
    """A recording whose jobs an engine diarizes."""

    reference: Turns
    """(start_s, end_s, who), who may be anything that can be sorted."""
    end_s: int
    engine: EngineDescription

    @abstractmethod
    def diarize(self, first_s: int, last_s: int) -> Diarization:
        """Return what the engine finds in these seconds."""

    def conversation(self, length_s: int, overlap_s: int) -> tuple[ConversationEvidence, int]:
        """Return the recording as jobs of this length, and the bytes of their messages."""
        n_chunks = -(-self.end_s // CHUNK_S)
        chunks = tuple(ChunkInfo(f"c{n}", n, n, 1_000.0 + n * CHUNK_S, float(CHUNK_S)) for n in range(n_chunks))
        starts = [at for at in range(0, self.end_s, length_s) if at == 0 or self.end_s - at >= SHORTEST_JOB_S]
        ends = [*starts[1:], self.end_s]
        messages = [
            self._message(f"j{number:02d}", max(0, start - overlap_s), end)
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
        size = sum(len(encode(message)) for message in messages)
        return ConversationEvidence("c", chunks, tuple(map(JobEvidence.from_result, messages))), size

    def _message(self, job_id: str, first_s: int, last_s: int) -> SpeakerTurns:
        found = self.diarize(first_s, last_s)
        message = SpeakerTurns(
            conversation_id="c",
            job_id=job_id,
            lease_id="l",
            agent_id="bench",
            engine=self.engine,
            duration_s=last_s - first_s,
            chunks=tuple(
                ChunkSpan(chunk_id=f"c{n}", start_s=n * CHUNK_S - first_s, duration_s=CHUNK_S)
                for n in range(first_s // CHUNK_S, -(-last_s // CHUNK_S))
            ),
            turns=tuple(SpeakerTurn(**vars(turn)) for turn in found.turns),
            exclusive_turns=tuple(SpeakerTurn(**vars(turn)) for turn in found.exclusive_turns),
            speakers=tuple(
                SpeakerVoice(
                    speaker=speaker.speaker,
                    clean_speech_s=speaker.clean_speech_s,
                    embedding=None if speaker.embedding is None else speaker.embedding.astype("<f4").tobytes(),
                )
                for speaker in found.speakers
            ),
        )
        return message if found.samples is None else add_samples(message, found.samples)


class DiarizedRecording(CutRecording):
    """A recording that the engine itself hears; its reference is who truly speaks."""

    def __init__(self, engine: KeptAnswers, recording: Recording) -> None:
        """Take the whole seconds of a recording."""
        self._engine, self._waveform = engine, recording.waveform
        self.end_s = int(recording.duration_s)
        self.reference = [
            (start_s, min(end_s, self.end_s), who)
            for start_s, end_s, who in recording.reference
            if start_s < self.end_s
        ]
        info = engine.info
        self.engine = EngineDescription(
            name=info.name, embedding_model=info.embedding_model, embedding_revision=info.embedding_revision
        )

    def diarize(self, first_s: int, last_s: int) -> Diarization:
        """Return what the engine finds in these seconds."""
        return self._engine.diarize(self._waveform[first_s * SAMPLE_RATE_HZ : last_s * SAMPLE_RATE_HZ])


def confusion(reference: Turns, found: Turns) -> float:
    """Return the percentage of speech under the wrong name, after the best renaming; overlap is scored."""
    end_s = max(end_s for _, end_s, _ in [*reference, *found])
    truth, named = _spoken(reference, end_s), _spoken(found, end_s)
    together = truth @ named.T
    rows, columns = linear_sum_assignment(-together)
    both = np.minimum(truth.sum(axis=0), named.sum(axis=0)).sum()
    return float(100 * (both - together[rows, columns].sum()) / truth.sum())


def _spoken(turns: Turns, end_s: float) -> NDArray[np.float32]:
    names = sorted({who for *_, who in turns})
    spoken = np.zeros((len(names), round(end_s / STEP_S) + 1), dtype=np.float32)
    for start_s, stop_s, who in turns:
        spoken[names.index(who), round(start_s / STEP_S) : round(stop_s / STEP_S)] = 1
    return spoken


def name_by_oracle(evidence: ConversationEvidence, reference: Turns) -> Turns:
    """Return the turns of all jobs, each local speaker under the name of whom it overlaps most."""
    timeline = build_audio_timeline(evidence, AssemblyRules())
    turns: Turns = [
        (turn.start_s + timeline.origins[turn.stretch], turn.end_s + timeline.origins[turn.stretch], turn.speaker_index)
        for turn in timeline.turns
    ]
    end_s = max(end_s for _, end_s, _ in [*reference, *turns])
    names, indexes = sorted({who for *_, who in reference}), sorted({index for *_, index in turns})
    best = (_spoken(turns, end_s) @ _spoken(reference, end_s).T).argmax(axis=1)
    name_of = {index: names[row] for index, row in zip(indexes, best, strict=True)}
    return [(start_s, stop_s, name_of[index]) for start_s, stop_s, index in turns]


def without_samples(evidence: ConversationEvidence) -> ConversationEvidence:
    """Return the evidence as an agent before version 1.1 sends it."""
    return replace(evidence, jobs=tuple(replace(job, voice_samples=None) for job in evidence.jobs))


def labels_of(evidence: ConversationEvidence) -> Turns:
    """Return the turns as the bridge reports them."""
    return [(turn.start_s, turn.end_s, turn.speaker_id) for turn in relabel(evidence, RelabelPolicy()).turns]
