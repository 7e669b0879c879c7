"""With a full disk on the VPS new audio is refused, accepted audio is kept, and all goes on once there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import Accepted, ConversationEvent, EventType, TranscriptSegment, Verdict
from schemas.failure import FailureCode
from tests.brokers import RunningBroker, run_mosquitto
from tests.faults.small_disk import SmallDisk, mount_small_disk
from tests.vps_bridge.live_bridge import (
    CALL_TURNS,
    TOPICS,
    Backend,
    LiveBridge,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav

DISK_BYTES, BALLAST_BYTES = 16 * 2**20, 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mount_small_disk(tmp_path / "disk", DISK_BYTES) as small:
        yield small


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    """A broker whose files are on another disk."""
    with run_mosquitto(tmp_path, agent_ids=("first",)) as running:
        yield running


@pytest.fixture
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()


@pytest.fixture
def bridge(broker: RunningBroker, backend: Backend, disk: SmallDisk) -> Iterator[LiveBridge]:
    """A bridge with its ledger, spool, store and log on the small disk."""
    with run_bridge(broker, disk.path / "data", backend, OMI_BALLAST_BYTES=str(BALLAST_BYTES)) as running:
        running.allow("first")
        yield running


def ballast(bridge: LiveBridge) -> Path:
    return bridge.data_dir / "bridge" / "ballast"


def is_alive(bridge: LiveBridge) -> bool:
    return bridge.process is not None and bridge.process.poll() is None


def wait_accepted(backend: Backend, conversation_id: str, audio: bytes) -> None:
    """Send the same chunk again, as a publisher does, until it is accepted."""

    def is_accepted() -> bool:
        return backend.audio(conversation_id, audio, chunk_id="c1").verdict is Verdict.ACCEPTED

    wait_until(is_accepted, "room for the chunk")


def test_on_a_full_vps_audio_is_refused_while_results_and_deletions_go_on(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, disk: SmallDisk
) -> None:
    for name in ("kept", "unwanted"):
        backend.send_call(name)
    assert ballast(bridge).stat().st_size == BALLAST_BYTES
    disk.fill()
    wait_until(lambda: not backend.seen(BridgeHeartbeat)[-1].accepting, "the beat that says so")
    assert "omi-bridge purge" in (backend.seen(BridgeHeartbeat)[-1].last_error or "")
    late = make_wav(30.0, tone=7)
    refused = backend.audio("late", late, chunk_id="c1")
    assert (refused.verdict, refused.reason) == (Verdict.REFUSED, FailureCode.DISK_FULL)
    (failure,) = wait_until(lambda: backend.failures("late"), "the failure operators see")
    assert failure.retryable

    with ScriptedAgent(broker, "first") as agent:
        offer = agent.wait_offer("kept")
        assert len(agent.pull(offer)) == 1, "accepted audio must be kept"
        agent.answer(offer, CALL_TURNS)
        assert backend.wait_updated("kept").speakers == 2
        deleted = backend.event("unwanted", EventType.DELETED)
        assert deleted.verdict is Verdict.ACCEPTED
        assert is_alive(bridge)

        disk.make_room()
        wait_accepted(backend, "late", late)
        wait_until(lambda: ballast(bridge).exists(), "the ballast")
        backend.event("late", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("late"), CALL_TURNS)
        assert backend.wait_updated("late").speakers == 2
    assert {call["conversation_id"] for call in bridge.json("conversations")} == {"kept", "late"}


def test_where_not_even_the_ballast_is_left_nothing_is_receipted_and_room_heals_it(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, disk: SmallDisk
) -> None:
    backend.send_call("kept")
    with ScriptedAgent(broker, "first") as agent:
        offer = agent.wait_offer("kept")
        disk.fill()
        wait_until(lambda: not ballast(bridge).exists(), "the ballast to be given up")
        disk.fill()
        segments = tuple(
            TranscriptSegment(id=f"s{n}", start_s=n, end_s=n + 1, text="more than the disk has room for" * 16)
            for n in range(1_000)
        )
        event = ConversationEvent(event_id="e-1", type=EventType.SEGMENTS, revision=1, segments=segments)
        backend.publish(TOPICS.events("wordy"), event)
        agent.answer(offer, CALL_TURNS)
        backend.audio("refused", make_wav(1.0))  # once it is answered, all that was sent before has been handled
        assert backend.receipts("wordy", event_id="e-1") == []
        assert is_alive(bridge)

        disk.make_room()

        def is_accepted() -> list[Accepted]:
            backend.publish(TOPICS.events("wordy"), event)
            return backend.receipts("wordy", event_id="e-1")

        assert wait_until(is_accepted, "the event's receipt")[-1].verdict is Verdict.ACCEPTED
        if not agent.settled.items:  # an agent offers its result until it is settled
            agent.answer(offer, CALL_TURNS)
        assert backend.wait_updated("kept").speakers == 2
    assert len(bridge.json("history", "kept")) == 1


def test_a_bridge_that_starts_on_a_full_disk_serves_what_it_has(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, disk: SmallDisk
) -> None:
    backend.send_call("kept")
    bridge.stop()
    disk.fill()
    bridge.start(backend)
    with ScriptedAgent(broker, "first") as agent:
        agent.answer(agent.wait_offer("kept"), CALL_TURNS)
        assert backend.wait_updated("kept").speakers == 2
    assert backend.audio("late", make_wav(5.0)).reason == FailureCode.DISK_FULL
    purged = bridge.json("purge", "kept", "--yes")
    assert purged["finished"], "an operator must be able to make room on a full disk"


def test_without_any_room_a_command_says_that_the_disk_is_full_and_not_that_the_ledger_is_broken(
    backend: Backend, bridge: LiveBridge, disk: SmallDisk
) -> None:
    backend.audio("kept", make_wav(5.0))
    bridge.stop()
    ballast(bridge).unlink()
    disk.fill()
    done = bridge.command("jobs", check=False)
    assert (done.returncode, "backup" in done.stderr) == (1, False)
    assert "is full. Make room" in done.stderr
    disk.make_room()
    assert [call["conversation_id"] for call in bridge.json("conversations")] == ["kept"]
    bridge.start(backend)
