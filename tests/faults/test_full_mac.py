"""The Mac's disk is full: no attempt is counted, no result is lost, and all goes on once there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.agent import AgentHeartbeat
from schemas.conversation import EventType
from schemas.failure import FailureCode
from tests.brokers import RunningBroker, run_mosquitto
from tests.faults.small_disk import SmallDisk, mount_small_disk
from tests.faults.tone_process import ToneAgent, tone_agent
from tests.mac_agent.sounds import as_wav, tone
from tests.vps_bridge.live_bridge import STARTED_AT, Backend, LiveBridge, run_bridge, wait_until

CALL = as_wav(tone(300, 8))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mount_small_disk(tmp_path / "mac", 4 * 2**20) as small:
        yield small


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    with run_mosquitto(tmp_path, agent_ids=("mac",)) as running:
        yield running


@pytest.fixture
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()


@pytest.fixture
def bridge(broker: RunningBroker, backend: Backend, tmp_path: Path) -> Iterator[LiveBridge]:
    with run_bridge(broker, tmp_path / "vps", backend) as running:
        running.allow("mac")
        yield running


@pytest.fixture
def agent(broker: RunningBroker, disk: SmallDisk, tmp_path: Path) -> Iterator[ToneAgent]:
    with tone_agent(broker, "mac", disk.path / "data", tmp_path) as made:
        yield made


def send(backend: Backend, conversation_id: str) -> None:
    backend.event(conversation_id, EventType.STARTED, started_at=STARTED_AT)
    backend.audio(conversation_id, CALL, captured_at=STARTED_AT)
    backend.event(conversation_id, EventType.COMPLETED, chunks=1)


def last_beat(backend: Backend) -> AgentHeartbeat | None:
    beats = backend.beats_of("mac")
    return beats[-1] if beats else None


def notes(backend: Backend) -> dict[str, str]:
    beat = last_beat(backend)
    return dict(beat.notes) if beat else {}


def wait_beat(backend: Backend, what: str, **fields: object) -> None:
    def is_reported() -> bool:
        beat = last_beat(backend)
        return beat is not None and all(getattr(beat, name) == value for name, value in fields.items())

    wait_until(is_reported, what)


def test_audio_that_finds_no_room_is_handed_back_without_an_attempt_until_there_is(
    backend: Backend, bridge: LiveBridge, agent: ToneAgent, disk: SmallDisk
) -> None:
    agent.start()
    wait_beat(backend, "the agent", state="online")
    disk.fill()
    send(backend, "call")
    failure = wait_until(lambda: backend.failures("call"), "the job to be handed back")[0]
    assert (failure.code, failure.retryable) == (FailureCode.DISK_FULL, True)
    assert "Make room on the agent's disk" in failure.message
    wait_beat(backend, "no capacity while the disk is full", free_capacity=0)
    assert "full" in notes(backend)["disk"]
    assert agent.is_alive

    disk.make_room()
    assert backend.wait_updated("call").speakers == 1
    (job,) = bridge.jobs("call")
    assert (job["state"], job["attempts"]) == ("done", 0)
    wait_until(lambda: "disk" not in notes(backend), "its capacity again")


def test_a_result_that_finds_no_room_reaches_the_bridge_from_memory(
    backend: Backend, bridge: LiveBridge, agent: ToneAgent, disk: SmallDisk
) -> None:
    agent.start(behaviour="hold")
    wait_beat(backend, "the agent", state="online")
    send(backend, "call")
    wait_until(lambda: b"job runs" in agent.log_file.read_bytes(), "the job to run")
    wait_until(lambda: not list((agent.data_dir / "inbox").glob("*.audio")), "the audio to be decoded")
    disk.fill()
    bridge.stop()  # so that the result is not settled
    agent.behaviour.write_text("")
    wait_until(lambda: b"results are kept in memory" in agent.log_file.read_bytes(), "the result in memory")
    bridge.start(backend)
    assert backend.wait_updated("call").speakers == 1
    assert agent.is_alive
    (job,) = bridge.jobs("call")
    assert (job["state"], job["attempts"]) == ("done", 0)
    send(backend, "next")
    disk.make_room()
    assert backend.wait_updated("next").speakers == 1
