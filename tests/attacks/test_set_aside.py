"""A conversation whose labels cannot be worked out fails alone, is shown, stays so, and comes back when told to."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from sqlalchemy import update

from schemas.bridge import BridgeHeartbeat
from schemas.codec import encode
from schemas.conversation import ConversationUpdated, EventType, TranscriptSegment
from tests.attacks.deadly_bridge import DEADLY, DeadlyBridge
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.dispatch.labelling_work import SMALL_SEGMENTS
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.tables import ResultRow

FAST_TRIES = {"OMI_RETRY_MIN_S": "0.2", "OMI_RETRY_MAX_S": "0.4"}


@pytest.fixture
def backend(broker: RunningBroker) -> Iterator[Backend]:
    peer = Backend(broker)
    yield peer
    peer.stop()


@pytest.fixture
def bridge(broker: RunningBroker, backend: Backend, tmp_path: Path) -> Iterator[LiveBridge]:
    with run_bridge(broker, tmp_path, backend, **FAST_TRIES) as running:
        running.allow("first")
        yield running


def send_many_segments(backend: Backend, conversation_id: str) -> None:
    """Send so long a transcript that its labels are worked out beside the bridge; nobody speaks in most of it."""
    far = range(1_000, 1_000 + SMALL_SEGMENTS + 1)
    segments = tuple(TranscriptSegment(id=f"far-{second}", start_s=second, end_s=second + 0.1) for second in far)
    backend.event(conversation_id, EventType.SEGMENTS, segments=segments)


def store_result(bridge: LiveBridge, job_id: str, payload: bytes) -> None:
    """Write what is stored of a job's result, as a fault of a disk or of another version would."""
    with (
        closing(Ledger(bridge.data_dir / "bridge", exclusive=False)) as ledger,
        ledger.jobs._database.writing() as rows,
    ):
        assert rows.execute(update(ResultRow).where(ResultRow.job_id == job_id).values(payload=payload)).rowcount


def label_tries(bridge: LiveBridge, conversation_id: str) -> int:
    with closing(Ledger(bridge.data_dir / "bridge", exclusive=False)) as ledger:
        conversation = ledger.conversations.get(conversation_id)
        return conversation.label_tries if conversation else 0


def wait_failed(bridge: LiveBridge, backend: Backend, conversation_id: str) -> str:
    """Wait until a heartbeat counts it, and return the reason that `omi-bridge failed` gives."""
    wait_until(lambda: backend.seen(BridgeHeartbeat)[-1].queue.conversations_failed, "the failed conversation")
    (shown,) = [item for item in bridge.json("failed") if item["conversation_id"] == conversation_id]
    assert f"omi-bridge retry {conversation_id}" in shown["advice"]
    return str(shown["failure_message"])


def label(agent: ScriptedAgent, backend: Backend, conversation_id: str, *, tone: int) -> None:
    backend.send_call(conversation_id, tone=tone)
    agent.answer(agent.wait_offer(conversation_id), CALL_TURNS)
    assert backend.wait_updated(conversation_id).speakers == 2


def test_a_stored_result_that_cannot_be_read_fails_its_conversation_alone(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(broker, "first") as agent:
        backend.send_call("broken", tone=1)
        offer = agent.wait_offer("broken")
        good = encode(agent.result(offer, CALL_TURNS))
        with closing(Ledger(bridge.data_dir / "bridge", exclusive=False)) as ledger:
            lease = ledger.leases.find(offer.lease_id or "")
            assert lease is not None
            assert ledger.jobs.store_result(lease, b"written by a version that is gone")
        agent.held.clear()
        label(agent, backend, "sound", tone=2)
        assert "bytes after the end" in wait_failed(bridge, backend, "broken")
        wait_until(lambda: backend.failures("broken"), "the failure")
        assert [failure.code for failure in backend.failures("broken")] == ["labels.failed"]
        assert "omi-bridge retry broken" in bridge.json("show", "broken")["reason"]
        assert backend.seen(ConversationUpdated, "broken") == []

        assert bridge.stop() == 0
        bridge.start(backend)
        label(agent, backend, "after", tone=3)
        assert wait_failed(bridge, backend, "broken"), "a restart must not try it again"
        assert len(bridge.logged("conversation_set_aside")) == 1

        store_result(bridge, offer.job_id or "", good)
        assert "worked out again" in bridge.command("retry", "broken").stdout
        assert backend.wait_updated("broken").speakers == 2
    assert bridge.json("failed") == []


def test_a_large_conversation_is_labelled_beside_the_bridge_and_fails_where_it_takes_too_long(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(broker, "first") as agent:
        send_many_segments(backend, "large")
        label(agent, backend, "large", tone=4)
        assert bridge.process is not None
        assert psutil.Process(bridge.process.pid).children(), "a large one is worked out in another process"

        assert bridge.stop() == 0
        bridge.start(backend, OMI_LABELS_LIMIT_S="0.001")
        send_many_segments(backend, "endless")
        backend.send_call("endless", tone=5)
        agent.answer(agent.wait_offer("endless"), CALL_TURNS)
        label(agent, backend, "beside", tone=6)
        assert "longer than 0.001 s" in wait_failed(bridge, backend, "endless")
        assert backend.seen(ConversationUpdated, "endless") == []


@pytest.mark.slow  # the bridge must be killed while it works: on a busy machine the work may be done before
def test_a_conversation_with_which_the_bridge_dies_is_not_tried_for_ever(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(broker, "first") as agent:
        send_many_segments(backend, "deadly")
        backend.send_call("deadly", tone=7)
        agent.answer(agent.wait_offer("deadly"), CALL_TURNS)
        for deaths in (1, 2, 3):
            wait_until(lambda deaths=deaths: label_tries(bridge, "deadly") >= deaths, "the attempt")  # type: ignore[misc]
            bridge.kill()
            bridge.start(backend) if deaths == 3 else bridge.spawn()
        assert "the bridge ended 3 times" in wait_failed(bridge, backend, "deadly")
        label(agent, backend, "alive", tone=8)


def test_a_small_conversation_with_which_the_bridge_dies_is_not_tried_for_ever(
    broker: RunningBroker, backend: Backend, tmp_path: Path
) -> None:
    bridge = DeadlyBridge(broker, tmp_path)
    bridge.start(backend, **FAST_TRIES)
    bridge.allow("first")
    with ScriptedAgent(broker, "first") as agent:
        backend.send_call(DEADLY, tone=7)
        agent.answer(agent.wait_offer(DEADLY), CALL_TURNS)
        for _ in range(3):
            assert bridge.process is not None
            assert bridge.process.wait(WAIT_S) == -signal.SIGKILL
            bridge.spawn()
        assert "the bridge ended 3 times" in wait_failed(bridge, backend, DEADLY)
        label(agent, backend, "alive", tone=8)
    assert bridge.stop() == 0
