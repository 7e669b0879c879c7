"""Clustering of recorded network outputs of the real community-1 pipeline gives the recorded turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")

from benchmarks.local_pipeline import SHARED_MODELS, build_pipeline_directory
from mac_agent.engines.agreement import changed_s
from mac_agent.engines.engine import Diarization, Hints, Turn
from mac_agent.engines.pyannote_engine import PyannoteEngine, to_diarization
from mac_agent.engines.pyannote_pipeline import EMBEDDINGS, SEGMENTATIONS, ExactDiarization, load_pipeline

GOLDEN = SHARED_MODELS.parent / "golden"
RECORDINGS = ("01_dialogue", "02_pyannote_sample", "03_dual_speaker", "06_long_recording")
RTTM_STEP_S = 0.001  # the recorded turns are an RTTM of three decimals
pytestmark = [pytest.mark.shared, pytest.mark.long]


class Replay:
    """The engine with the outputs of its networks replaced by recorded ones."""

    def __init__(self, engine: PyannoteEngine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from pyannote.core import SlidingWindow, SlidingWindowFeature

        segmentations = np.load(GOLDEN / name / "segmentations.npz")["segmentations"]
        self.engine = engine
        self.stages = {
            SEGMENTATIONS: SlidingWindowFeature(segmentations, SlidingWindow(duration=10.0, step=1.0)),
            EMBEDDINGS: np.load(GOLDEN / name / "raw_embeddings.npz")["embeddings"],
        }
        self.n_samples = (len(segmentations) + 9) * 16_000
        self.outputs: list[Any] = []
        self.apply = type(engine._pipeline).apply
        monkeypatch.setattr(engine._pipeline, "apply", self.replay)

    def replay(self, file: dict[str, Any], **options: Any) -> Any:
        file.update(self.stages)
        self.outputs.append(self.apply(self.engine._pipeline, file, **options))
        return self.outputs[-1]

    def __call__(self, hints: Hints | None = None) -> Diarization:
        waveform = np.zeros(self.n_samples, dtype=np.float32)
        return self.engine.diarize(waveform, hints or Hints(), lambda _stage, _done: None)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> PyannoteEngine:
    import torch

    if not GOLDEN.is_dir() or not SHARED_MODELS.is_dir():
        pytest.skip("shared/golden and shared/models are not beside the repository: nothing to compare with")
    directory = build_pipeline_directory(tmp_path_factory.mktemp("pipelines") / "seeded")
    return PyannoteEngine(load_pipeline(directory, ExactDiarization), directory, torch.device("cpu"))


def recorded_turns(name: str) -> tuple[Turn, ...]:
    fields = [line.split() for line in (GOLDEN / name / "reference.rttm").read_text().splitlines() if line.strip()]
    return tuple(Turn(float(f[3]), float(f[3]) + float(f[4]), f[7]) for f in fields)


@pytest.mark.parametrize("name", RECORDINGS)
def test_recorded_network_outputs_give_the_recorded_turns(
    engine: PyannoteEngine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = Replay(engine, name, monkeypatch)
    found, expected = replay(), recorded_turns(name)
    assert len(found.turns) == len(expected) >= 13
    assert len(found.speakers) == len({turn.speaker for turn in expected})
    assert changed_s(to_diarization(replay.outputs[-1], 1e9).turns, expected, tolerance_s=RTTM_STEP_S) == 0.0
    centroids = np.load(GOLDEN / name / "clustering.npz")["centroids"]
    rows = replay.outputs[-1].speaker_embeddings
    nearest = np.abs(centroids[:, None] - rows[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-9


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_hint_of_more_speakers_than_there_are_adds_none(
    engine: PyannoteEngine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = Replay(engine, name, monkeypatch)
    actual = len(replay().speakers)
    for hint in (actual + 1, actual + 3, 40):
        found = replay(Hints(num_speakers=hint))
        assert len(found.speakers) == actual
        assert found.warnings == (f"{hint} speakers were expected, {actual} could be told apart",)


def test_a_hint_of_the_actual_number_of_speakers_changes_nothing(
    engine: PyannoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = Replay(engine, "06_long_recording", monkeypatch)
    found = replay(Hints(num_speakers=3))
    assert changed_s(found.turns, replay().turns) == 0.0
    assert found.warnings == ()


def test_a_hint_of_fewer_speakers_gives_fewer(engine: PyannoteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay(engine, "06_long_recording", monkeypatch)
    assert len(replay(Hints(max_speakers=2)).speakers) == 2
    assert len(replay(Hints(num_speakers=1)).speakers) == 1


def test_the_samples_are_what_the_pipeline_clustered(engine: PyannoteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with clean speech enough are the ones that pyannote recorded as clustered, with the same PLDA numbers."""
    replay = Replay(engine, "01_dialogue", monkeypatch)
    samples = replay().samples
    recorded = np.load(GOLDEN / "01_dialogue" / "plda_embeddings.npz")
    assert samples is not None
    assert samples.plda is not None
    clustered = samples.clean_s >= 0.2 * 10
    assert samples.start_s[clustered].tolist() == recorded["train_chunk_idx"].tolist()
    assert np.abs(samples.plda[clustered] - recorded["post_plda"]).max() < 1e-3
    assert samples.phi == pytest.approx(recorded["phi"])
