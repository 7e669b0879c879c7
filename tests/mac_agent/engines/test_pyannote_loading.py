"""Loading a pyannote pipeline: which directories are accepted, and which device runs it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")

from mac_agent.engines.clip import load_clip
from mac_agent.engines.engine import Diarization, Hints
from mac_agent.engines.pyannote_device import FRAME_S, agrees_with_cpu, choose_device
from mac_agent.engines.pyannote_engine import PyannoteEngine, load_pyannote
from mac_agent.engines.pyannote_pipeline import PipelineUnusable
from mac_agent.engines.registry import load_engine
from mac_agent.errors import DeviceUnavailable
from mac_agent.weights.pipelines import trust_directory
from mac_agent.weights.verdict import ModeChoice

if TYPE_CHECKING:
    from mac_agent.engines.engine import Waveform

pytestmark = [pytest.mark.shared, pytest.mark.long]


def ignore(_stage: str, _done: float) -> None:
    pass


# -------------------------------------------------------------------------------------- directories


def test_the_registry_loads_a_trusted_directory(directory: Path, tmp_path: Path) -> None:
    trust_directory(tmp_path, directory)
    assert load_engine("pyannote", data_dir=tmp_path, device="cpu", pipeline_dir=directory).info.model == "seeded"


def test_an_empty_directory_says_how_to_get_a_pipeline(tmp_path: Path) -> None:
    with pytest.raises(PipelineUnusable, match="omi-agent fetch-model pyannote"):
        load_pyannote(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("embedding: $model/embedding", "embedding: pyannote/embedding"), "outside its directory"),
        (("plda: $model/plda", "plda: $model/elsewhere"), "elsewhere is missing"),
        (("SpeakerDiarization", "VoiceActivityDetection"), "no other pipeline"),
        (("dependencies:", "dependencies: [}"), "cannot be read as YAML"),
    ],
)
def test_a_config_that_cannot_be_used_is_named_with_the_remedy(
    directory: Path, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(directory, copied)
    config = (copied / "config.yaml").read_text()
    assert change[0] in config
    (copied / "config.yaml").write_text(config.replace(*change))
    with pytest.raises(PipelineUnusable, match=says):
        load_pyannote(copied, device="cpu")


def test_a_truncated_checkpoint_is_an_error_that_names_the_directory(directory: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(directory, copied)
    checkpoint = copied / "embedding/pytorch_model.bin"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1_000_000])
    with pytest.raises(PipelineUnusable, match="copied cannot be loaded"):
        load_pyannote(copied, device="cpu")


# ------------------------------------------------------------------------------------------- device


def test_a_device_that_is_not_here_is_refused_by_name() -> None:
    with pytest.raises(DeviceUnavailable, match="Choose device 'cpu' or 'auto'"):
        choose_device("nonsense")


class RepeatedAnswer:
    """An engine that gives the answer it gave before, in no time."""

    def __init__(self, engine: PyannoteEngine, answer: Diarization) -> None:
        self.info, self._answer = engine.info, answer

    def diarize(self, _waveform: Waveform, _hints: Hints, _report: Any) -> Diarization:
        return self._answer


class EngineOnBrokenDevice:
    """An engine on a device that shifts all turns by some time, or raises."""

    def __init__(self, engine: RepeatedAnswer, *, shift_s: float = 0.0, error: Exception | None = None) -> None:
        self._engine, self._shift_s, self._error = engine, shift_s, error
        self.info = replace(engine.info, device="broken")

    def diarize(self, waveform: Waveform, hints: Hints, report: Any) -> Diarization:
        if self._error:
            raise self._error
        found = self._engine.diarize(waveform, hints, report)
        shifted = [replace(t, start_s=t.start_s + self._shift_s, end_s=t.end_s + self._shift_s) for t in found.turns]
        return replace(found, turns=tuple(shifted))


def test_the_self_test_accepts_a_frame_and_refuses_more(exact: PyannoteEngine) -> None:
    clip = load_clip(12.0)
    assert len(clip) == 12 * 16_000
    assert agrees_with_cpu(exact, exact, clip)
    again = RepeatedAnswer(exact, exact.diarize(clip, Hints(), ignore))
    assert agrees_with_cpu(again, EngineOnBrokenDevice(again, shift_s=FRAME_S), clip)
    assert not agrees_with_cpu(again, EngineOnBrokenDevice(again, shift_s=0.05), clip)
    assert not agrees_with_cpu(again, EngineOnBrokenDevice(again, error=RuntimeError("no kernel")), clip)


@pytest.mark.slow
def test_a_refused_device_costs_the_device_and_its_verdict_and_says_so(directory: Path) -> None:
    # torch's `meta` device computes shapes but no values: the networks load on it, and running them fails.
    def choose(device: str) -> ModeChoice:
        return ModeChoice("stretch", "qualified") if device == "meta" else ModeChoice("exact", f"not on {device}")

    engine = load_pyannote(directory, device="meta", mode=choose)
    assert engine.info.device == "cpu (meta refused)"
    assert (engine.info.mode, engine.info.mode_reason) == ("exact", "not on cpu")
    assert engine.diarize(load_clip(10.0), Hints(), ignore).turns
