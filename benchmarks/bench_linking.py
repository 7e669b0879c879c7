"""Linking, on recorded networks: `python -m benchmarks.bench_linking`.

Recordings of the real community-1 pipeline (../shared/golden) are cut into jobs. Each job goes through the real engine,
with recorded outputs of its networks, and the results through the real relabelling. Confusion is speech under the wrong
voice, in percent of all speech, against pyannote's own answer for the whole recording:

- oracle: every local speaker of every job gets the right name; what is left, the jobs mixed themselves,
- embeddings: jobs linked by one embedding a speaker, as those of agents before version 1.1 of the result,
- samples: jobs linked by their voice samples.

The thresholds of `embeddings` were chosen on the recordings marked "seen". Those of `samples` are the published ones of
community-1; with the one number chosen here, the shortest part, between 0 and 2 s the mean changes by 0.2 points.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyannote.core import SlidingWindow, SlidingWindowFeature
from scipy.optimize import linear_sum_assignment

from benchmarks.local_pipeline import SHARED_MODELS, build_pipeline_directory
from mac_agent.engines.engine import Diarization, Hints
from mac_agent.engines.pyannote_engine import PyannoteEngine
from mac_agent.engines.pyannote_pipeline import EMBEDDINGS, SEGMENTATIONS, ExactDiarization, load_pipeline
from mac_agent.voice_samples import add_samples
from schemas.codec import encode
from schemas.turns import ChunkSpan, EngineDescription, SpeakerTurn, SpeakerTurns, SpeakerVoice
from vps_bridge.labelling.evidence import ConversationEvidence, build_audio_timeline
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.relabel import RelabelPolicy, relabel
from vps_bridge.labelling.sample_set import SampleRules
from vps_bridge.labelling.take_apart import take_apart
from vps_bridge.rules.assemble import AssemblyRules, ChunkInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLDEN = SHARED_MODELS.parent / "golden"
WINDOW_S, CHUNK_S, STEP_S = 10, 5, 0.02
# (recording, first and last window) of each part; of a part but the last, the seconds [first, last) are the reference.
RECORDINGS = {
    "01 (seen)": [("01_dialogue", 0, 218)],
    "06 (seen)": [("06_long_recording", 0, 969)],
    "01 and 06": [("01_dialogue", 0, 218), ("06_long_recording", 0, 400)],
    "five pieces": [
        ("06_long_recording", 0, 130),
        ("01_dialogue", 0, 100),
        ("06_long_recording", 300, 420),
        ("01_dialogue", 100, 218),
        ("03_dual_speaker", 0, 51),
    ],
}
# Who is one person in two recordings, by their centroids: cosine 0.97 and 0.72, all others at most 0.52.
SAME = {"03/SPEAKER_00": "01/SPEAKER_00", "06/SPEAKER_01": "01/SPEAKER_01"}
Turns = list[tuple[float, float, Any]]


class ReplayedRecording:
    """Windows of one or several recordings one after the other, and who speaks in them."""

    def __init__(self, engine: PyannoteEngine, parts: Sequence[tuple[str, int, int]]) -> None:
        self._engine = engine
        segmentations, embeddings = [], []
        self.reference: Turns = []
        at = 0
        for number, (name, first, last) in enumerate(parts):
            segmentations.append(np.load(GOLDEN / name / "segmentations.npz")["segmentations"][first:last])
            embeddings.append(np.load(GOLDEN / name / "raw_embeddings.npz")["embeddings"][first:last])
            end_s = last + (WINDOW_S - 1 if number == len(parts) - 1 else 0)
            for row in map(str.split, (GOLDEN / name / "reference.rttm").read_text().splitlines()):
                who = f"{name[:2]}/{row[7]}"
                start_s, stop_s = max(float(row[3]), first), min(float(row[3]) + float(row[4]), end_s)
                if stop_s > start_s:
                    self.reference.append((start_s - first + at, stop_s - first + at, SAME.get(who, who)))
            at += last - first
        self._segmentations, self._embeddings = np.concatenate(segmentations), np.concatenate(embeddings)
        self.end_s = at + WINDOW_S - 1

    def diarize(self, first_s: int, last_s: int) -> Diarization:
        """Return what the engine finds in these seconds."""
        windows = slice(first_s, max(first_s + 1, last_s - WINDOW_S + 1))
        stages = {
            SEGMENTATIONS: SlidingWindowFeature(
                self._segmentations[windows], SlidingWindow(duration=float(WINDOW_S), step=1.0)
            ),
            EMBEDDINGS: self._embeddings[windows],
        }
        pipeline = self._engine._pipeline  # noqa: SLF001 - its networks are replaced by their recorded outputs

        def replay(file: dict[str, Any], **options: Any) -> Any:  # noqa: ANN401 - pyannote's
            file.update(stages)
            return type(pipeline).apply(pipeline, file, **options)

        pipeline.__dict__["apply"] = replay
        silence = np.zeros((last_s - first_s) * 16_000, dtype=np.float32)
        return self._engine.diarize(silence, Hints(), lambda _stage, _done: None)

    def conversation(self, length_s: int, overlap_s: int) -> tuple[ConversationEvidence, int]:
        """Return the recording as jobs of this length, and the bytes of their messages."""
        n_chunks = -(-self.end_s // CHUNK_S)
        chunks = tuple(ChunkInfo(f"c{n}", n, n, 1_000.0 + n * CHUNK_S, float(CHUNK_S)) for n in range(n_chunks))
        starts = [at for at in range(0, self.end_s, length_s) if at == 0 or self.end_s - at >= 15]
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
            engine=EngineDescription(name="pyannote", embedding_model="wespeaker", embedding_revision="golden"),
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


def confusion(reference: Turns, found: Turns) -> float:
    """Return the percentage of speech under the wrong name, after the best renaming; overlap is scored."""
    end_s = max(end_s for _, end_s, _ in [*reference, *found])
    truth, named = _spoken(reference, end_s), _spoken(found, end_s)
    together = truth @ named.T
    rows, columns = linear_sum_assignment(-together)
    both = np.minimum(truth.sum(axis=0), named.sum(axis=0)).sum()
    return float(100 * (both - together[rows, columns].sum()) / truth.sum())


def _spoken(turns: Turns, end_s: float) -> Any:  # noqa: ANN401 - an array, shape (names, steps)
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


def print_clustering_time(evidence: ConversationEvidence) -> None:
    """Print how long 480 jobs take: those of one conversation, again and again."""
    jobs = [replace(job, job_id=f"{n:03d}-{job.job_id}") for n in range(480) for job in evidence.jobs][:480]
    began_s = time.process_time()
    take_apart(jobs, SampleRules())
    print(f"\n480 jobs: clustered and taken apart in {time.process_time() - began_s:.2f} s of processor time")


def main() -> None:
    """Print a row for every recording and job length."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        directory = build_pipeline_directory(Path(scratch) / "seeded")
        engine = PyannoteEngine(load_pipeline(directory, ExactDiarization), directory, torch.device("cpu"))
        print("| recording | jobs of | shared | oracle % | embeddings % | samples % | voices | MB an hour |")
        print("|---|---|---|---|---|---|---|---|")
        for name, parts in RECORDINGS.items():
            recording = ReplayedRecording(engine, parts)
            for length_s in (60, 90, 120):
                for overlap_s in (0, 10):
                    evidence, size = recording.conversation(length_s, overlap_s)
                    bare, found = without_samples(evidence), labels_of(evidence)
                    oracle = confusion(recording.reference, name_by_oracle(bare, recording.reference))
                    linked = confusion(recording.reference, labels_of(bare))
                    print(
                        f"| {name} | {length_s} s | {overlap_s} s | {oracle:.1f} | {linked:.1f} "
                        f"| {confusion(recording.reference, found):.1f} | {len({who for *_, who in found})} "
                        f"| {size / recording.end_s * 3600 / 1e6:.1f} |",
                        flush=True,
                    )
        print_clustering_time(evidence)


if __name__ == "__main__":
    main()
