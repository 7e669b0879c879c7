"""`omi-agent qualify` as a person types it, and how the agent uses the verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from broker.check import CheckState
from mac_agent.agent import is_running
from mac_agent.audio import decode
from mac_agent.commands.main import app
from mac_agent.engines.engine import SAMPLE_RATE_HZ
from mac_agent.machine_check import check_mode
from mac_agent.qualify import LATENCY_LIMITS, cut_or_repeat, make_latency_clips
from mac_agent.settings import AgentSettings
from mac_agent.weights.hub import copy_pipeline
from mac_agent.weights.pipelines import trust_directory
from mac_agent.weights.verdict import (
    EXACT,
    STRETCH,
    Comparison,
    StretchVerdict,
    describe_circumstances,
    judge,
    write_verdict,
)
from tests.brokers import AGENT_ID
from tests.inbox import WAIT_S
from tests.mac_agent.agent_command import omi_agent as run_agent
from tests.mac_agent.small_hub import PIPELINE_FILES
from tests.mac_agent.sounds import as_wav, tone

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
EXIT_NO_ENGINE, EXIT_AUDIO, EXIT_NOT_QUALIFIED = 4, 5, 6
omi_agent = partial(run_agent, timeout_s=WAIT_S)


@pytest.fixture
def hollow(tmp_path) -> Path:
    """A directory with every file of a pipeline, none of which holds weights."""
    directory = tmp_path / "hollow"
    for name, content in PIPELINE_FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def keep_passing_verdict(settings: AgentSettings, directory: Path) -> StretchVerdict:
    manifest = trust_directory(settings.weights, directory).manifest
    verdict = judge(
        [
            Comparison(
                recording="a", audio_s=60, speech_s=50, error_s=0, changed_s=0, cosines=(0.999,), exact_s=9, stretch_s=3
            )
        ],
        ran=((EXACT, "cpu"), (STRETCH, "cpu")),
        circumstances=describe_circumstances(manifest, "cpu"),
        manifest=manifest,
        measured_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    assert verdict.passed
    write_verdict(settings.verdicts, verdict)
    return verdict


# -------------------------------------------------------------------------------- before anything is run


def test_without_weights_it_names_the_command_that_fetches_them(tmp_path):
    refused = omi_agent("qualify", data_dir=tmp_path)
    assert refused.returncode == EXIT_NO_ENGINE
    assert "omi-agent fetch-model pyannote" in refused.stderr


def test_a_pipeline_nobody_trusted_is_not_loaded(tmp_path, hollow):
    refused = omi_agent("qualify", "--pipeline", hollow, data_dir=tmp_path)
    assert refused.returncode == EXIT_NO_ENGINE
    assert f"omi-agent trust {hollow}" in refused.stderr


def test_a_file_that_cannot_be_decoded_is_named_before_minutes_of_work(tmp_path, hollow):
    copy_pipeline(tmp_path, hollow)
    bad = tmp_path / "lunch.wav"
    bad.write_bytes(b"no audio at all")
    refused = omi_agent("qualify", bad, data_dir=tmp_path)
    assert refused.returncode == EXIT_AUDIO
    assert "lunch.wav" in refused.stderr
    assert "audio.undecodable" in refused.stderr


def test_a_pipeline_that_cannot_be_loaded_leaves_no_verdict(tmp_path, hollow):
    copy_pipeline(tmp_path, hollow)
    refused = omi_agent("qualify", "--no-latency", data_dir=tmp_path)
    assert refused.returncode == EXIT_NO_ENGINE
    assert "config.yaml" in refused.stderr
    assert not (tmp_path / "verdicts").exists()


def test_an_agent_at_work_beside_it_is_noticed(tmp_path):
    assert not is_running(tmp_path)
    with FileLock(tmp_path / "agent.lock"):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)


# ------------------------------------------------------------------------------------- promised lengths


def test_a_promised_length_is_cut_from_a_recording_that_has_it_else_all_are_repeated():
    waveforms = {"/x/short.wav": tone(300, 2), "/x/long.wav": tone(500, 7)}
    cut, source = cut_or_repeat(waveforms, 5.0)
    assert np.array_equal(cut, tone(500, 7)[: 5 * SAMPLE_RATE_HZ])
    assert source == "the beginning of long.wav"
    joined, source = cut_or_repeat(waveforms, 9.0)
    assert joined.size == 9 * SAMPLE_RATE_HZ
    assert source == "all recordings, one after the other"
    repeated, source = cut_or_repeat(waveforms, 20.0)
    assert repeated.size == 20 * SAMPLE_RATE_HZ
    assert np.array_equal(repeated[: joined.size], repeated[joined.size : 2 * joined.size])
    assert "repeated" in source


def test_promised_lengths_are_written_as_they_will_be_decoded(tmp_path):
    clips, made_of = make_latency_clips({"/x/loud.wav": 3 * tone(300, 31)}, tmp_path)
    assert [clip.audio_s for clip in clips] == [audio_s for audio_s, _ in LATENCY_LIMITS] == [30.0, 60.0, 300.0]
    assert made_of[0] == "30 s: the beginning of loud.wav"
    for clip in clips:
        with clip.path.open("rb") as stream:
            decoded = decode(stream, max_s=600.0)
        assert decoded.duration_s == clip.audio_s
        assert np.abs(decoded.waveform).max() == pytest.approx(1.0, abs=1e-3)


# -------------------------------------------------------------------------- how the verdict is then used


def test_doctor_says_which_mode_runs_and_why(tmp_path, hollow):
    settings = AgentSettings(data_dir=tmp_path / "data", pipeline_dir=hollow, device="cpu")
    trust_directory(settings.weights, hollow)
    found = check_mode(settings)
    assert found.verdict is CheckState.OK
    assert found.found.startswith("exact: stretch was not qualified for this pipeline on cpu")
    verdict = keep_passing_verdict(settings, hollow)
    assert check_mode(settings).found.startswith("stretch: stretch passed on 2026-11-22")
    older = verdict.circumstances.model_copy(update={"torch": "2.8.0"})
    write_verdict(settings.verdicts, verdict.model_copy(update={"circumstances": older}))
    assert "exact: the verdict of 2026-11-22 is stale: torch was 2.8.0" in check_mode(settings).found


@pytest.fixture(scope="module")
def seeded(tmp_path_factory, shared_dir) -> Path:
    """A pipeline of real size: real segmentation and PLDA, a speaker network under a fixed seed."""
    directory = tmp_path_factory.mktemp("pipelines") / "seeded"
    command = [sys.executable, "-m", "benchmarks.local_pipeline", directory]
    subprocess.run(command, cwd=ROOT, check=True)
    return directory


@pytest.mark.slow
@pytest.mark.shared
def test_seeded_weights_do_not_pass_and_the_agent_goes_on_with_exact(tmp_path, seeded, monkeypatch):
    monkeypatch.setattr("mac_agent.qualify.LATENCY_LIMITS", ((3.0, 1e6), (6.0, 1e-6), (50.0, 1e6)))
    monkeypatch.setenv("OMI_PIPELINE_DIR", str(seeded))
    monkeypatch.setenv("OMI_DEVICE", "cpu")
    monkeypatch.setenv("OMI_DATA_DIR", str(tmp_path))
    speech = tmp_path / "beep.wav"
    speech.write_bytes(as_wav(tone(300, 12)))
    trust_directory(tmp_path, seeded)
    done = CliRunner().invoke(app, ["qualify", str(speech), "--json"])
    assert done.exit_code == EXIT_NOT_QUALIFIED, done.output
    found = json.loads(done.stdout)
    verdict = found["verdict"]
    assert [each["recording"] for each in verdict["comparisons"]] == ["sample.wav", "beep.wav"]
    assert 20 < verdict["comparisons"][0]["speech_s"] < 30
    assert not verdict["passed"]
    assert any("cosine" in reason for reason in verdict["reasons"])  # of an untrained network: docs/adr/0003
    assert 0 < verdict["least_cosine"] < 0.98
    assert verdict["der"] < 0.05
    assert [(each["mode"], each["audio_s"], each["is_kept"]) for each in found["latencies"]] == [
        (mode, audio_s, is_kept)
        for mode in ("exact", "stretch")
        for audio_s, is_kept in ((3.0, True), (6.0, False), (50.0, True))
    ]
    assert "repeated" in found["promised_audio"][2]
    assert Path(found["file"]).is_file()
    assert {file["path"] for file in verdict["files"]} >= {"config.yaml", "embedding/pytorch_model.bin"}
    shown = json.loads(omi_agent("diarize", speech, "--json", data_dir=tmp_path).stdout)["engine"]
    assert (shown["name"], shown["mode"]) == ("pyannote", "exact")
    assert "did not pass" in shown["mode_reason"]


@pytest.mark.slow
@pytest.mark.shared
def test_an_agent_with_a_passing_verdict_runs_stretch_and_says_so(tmp_path, seeded, mosquitto, small_bridge):
    keep_passing_verdict(AgentSettings(data_dir=tmp_path / "agent"), seeded)
    bridge = small_bridge(mosquitto)
    environment = mosquitto.environment("agent") | {
        "OMI_AGENT_ID": AGENT_ID,
        "OMI_DATA_DIR": str(tmp_path / "agent"),
        "OMI_PIPELINE_DIR": str(seeded),
        "OMI_DEVICE": "cpu",
    }
    agent = subprocess.Popen([sys.executable, "-m", "mac_agent.commands.main", "run"], env=environment, cwd=ROOT)
    try:
        online = bridge.beats.wait_for(lambda beat: beat.message.free_capacity > 0, timeout_s=WAIT_S).message
        assert (online.engine.name, online.engine.mode) == ("pyannote", "stretch")
        assert online.notes["engine"] == "auto: its pipeline is set"
        assert "stretch passed on 2026-11-22" in online.notes["mode"]
        assert online.memory.worker_rss_bytes > online.memory.device_bytes == 0
        bridge.offer("job-1", as_wav(tone(300, 12)))
        turns = bridge.turns.wait_for(lambda turns: turns.job_id == "job-1", timeout_s=WAIT_S)
        assert turns.engine.mode == "stretch"
    finally:
        agent.terminate()
        agent.wait(WAIT_S)
