"""SIGTERM with work in flight: of the agent, and of the bridge. Nothing is lost, and it costs no attempt."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.conversation import EventType
from tests.brokers import RunningBroker, run_mosquitto
from tests.faults.tone_process import ToneAgent, tone_agent
from tests.inbox import WAIT_S
from tests.mac_agent.sounds import as_wav, tone
from tests.vps_bridge.live_bridge import STARTED_AT, Backend, LiveBridge, run_bridge, wait_until

CALL = as_wav(tone(300, 8))
LONG_S = "600"  # for stale and grace: what happens sooner has another cause


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    with run_mosquitto(tmp_path, agent_ids=("mac", "other")) as running:
        yield running


@pytest.fixture
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()


@pytest.fixture
def bridge(broker: RunningBroker, backend: Backend, tmp_path: Path) -> Iterator[LiveBridge]:
    options = {"OMI_STALE_S": LONG_S, "OMI_GRACE_S": LONG_S}
    with run_bridge(broker, tmp_path / "vps", backend, **options) as running:
        running.allow("mac", "other")
        yield running


@pytest.fixture
def mac(broker: RunningBroker, tmp_path: Path) -> Iterator[ToneAgent]:
    with tone_agent(broker, "mac", tmp_path / "mac", tmp_path) as agent:
        yield agent


@pytest.fixture
def other(broker: RunningBroker, tmp_path: Path) -> Iterator[ToneAgent]:
    with tone_agent(broker, "other", tmp_path / "other", tmp_path) as agent:
        yield agent


def send(backend: Backend, conversation_id: str) -> None:
    backend.event(conversation_id, EventType.STARTED, started_at=STARTED_AT)
    backend.audio(conversation_id, CALL, captured_at=STARTED_AT)
    backend.event(conversation_id, EventType.COMPLETED, chunks=1)


def test_a_stopped_agent_hands_its_job_back_and_another_finishes_it_at_once(
    backend: Backend, bridge: LiveBridge, mac: ToneAgent, other: ToneAgent
) -> None:
    mac.start(behaviour="hold")
    send(backend, "call")
    wait_until(lambda: b"job runs" in mac.log_file.read_bytes(), "the job to run")
    assert mac.stop() == 0
    assert list((mac.data_dir / "inbox").glob("*.audio")) == []
    other.start()
    assert backend.wait_updated("call").speakers == 1
    (job,) = bridge.jobs("call")
    assert (job["state"], job["agent_id"], job["attempts"], job["deaths"]) == ("done", "other", 0, 0)


def test_a_closed_terminal_ends_agent_and_bridge_in_order(backend: Backend, bridge: LiveBridge, mac: ToneAgent) -> None:
    """SIGHUP goes to all processes of a terminal, the agent's worker too."""
    mac.start(behaviour="hold")
    send(backend, "call")
    wait_until(lambda: b"job runs" in mac.log_file.read_bytes(), "the job to run")
    for process in (*psutil.Process(mac.pid).children(recursive=True), psutil.Process(mac.pid)):
        process.send_signal(signal.SIGHUP)
    assert mac.process is not None
    assert mac.process.wait(WAIT_S) == 0
    (job,) = wait_until(lambda: [job for job in bridge.jobs("call") if job["state"] == "ready"], "the job to be back")
    assert (job["attempts"], job["deaths"]) == (0, 0)
    assert bridge.process is not None
    bridge.process.send_signal(signal.SIGHUP)
    assert bridge.process.wait(WAIT_S) == 0
    wait_until(lambda: backend.seen(BridgeHeartbeat)[-1].state is BridgeState.STOPPED, "its farewell")


def test_a_bridge_stopped_with_work_in_flight_goes_on_where_it_was(
    backend: Backend, bridge: LiveBridge, mac: ToneAgent
) -> None:
    mac.start(behaviour="hold")
    send(backend, "running")
    wait_until(lambda: b"job runs" in mac.log_file.read_bytes(), "the job to run")
    send(backend, "waiting")
    assert bridge.stop() == 0
    mac.behaviour.write_text("")
    bridge.start(backend)
    for name in ("running", "waiting"):
        assert backend.wait_updated(name).speakers == 1
        (job,) = bridge.jobs(name)
        assert (job["state"], job["attempts"], job["deaths"]) == ("done", 0, 0)
