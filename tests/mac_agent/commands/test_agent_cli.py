"""The commands of `omi-agent`, run as a user types them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from broker.settings import BrokerSettings
from mac_agent.errors import EngineError
from mac_agent.rttm import read_rttm
from mac_agent.settings import AgentSettings, default_agent_id
from mac_agent.weights.models import EMBEDDED, GENERATIONS, verified_path
from schemas.record import is_id
from tests.brokers import AGENT_ID, run_mosquitto
from tests.inbox import WAIT_S, eventually
from tests.mac_agent.agent_command import omi_agent
from tests.mac_agent.small_bridge import SmallBridge
from tests.mac_agent.sounds import as_wav, tone

ROOT = Path(__file__).parents[3]
EXIT_USAGE, EXIT_NO_ENGINE, EXIT_AUDIO = 2, 4, 5


@pytest.fixture
def weights_dir() -> Path:
    """The data directory that holds the weights of the embedded engine."""
    data_dir = BrokerSettings().data_dir
    try:
        for weights in GENERATIONS[EMBEDDED]:
            verified_path(data_dir, weights)
    except EngineError:
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
    return data_dir


@pytest.fixture
def recording() -> Path:
    """Half a minute of a telephone call, which comes with pyannote.audio."""
    spec = find_spec("pyannote.audio.sample")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "sample.wav"


@pytest.mark.parametrize("command", [(), ("run",), ("diarize",), ("fetch-model",), ("config",), ("engines",)])
def test_every_command_has_help_with_an_example(command, tmp_path):
    shown = omi_agent(*command, "--help", data_dir=tmp_path)
    assert shown.returncode == 0
    assert "omi-agent" in shown.stdout.split("Options")[0]


def test_help_does_not_wait_for_torch():
    heavy = ("torch", "pyannote", "matplotlib")
    script = f"import sys, mac_agent.commands.main; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_settings_are_shown_with_their_source_and_without_secrets(tmp_path):
    shown = omi_agent("config", "--json", data_dir=tmp_path, OMI_AGENT_ID="studio", OMI_BROKER_USERNAME="u",
                      OMI_BROKER_PASSWORD="hush")  # fmt: skip
    assert "hush" not in shown.stdout + shown.stderr
    rows = json.loads(shown.stdout)
    assert rows["agent_id"]["value"] == "studio"
    assert "OMI_AGENT_ID" in rows["agent_id"]["source"]
    assert all(row["description"] for row in rows.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMI_AGENT_ID", "a.b"), ("OMI_PART_BYTES", "1"), ("OMI_RETRY_MAX_S", "1"), ("OMI_MAX_JOBS", "x")],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path, name, value):
    refused = omi_agent("run", data_dir=tmp_path, **{name: value})
    assert refused.returncode == EXIT_USAGE
    assert len(refused.stderr.strip().splitlines()) == 1
    assert name.removeprefix("OMI_").lower() in refused.stderr


@pytest.mark.parametrize("option", ["engine", "device"])
def test_an_empty_engine_or_device_is_refused_before_anything_starts(tmp_path, option):
    refused = omi_agent("run", f"--{option}", "", data_dir=tmp_path)
    assert refused.returncode == EXIT_USAGE
    assert len(refused.stderr.strip().splitlines()) == 1
    assert f"setting {option}" in refused.stderr


def test_the_default_name_may_stand_in_a_topic(monkeypatch):
    for hostname in ("Anna's MacBook Pro.local", "büro", "...", "-x-", "mac.tail1234.ts.net", "a" * 300):
        monkeypatch.setattr("socket.gethostname", lambda name=hostname: name)
        assert is_id(default_agent_id())
        assert is_id(AgentSettings().agent_id)


def test_an_engine_without_weights_says_how_to_get_them(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(as_wav(tone(300, 1)))
    refused = omi_agent("diarize", file, data_dir=tmp_path)
    assert refused.returncode == EXIT_NO_ENGINE
    assert "omi-agent fetch-model embedded" in refused.stderr
    listed = json.loads(omi_agent("engines", "--json", data_dir=tmp_path).stdout)
    assert {row["engine"]: row["ready"] for row in listed}["embedded"] is False


def test_an_unknown_engine_is_refused_with_the_known_ones(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(as_wav(tone(300, 1)))
    refused = omi_agent("diarize", file, "--engine", "magic", data_dir=tmp_path)
    assert refused.returncode == EXIT_NO_ENGINE
    assert "embedded" in refused.stderr


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    refused = omi_agent("diarize", tmp_path / "none.wav", data_dir=tmp_path)
    assert refused.returncode == EXIT_USAGE
    assert "none.wav" in refused.stderr


def test_a_file_that_is_no_audio_is_refused(tmp_path, weights_dir):
    file = tmp_path / "a.wav"
    file.write_text("dear diary")
    refused = omi_agent("diarize", file, "--engine", "embedded", data_dir=weights_dir)
    assert refused.returncode == EXIT_AUDIO
    assert "audio.undecodable" in refused.stderr


def test_a_recording_is_diarized_written_and_drawn(tmp_path, weights_dir, recording):
    rttm, plot = tmp_path / "out.rttm", tmp_path / "out.png"
    done = omi_agent(
        "diarize", recording, "--json", "--max-speakers", "4", "--rttm", rttm, "--plot", plot,
        "--reference", recording.with_suffix(".rttm"), "--engine", "embedded", data_dir=weights_dir,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["duration_s"] == pytest.approx(30.0, abs=0.1)
    assert len(found["speakers"]) == 2
    assert found["engine"]["name"] == "embedded"
    written = [(round(turn.start_s, 2), turn.speaker) for turn in read_rttm(rttm.read_text().splitlines())]
    assert written == [(round(turn["start_s"], 2), turn["speaker"]) for turn in found["turns"]]
    assert plot.stat().st_size > 10_000


@pytest.mark.long
def test_run_works_on_a_recording_for_a_bridge_and_stops_on_sigterm(tmp_path, weights_dir, recording):
    (tmp_path / "agent" / "models").mkdir(parents=True)
    (tmp_path / "agent" / "models" / "embedded").symlink_to(weights_dir / "models" / "embedded")
    with run_mosquitto(tmp_path) as broker, contextlib.ExitStack() as stack:
        bridge = stack.enter_context(SmallBridge(broker.settings("bridge")))
        environment = broker.environment("agent") | {
            "OMI_AGENT_ID": AGENT_ID,
            "OMI_DATA_DIR": str(tmp_path / "agent"),
            "OMI_HEARTBEAT_S": "0.5",
        }
        agent = subprocess.Popen([sys.executable, "-m", "mac_agent.commands.main", "run"], env=environment, cwd=ROOT)
        stack.callback(agent.wait)
        stack.callback(agent.kill)
        online = bridge.beats.wait_for(lambda beat: beat.message.free_capacity > 0, timeout_s=WAIT_S).message
        assert online.engine is not None
        assert online.engine.name == "embedded"
        audio = recording.read_bytes()
        bridge.offer("job-1", audio, audio, max_speakers=2)
        turns = bridge.turns.wait_for(lambda turns: turns.job_id == "job-1", timeout_s=WAIT_S)
        assert turns.duration_s == pytest.approx(60.0, abs=0.1)
        assert len(turns.speakers) == 2
        assert all(voice.embedding for voice in turns.speakers)
        assert turns.engine.embedding_model == online.engine.embedding_model
        children = psutil.Process(agent.pid).children(recursive=True)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(WAIT_S) == 0
        eventually(lambda: not any(child.is_running() for child in children))
        bridge.wait_beat(lambda beat: beat.message.state.value == "stopped")


def spent_s(process: psutil.Process) -> float:
    """Processor time of a process so far: after a few seconds a worker has loaded its engine and is at work."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cpu_times().user
    return 0.0


@pytest.mark.long
def test_ctrl_c_during_diarize_leaves_no_worker(tmp_path, weights_dir):
    file = tmp_path / "long.wav"
    file.write_bytes(as_wav(tone(300, 1200)))
    process = subprocess.Popen(
        [sys.executable, "-m", "mac_agent.commands.main", "diarize", file],
        cwd=ROOT,
        env={**os.environ, "OMI_DATA_DIR": str(weights_dir), "OMI_ENGINE": "embedded"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        # A shell makes a program that it starts with `&` ignore Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
    )
    eventually(lambda: any(spent_s(child) > 4 for child in psutil.Process(process.pid).children(recursive=True)))
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(WAIT_S) != 0
    eventually(lambda: not any(child.is_running() for child in children))
