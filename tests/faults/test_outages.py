"""The broker loses its messages, the bridge is down or hangs, a deletion overtakes a result: accepted audio is not
lost, and deleted conversations do not come back."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.session import Incoming, MqttSession
from schemas.agent import AgentHeartbeat, AgentState
from schemas.bridge import BridgeHeartbeat
from schemas.codec import encode
from schemas.conversation import Accepted, ConversationEvent, ConversationUpdated, EventType, Verdict
from schemas.turns import EngineDescription
from tests.brokers import RunningBroker, run_mosquitto
from tests.faults.conftest import AGENTS, StartAgent
from tests.faults.proxy import TcpProxy
from tests.faults.tone_calls import assert_labelled, begin_call, call_audio, send_call, spoken_spans
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, audio_payload, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.client.client import BridgeClient, SentChunk
from vps_bridge.ledger import Ledger

BEATS_OF_AN_HOUR = 360
TURNS = [(*span, "ab"[turn % 2]) for turn, span in enumerate(spoken_spans(6))]


def ignore(_: Incoming) -> None:
    """For a session that subscribes to nothing."""


def beat_for_an_hour(broker: RunningBroker, agent_id: str) -> AgentHeartbeat:
    """Publish the heartbeats of an hour, QoS 1 and retained, as fast as the broker takes them; return the last."""
    engine = EngineDescription(name="tone", embedding_model="pitch", embedding_revision="1")
    session = MqttSession(broker.settings(f"agent:{agent_id}"), client_id=f"{agent_id}-i1", on_message=ignore)
    session.start()
    session.wait_connected(WAIT_S)
    for _ in range(BEATS_OF_AN_HOUR):
        now = datetime.now(UTC)
        beat = AgentHeartbeat(
            agent_id=agent_id,
            instance_id="i1",
            state=AgentState.ONLINE,
            sent_at=now,
            started_at=now,
            engine=engine,
            free_capacity=2,
            speed_x_real_time=1.0,
        )
        receipt = session.publish(TOPICS.agent_heartbeat(agent_id), encode(beat), retain=True)
    receipt.wait(WAIT_S)
    session.stop()
    return beat


def test_a_broker_that_restarts_without_a_memory_and_meets_the_agent_first_loses_no_result(
    tmp_path: Path, start_agent: StartAgent
) -> None:
    """The agent publishes its result while nobody subscribes: the broker acknowledges it and drops it."""
    with run_mosquitto(tmp_path, agent_ids=AGENTS) as broker, TcpProxy(broker.port) as link:
        backend = Backend(broker)
        with run_bridge(broker.reached_at(link.port), tmp_path / "bridge", backend) as bridge:
            bridge.allow("first")
            agent = start_agent(broker, behaviour="hold")
            send_call(backend, "forgotten")
            wait_until(lambda: '"job runs"' in agent.log(), "the run")
            connects = agent.log().count('"event": "connected"')
            link.refuse()
            broker.kill()
            broker.start()
            wait_until(lambda: agent.log().count('"event": "connected"') > connects, "the agent's return")
            assert link.connections == 0, "the bridge must still be away"
            agent.behaviour.write_text("")
            wait_until(lambda: '"job done"' in agent.log(), "the result")
            time.sleep(1.5)  # longer than the agent's pause, so that its offer of the result reached nobody
            assert backend.seen(ConversationUpdated, "forgotten") == []
            link.refuse(on=False)
            assert_labelled(backend.wait_updated("forgotten"))
            (job,) = bridge.jobs("forgotten")
            assert (job["state"], job["attempts"], job["deaths"]) == ("done", 0, 0)
            assert len(bridge.json("history", "forgotten")) == 1
            assert agent.log().count('"job runs"') == 1
        backend.stop()


def test_audio_asked_for_while_the_bridge_was_away_is_asked_for_again_when_it_is_back(
    tmp_path: Path, start_agent: StartAgent
) -> None:
    """A broker without persistence restarts; the agent reconnects first, and its request reaches nobody. Its timer for
    asking again is too long to help."""
    with run_mosquitto(tmp_path, agent_ids=AGENTS) as broker, TcpProxy(broker.port) as link:
        backend = Backend(broker)
        with run_bridge(broker.reached_at(link.port), tmp_path / "bridge", backend) as bridge:
            bridge.allow("first")
            agent = start_agent(broker, want_timeout_s=900, retry_max_s=900)
            wait_until(lambda: any(beat.free_capacity for beat in backend.beats_of("first")), "an agent to grant to")
            os.kill(agent.pid, signal.SIGSTOP)  # so that it asks only while the bridge is disconnected
            try:
                send_call(backend, "away")
                wait_until(lambda: [job["state"] for job in bridge.jobs("away")] == ["leased"], "the lease")
                link.deafen()
            finally:
                os.kill(agent.pid, signal.SIGCONT)
            wait_until(lambda: '"action": "accept"' in agent.log(), "the offer")
            connects = agent.log().count('"event": "connected"')
            link.refuse()
            broker.kill()
            broker.start()
            wait_until(lambda: agent.log().count('"event": "connected"') > connects, "the agent's return")
            time.sleep(1.0)  # until it has asked
            assert link.connections == 0, "the bridge must still be away"
            assert '"job runs"' not in agent.log(), "the audio must not have arrived"
            link.refuse(on=False)
            assert_labelled(backend.wait_updated("away"))
            assert agent.log().count('"job runs"') == 1
        backend.stop()


@pytest.mark.slow
def test_a_bridge_that_is_down_for_an_hour_of_heartbeats_loses_no_audio(
    tmp_path: Path, start_agent: StartAgent
) -> None:
    """Accepted audio waits on the bridge's disk; other audio stays with its publisher, as no bridge is online."""
    path = tmp_path / "call.wav"
    path.write_bytes(call_audio())
    with run_mosquitto(tmp_path, agent_ids=AGENTS) as broker:
        backend = Backend(broker)
        with run_bridge(broker, tmp_path / "bridge", backend) as bridge:
            bridge.allow("first")
            send_call(backend, "before")
            bridge.kill()
            sent: list[SentChunk] = []
            begun = threading.Event()

            def send_meanwhile() -> None:
                with BridgeClient(broker.settings("backend"), "during") as client:
                    begun.set()
                    sent.append(client.send_file(path, chunk_id="c1"))
                    client.complete(chunks=1)

            sender = threading.Thread(target=send_meanwhile, daemon=True)
            sender.start()
            begun.wait(WAIT_S)
            for _ in range(5):
                backend.publish(TOPICS.audio("void"), audio_payload("void", call_audio((300,)), chunk_id="c1"))
            beat_for_an_hour(broker, "first")
            assert sent == [], "the client must keep its audio while no bridge is live"
            assert backend.seen(Accepted, "during") == []
            bridge.start(backend)
            wait_until(lambda: sent, "the receipt of what was kept")
            assert backend.seen(BridgeHeartbeat)[-1].agents_live == 0, (
                "a retained heartbeat does not show that its agent lives"
            )
            begin_call(backend, "during")
            start_agent(broker)
            for name in ("before", "during"):
                assert_labelled(backend.wait_updated(name))
                assert [job["attempts"] for job in bridge.jobs(name)] == [0]
            sender.join(WAIT_S)
        backend.stop()


