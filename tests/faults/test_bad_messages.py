"""A message that is too large, damaged, wrong or of a newer version ends with a clear error, and the next job runs."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest

from broker.receipts import PublishOutcome
from broker.session import Incoming, MqttSession
from schemas.agent import AgentControl, ControlType
from schemas.codec import encode
from schemas.conversation import Accepted, ConversationEvent, EventType, Verdict
from schemas.failure import FailureCode
from tests.brokers import RunningBroker, run_mosquitto
from tests.faults.conftest import AGENTS, StartAgent
from tests.faults.proxy import TcpProxy
from tests.faults.tone_calls import assert_labelled, begin_call, call_audio, send_call
from tests.inbox import WAIT_S, eventually
from tests.vps_bridge.live_bridge import (
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    part_payload,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent

PACKET_BYTES = 2_000_000  # the limit of Mosquitto 2.1
LONG_CALL = (300, 700) * 10


def ignore(_: Incoming) -> None:
    """For a session that subscribes to nothing."""


def test_an_oversized_message_costs_its_publisher_one_connection_and_nobody_anything_else(
    tmp_path: Path, start_agent: StartAgent
) -> None:
    """MQTT 3.1.1 announces no limit, so the publisher is disconnected. Its audio is then sent in parts."""
    audio = call_audio(LONG_CALL)
    assert len(audio) > PACKET_BYTES
    with run_mosquitto(tmp_path, agent_ids=AGENTS, max_packet_bytes=PACKET_BYTES) as broker:
        backend = Backend(broker)
        with run_bridge(broker, tmp_path / "bridge", backend) as bridge:
            bridge.allow("first")
            start_agent(broker)
            naive = MqttSession(
                broker.settings("backend", mqtt_version="3.1.1", assumed_max_packet_bytes=2**27),
                client_id="naive",
                on_message=ignore,
            )
            naive.start()
            naive.wait_connected(WAIT_S)
            topic = TOPICS.audio("large")
            assert naive.publish(topic, audio).wait(WAIT_S) is PublishOutcome.LOST
            eventually(lambda: naive.connected)
            begin_call(backend, "large", LONG_CALL)
            for start in range(0, len(audio), 1_000_000):
                part = part_payload("large", audio, start, min(start + 1_000_000, len(audio)), chunk_id="c1")
                assert naive.publish(topic, encode(part)).wait(WAIT_S) is PublishOutcome.ACKNOWLEDGED
            assert backend.wait_receipt("large", chunk_id="c1").bytes == len(audio)
            backend.event("large", EventType.COMPLETED, chunks=1)
            assert_labelled(backend.wait_updated("large"), LONG_CALL)
            naive.stop()
        backend.stop()


def test_a_corrupt_part_is_asked_for_again(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    """Bits flip between broker and agent: no damaged part gets into the job, and no attempt is counted."""
    with TcpProxy(broker.port) as link:
        agent = start_agent(broker.reached_at(link.port))
        wait_until(lambda: "engine loaded" in agent.log(), "the engine")
        link.damage(3)
        send_call(backend, "damaged", LONG_CALL)
        assert_labelled(backend.wait_updated("damaged"), LONG_CALL)
        assert link.damages_left == 0
        assert "refused" in agent.log()
    (job,) = bridge.jobs("damaged")
    assert (job["state"], job["attempts"]) == ("done", 0)


def test_audio_whose_sha256_is_wrong_is_refused_at_the_door(backend: Backend, bridge: LiveBridge) -> None:
    audio = call_audio()
    receipt = backend.audio("liar", audio, chunk_id="c1", sha256=hashlib.sha256(b"other").hexdigest())
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, FailureCode.PAYLOAD_SHA256_MISMATCH)
    assert backend.audio("liar", audio, chunk_id="c1").verdict is Verdict.ACCEPTED, (
        "the same id with the right sha256 must be accepted"
    )
    backend.event("liar", EventType.DELETED)


@pytest.mark.parametrize("harm", ["flipped", "short", "empty"])
def test_audio_that_changed_on_the_disk_of_the_bridge_ends_its_job_with_words(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent, harm: str
) -> None:
    """The agent must not ask for the same wrong bytes, or for those that are not there, for ever."""
    name = f"rotten-{harm}"
    send_call(backend, name)
    rotten = max(bridge.spool.iterdir(), key=lambda path: path.stat().st_mtime)
    data = bytearray(rotten.read_bytes())
    data[len(data) // 2] ^= 1
    rotten.write_bytes({"flipped": bytes(data), "short": bytes(data[:-1]), "empty": b""}[harm])
    start_agent(broker)
    failures = wait_until(lambda: [f for f in backend.failures(name) if f.lease_id is None], "the bridge's failure")
    assert failures[0].code == FailureCode.PAYLOAD_SHA256_MISMATCH
    assert "publish it again" in failures[0].message
    assert backend.wait_updated(name).failed_jobs == 1
    send_call(backend, f"sound-{harm}")
    assert_labelled(backend.wait_updated(f"sound-{harm}"))


def _of_version(payload: bytes, version: bytes) -> bytes:
    """Return the message with another version of its schema."""
    for now in (b"1.0", b"1.1", b"1.2", b"1.3"):
        for written in (b"\xa3" + now, b'"version":"' + now + b'"'):
            if payload.count(written) == 1:
                return payload.replace(written, written.replace(now, version))
    raise AssertionError("no version is in it")


@pytest.mark.parametrize("kind", ["audio", "event"])
def test_a_schema_version_of_tomorrow_is_refused_to_its_publisher(
    backend: Backend, bridge: LiveBridge, kind: str
) -> None:
    name = f"tomorrow-{kind}"
    audio = encode(audio_payload(name, call_audio(), chunk_id="c1"))
    event = encode(ConversationEvent(event_id="e1", type=EventType.STARTED))
    topic, payload = (TOPICS.audio(name), audio) if kind == "audio" else (TOPICS.events(name), event)
    backend.publish(topic, _of_version(payload, b"2.0"))
    (receipt,) = wait_until(partial(backend.seen, Accepted, name), "the receipt")
    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, FailureCode.SCHEMA_UNSUPPORTED)
    assert (receipt.chunk_id or receipt.event_id) in ("c1", "e1"), "the receipt must name its message"
    assert "1" in (receipt.message or "")
    backend.publish(topic, _of_version(payload, b"1.9"))
    wait_until(lambda: backend.receipts(name)[1:], "the receipt of a later minor version")
    assert backend.receipts(name)[1].verdict is Verdict.ACCEPTED
    backend.event(name, EventType.DELETED)


def test_turns_of_tomorrow_are_settled_and_cost_an_attempt(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(broker, "first") as agent:
        send_call(backend, "ahead")
        offer = agent.wait_offer("ahead")
        agent.send_raw("ahead", _of_version(encode(agent.result(offer)), b"2.0"))
        word = agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id)
        assert (word.verdict, word.reason) == (Verdict.REFUSED, FailureCode.SCHEMA_UNSUPPORTED)
        again = agent.wait_offer("ahead", after=1)
        assert again.attempt == 2
        agent.answer(again, [(0.0, 20.0, "a")])
        backend.wait_updated("ahead")


def test_an_offer_of_tomorrow_is_left_alone_and_the_next_job_runs(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    agent = start_agent(broker)
    wait_until(lambda: "engine loaded" in agent.log(), "the engine")
    offer = AgentControl(type=ControlType.CANCEL, ledger_id="l", job_id="j", lease_id="x")
    speaker = MqttSession(broker.settings("bridge"), client_id="future", on_message=ignore)
    speaker.start()
    speaker.wait_connected(WAIT_S)
    speaker.publish(TOPICS.control("first"), _of_version(encode(offer), b"9.0")).wait(WAIT_S)
    speaker.stop()
    wait_until(lambda: "message refused" in agent.log(), "the refusal")
    send_call(backend, "today")
    assert_labelled(backend.wait_updated("today"))
