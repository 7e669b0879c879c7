"""A pipeline of one's own, as the agent uses it: loaded only when trusted and unchanged, and without any network.

Every connection of every process is noted: by an audit hook that each Python process installs before anything else,
and from outside, where the kernel lists sockets that compiled code may have opened.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from broker.settings import BrokerSettings
from mac_agent.errors import EngineError
from mac_agent.weights.models import EMBEDDED, GENERATIONS, verified_path
from tests.brokers import AGENT_ID, run_mosquitto
from tests.inbox import WAIT_S, eventually
from tests.mac_agent.small_bridge import SmallBridge

ROOT = Path(__file__).parents[2]
EXIT_NO_ENGINE = 4
pytestmark = pytest.mark.slow
HOOK = """
import os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        where = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        with open(os.path.join({folder!r}, str(os.getpid())), "a") as file:
            file.write(f"{{event}} {{where!r}}\\n")

open(os.path.join({folder!r}, str(os.getpid())), "a").close()
sys.addaudithook(note)
"""


def recording() -> Path:
    """Half a minute of a telephone call that pyannote.audio brings along."""
    spec = find_spec("pyannote")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or []))) / "audio" / "sample" / "sample.wav"


@pytest.fixture
def own(tmp_path, shared_dir):
    """A pipeline directory of real size: real segmentation and PLDA, a speaker network under a fixed seed."""
    directory = tmp_path / "own"
    subprocess.run([sys.executable, "-m", "benchmarks.local_pipeline", directory], cwd=ROOT, check=True, timeout=WAIT_S)
    return directory


def omi_agent(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mac_agent.commands.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


@pytest.mark.shared
def test_a_local_pipeline_is_loaded_once_trusted_and_refused_once_changed(own, tmp_path):
    settings = {"OMI_DATA_DIR": str(tmp_path / "data"), "OMI_PIPELINE_DIR": str(own), "OMI_ENGINE": "pyannote"}
    untrusted = omi_agent("diarize", recording(), "--json", **settings)
    assert untrusted.returncode == EXIT_NO_ENGINE
    assert f"omi-agent trust {own}" in untrusted.stderr
    assert omi_agent("trust", own, **settings).returncode == 0
    done = omi_agent("diarize", recording(), "--json", **settings)
    assert done.returncode == 0, done.stderr
    assert '"name": "pyannote"' in done.stdout
    with (own / "plda" / "plda.npz").open("ab") as file:
        file.write(b"x")
    changed = omi_agent("diarize", recording(), "--json", **settings)
    assert changed.returncode == EXIT_NO_ENGINE
    assert "plda/plda.npz" in changed.stderr


@pytest.fixture(params=["embedded", pytest.param("pyannote", marks=pytest.mark.shared)])
def engine_settings(request, tmp_path):
    """The variables with which an agent finds its engine and the weights of it."""
    if request.param == "pyannote":
        own = request.getfixturevalue("own")
        assert omi_agent("trust", own, OMI_DATA_DIR=str(tmp_path / "agent")).returncode == 0
        return {"OMI_ENGINE": "pyannote", "OMI_PIPELINE_DIR": str(own)}
    weights_dir = BrokerSettings().data_dir
    try:
        for weights in GENERATIONS[EMBEDDED]:
            verified_path(weights_dir, weights)
    except EngineError:
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
    return {"OMI_ENGINE": "embedded", "OMI_WEIGHTS_DIR": str(weights_dir)}


def remote_addresses(processes: list[psutil.Process]) -> set[tuple[object, ...]]:
    """Where these processes are connected to; paho wakes its own thread through a pair of sockets, which is nowhere."""
    ours: set[tuple[object, ...]] = set()
    theirs: set[tuple[object, ...]] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            for each in process.net_connections("inet"):
                ours.add(tuple(each.laddr))
                theirs.add(tuple(each.raddr))
    return theirs - ours - {()}


def test_a_running_agent_connects_to_its_broker_and_to_nobody_else(engine_settings, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK.format(folder=str(notes)))
    with run_mosquitto(tmp_path) as broker, SmallBridge(broker.settings("bridge")) as bridge:
        environment = broker.environment("agent") | {
            "OMI_AGENT_ID": AGENT_ID,
            "OMI_DATA_DIR": str(tmp_path / "agent"),
            "OMI_HEARTBEAT_S": "0.5",
            "PYTHONPATH": str(tmp_path / "hook"),
            **engine_settings,
        }
        for name in ("HF_HUB_OFFLINE", "PYANNOTE_METRICS_ENABLED"):
            environment.pop(name, None)
        agent = subprocess.Popen([sys.executable, "-m", "mac_agent.commands.main", "run"], env=environment, cwd=ROOT)
        try:
            bridge.beats.wait_for(lambda beat: beat.message.free_capacity > 0, timeout_s=WAIT_S)
            bridge.offer("job-1", recording().read_bytes(), max_speakers=2)
            ours = psutil.Process(agent.pid)
            seen: set[tuple[object, ...]] = set()

            def is_done() -> bool:
                seen.update(remote_addresses([ours, *ours.children(recursive=True)]))
                return any(turns.job_id == "job-1" for turns in bridge.turns.items)

            eventually(is_done)
        finally:
            agent.terminate()
            agent.wait(WAIT_S)
    port = int(broker.url.rpartition(":")[2])
    assert seen == {("127.0.0.1", port)}
    lines = {line for file in notes.iterdir() for line in file.read_text().splitlines()}
    assert f"socket.connect ('127.0.0.1', {port})" in lines  # the hook does note
    assert len(list(notes.iterdir())) >= 2  # and it is in the worker too
    # What is left is loopback, or a path: a Unix socket between our own processes.
    assert {line for line in lines if "'127.0.0.1'" not in line and not line.startswith("socket.connect '")} == set()
