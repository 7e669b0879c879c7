"""*Exact* compared with recorded results of stock pyannote (`python -m benchmarks.record_stock`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")

from benchmarks.local_pipeline import SHARED_MODELS, build_pipeline_directory
from benchmarks.record_stock import read_waveform
from benchmarks.recordings import SHARED_AUDIO
from mac_agent.engines.agreement import changed_s
from mac_agent.engines.engine import Hints, Turn
from mac_agent.engines.pyannote_device import FRAME_S
from mac_agent.engines.pyannote_engine import PyannoteEngine
from mac_agent.engines.pyannote_pipeline import ExactDiarization, load_pipeline

GOLDEN = Path(__file__).parent / "golden"
pytestmark = [pytest.mark.shared, pytest.mark.slow]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> PyannoteEngine:
    import torch

    if not SHARED_AUDIO.is_dir() or not SHARED_MODELS.is_dir():
        pytest.skip("shared/audio and shared/models are not beside the repository: nothing to run on")
    directory = build_pipeline_directory(tmp_path_factory.mktemp("pipelines") / "seeded")
    return PyannoteEngine(load_pipeline(directory, ExactDiarization), directory, torch.device("cpu"))


@pytest.mark.parametrize("record", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_exact_gives_what_stock_pyannote_gave(engine: PyannoteEngine, record: Path) -> None:
    recorded = json.loads(record.read_text())
    found = engine.diarize(read_waveform(SHARED_AUDIO / recorded["path"]), Hints(), lambda _stage, _done: None)
    for ours, theirs in ((found.turns, recorded["turns"]), (found.exclusive_turns, recorded["exclusive_turns"])):
        assert changed_s(ours, [Turn(*turn) for turn in theirs], tolerance_s=FRAME_S) == 0.0
    embeddings = {speaker.speaker: speaker.embedding for speaker in found.speakers if speaker.embedding is not None}
    assert embeddings.keys() == recorded["embeddings"].keys()
    for name, embedding in embeddings.items():
        assert np.abs(embedding - np.array(recorded["embeddings"][name])).max() < 1e-4