@pytest.mark.slow
def test_audio_queued_in_the_broker_behind_an_hour_of_heartbeats_reaches_a_bridge_that_hung(
    tmp_path: Path, start_agent: StartAgent
) -> None:
    """The bridge subscribes to heartbeats with QoS 0, so that they do not fill the broker's queue."""
    with run_mosquitto(tmp_path, agent_ids=AGENTS, extra_lines="max_queued_messages 100") as broker:
        backend = Backend(broker)
        patient = {"OMI_KEEPALIVE_S": "600"}
        with run_bridge(broker, tmp_path / "bridge", backend, **patient) as bridge:
            assert bridge.process is not None
            os.kill(bridge.process.pid, signal.SIGSTOP)
            try:
                for number in range(40):
                    payload = audio_payload("queued", call_audio((300,)), chunk_id=f"c{number}", sequence=number)
                    backend.publish(TOPICS.audio("queued"), payload)
                    if number == 20:  # more heartbeats than the queue has places
                        beat_for_an_hour(broker, "first")
            finally:
                os.kill(bridge.process.pid, signal.SIGCONT)
            for number in range(40):
                assert backend.wait_receipt("queued", chunk_id=f"c{number}").verdict is Verdict.ACCEPTED
        backend.stop()


def is_gone(bridge: LiveBridge, conversation_id: str) -> bool:
    """Whether the ledger has nothing of a conversation but its tombstone."""
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    try:
        left = ledger.jobs.all(conversation_id=conversation_id), ledger.chunks.of_conversation(conversation_id)
        return left == ([], []) and ledger.conversations.is_deleted(conversation_id)
    finally:
        ledger.close()


@pytest.mark.parametrize("seed", range(2))
def test_a_deletion_that_races_with_a_result_wins(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, seed: int
) -> None:
    """Both are sent at once, in either order: nothing is left, and nothing is published after the receipt."""
    order = random.Random(seed)
    before = set(bridge.spool.iterdir())
    verdicts = []
    with ScriptedAgent(broker, "first") as agent:
        for number in range(6):
            name = f"race-{seed}-{number}"
            send_call(backend, name)
            offer = agent.wait_offer(name)
            deleted = ConversationEvent(event_id=f"delete-{name}", type=EventType.DELETED)

            def delete(name: str = name, deleted: ConversationEvent = deleted) -> None:
                time.sleep(order.choice((0.0, 0.0, 0.02)))
                backend.publish(TOPICS.events(name), deleted)

            racer = threading.Thread(target=delete)
            racer.start()
            time.sleep(order.choice((0.0, 0.0, 0.02)))
            agent.answer(offer, TURNS)
            racer.join()
            assert backend.wait_receipt(name, event_id=deleted.event_id).verdict is Verdict.ACCEPTED
            settled = agent.settled.wait_for(lambda seen, offer=offer: seen.lease_id == offer.lease_id)  # type: ignore[misc]
            verdicts.append(settled.verdict)
            count = len(agent.settled.items)
            agent.answer(offer, TURNS)  # a late result
            assert agent.settled.wait_count(count + 1)[-1].verdict is Verdict.DISCARDED
            assert is_gone(bridge, name)
        agent.beat(AgentState.STOPPED)
    assert bridge.command("show", f"race-{seed}-0", check=False).returncode == 1
    assert set(verdicts) <= {Verdict.STORED, Verdict.DISCARDED}
    assert set(bridge.spool.iterdir()) == before
    time.sleep(2.5)  # longer than the longest pause of an offer
    for number in range(6):
        mine = [m for m in backend.messages if f"/race-{seed}-{number}/" in m.topic]
        receipt = next(place for place, m in enumerate(mine) if b"delete-race" in m.payload)
        after = itertools.islice(mine, receipt + 1, None)
        assert not any(message.topic == TOPICS.updated(f"race-{seed}-{number}") for message in after)
