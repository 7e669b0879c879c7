"""Linking, on recorded networks: `python -m benchmarks.bench_linking`; with `--engine embedded` by hearing.

Recordings of the real community-1 pipeline (../shared/golden) are cut into jobs. Each job goes through the real engine,
with recorded outputs of its networks, and the results through the real relabelling. Confusion is speech under the wrong
voice, in percent of all speech, against pyannote's own answer for the whole recording; with either generation of the
embedded engine, which hears a call and talks itself, against who truly speaks:

- oracle: every local speaker of every job gets the right name; what is left, the jobs mixed themselves,
- embeddings: jobs linked by one embedding a speaker, as those of agents before version 1.1 of the result,
- samples: jobs linked by their voice samples (those of the embedded engines are pieces of tracks).

The thresholds of `embeddings` were chosen on the recordings marked "seen". Those of `samples` are the published ones of
community-1; with the one number chosen here, the shortest part, between 0 and 2 s the mean changes by 0.2 points.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import platformdirs
import torch
from pyannote.core import SlidingWindow, SlidingWindowFeature

from benchmarks.cut_recording import (
    CutRecording,
    DiarizedRecording,
    confusion,
    labels_of,
    name_by_oracle,
    without_samples,
)
from benchmarks.labels.chunk_table import select_recordings
from benchmarks.labels.chunked_talk import KeptAnswers
from benchmarks.local_pipeline import SHARED_MODELS, build_pipeline_directory
from mac_agent.engines.engine import Diarization, Engine, Hints
from mac_agent.engines.pyannote_engine import PyannoteEngine
from mac_agent.engines.pyannote_pipeline import EMBEDDINGS, SEGMENTATIONS, ExactDiarization, load_pipeline
from mac_agent.engines.registry import load_engine
from mac_agent.weights.models import GENERATIONS
from schemas.turns import EngineDescription
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.sample_set import SampleRules
from vps_bridge.labelling.take_apart import take_apart

GOLDEN = SHARED_MODELS.parent / "golden"
WINDOW_S = 10
LENGTHS_S, OVERLAPS_S = (60, 90, 120), (0, 10)
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
HEARD = ("repair_call_40", "sample", "talk3-1", "talk5-1", "talk10-1")


class ReplayedRecording(CutRecording):
    """Windows of one or several recordings one after the other, and who speaks in them."""

    engine = EngineDescription(name="pyannote", embedding_model="wespeaker", embedding_revision="golden")

    def __init__(self, engine: PyannoteEngine, parts: Sequence[tuple[str, int, int]]) -> None:
        self._engine = engine
        segmentations, embeddings = [], []
        self.reference: list[tuple[float, float, str]] = []
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


def print_row(name: str, recording: CutRecording, length_s: int, overlap_s: int) -> ConversationEvidence:
    """Print how a recording is labelled in jobs of this length."""
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
    return evidence


def print_table(recordings: Iterable[tuple[str, CutRecording]]) -> ConversationEvidence | None:
    """Print a row for every recording, job length and overlap; return the last conversation."""
    print("| recording | jobs of | shared | oracle % | embeddings % | samples % | voices | MB an hour |")
    print("|---|---|---|---|---|---|---|---|")
    evidence = None
    for name, recording in recordings:
        for length_s in LENGTHS_S:
            for overlap_s in OVERLAPS_S:
                evidence = print_row(name, recording, length_s, overlap_s)
    return evidence


def print_replayed() -> None:
    """Print the table of the recorded networks, and how long 480 jobs take: those of one conversation, repeated."""
    with TemporaryDirectory() as scratch:
        directory = build_pipeline_directory(Path(scratch) / "seeded")
        engine = PyannoteEngine(load_pipeline(directory, ExactDiarization), directory, torch.device("cpu"))
        evidence = print_table((name, ReplayedRecording(engine, parts)) for name, parts in RECORDINGS.items())
    assert evidence is not None
    jobs = [replace(job, job_id=f"{n:03d}-{job.job_id}") for n in range(480) for job in evidence.jobs][:480]
    began_s = time.process_time()
    take_apart(jobs, SampleRules())
    print(f"\n480 jobs: clustered and taken apart in {time.process_time() - began_s:.2f} s of processor time")


def print_heard(engine: Engine, answers: Path) -> None:
    """Print the table of an engine that hears the recordings itself."""
    print(f"\n{engine.info.name} ({engine.info.embedding_model})\n")
    kept = KeptAnswers(engine, answers)
    print_table((recording.name, DiarizedRecording(kept, recording)) for recording in select_recordings(HEARD))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=tuple(GENERATIONS), help="a generation of the embedded engine, by hearing")
    parser.add_argument("--data-dir", type=Path, default=Path(platformdirs.user_data_dir("omi-diarization")))
    parser.add_argument("--answers", type=Path, help="keep the engine's answers here, for the next run")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if options.engine is None:
        print_replayed()
        return
    with TemporaryDirectory() as scratch:
        engine = load_engine(options.engine, data_dir=options.data_dir, threads=1)
        print_heard(engine, options.answers or Path(scratch))


if __name__ == "__main__":
    main()
