"""A live bridge whose audio is in a bucket, from a publisher to an agent and to its deletion."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from schemas.codec import encode
from schemas.conversation import ConversationEvent, EventType, Verdict
from tests.brokers import RunningBroker, free_port
from tests.bucket_server import RunningBucket
from tests.vps_bridge.bucket.bucket_files import AUDIO, assert_nowhere, forget_copies, new_name, own_audio
from tests.vps_bridge.live_bridge import (
    CALL_TURNS,
    TOPICS,
    Backend,
    LiveBridge,
    part_payload,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent

TOKEN = "a-token-of-these-tests-alone"


@pytest.fixture(scope="module")
def bridge(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveBridge]:
    """A bridge with an HTTP door, in a bucket that keeps every version."""
    bucket.keep_versions()
    data = tmp_path_factory.mktemp("data")
    door = {"OMI_HTTP_PORT": str(free_port()), "OMI_HTTP_TOKEN": TOKEN}
    with run_bridge(mosquitto, data, backend, **bucket.environment(data), **door) as running:
        running.allow("first")
        yield running


@pytest.fixture
def http(bridge: LiveBridge) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{bridge.options['OMI_HTTP_PORT']}"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client


def test_audio_goes_through_the_bucket_to_an_agent_and_is_gone_with_its_conversation(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    name = new_name()
    backend.send_call(name)
    assert len(own_audio(bucket, bridge)) == 1
    for key, version in bucket.versions():
        assert AUDIO[1_000:1_100] not in bucket.bytes_of(key, version)
        assert name not in key
    assert not list(bridge.spool.iterdir())
    with ScriptedAgent(mosquitto, "first") as agent:
        offer = agent.wait_offer(name)
        assert list(agent.pull(offer).values()) == [AUDIO]
        forget_copies(bridge)
        parts = len(agent.parts.items)
        agent.want(offer, offer.chunks[0].chunk_id, 1_000, 2_000)  # the bridge has to ask the bucket for it
        assert agent.parts.wait_count(parts + 1)[-1].audio == AUDIO[1_000:2_000]
        agent.answer(offer, CALL_TURNS)
        assert backend.wait_updated(name).segments
    assert backend.event(name, EventType.DELETED).verdict is Verdict.ACCEPTED
    assert own_audio(bucket, bridge) == []
    wait_until(lambda: bridge.is_deleted(name), "the end of the deletion")
    assert_nowhere(bridge, AUDIO)
    found = json.loads(bridge.command("doctor", "--wait", "0.5", "--json", check=False).stdout)
    checks = {check["name"]: check for check in found}
    assert checks["bucket"]["verdict"] == "ok", checks["bucket"]


def test_every_way_in_leads_to_the_bucket_and_what_is_sent_twice_is_there_once(
    bucket: RunningBucket, backend: Backend, bridge: LiveBridge, http: httpx.Client
) -> None:
    name = new_name()
    for start in range(0, len(AUDIO), 200_000):
        part = part_payload(name, AUDIO, start, min(start + 200_000, len(AUDIO)), chunk_id="in-parts")
        backend.publish(TOPICS.audio(name), part)
    assert backend.wait_receipt(name, chunk_id="in-parts").verdict is Verdict.ACCEPTED
    where, kind = f"/v1/conversations/{name}/audio?chunk_id=by-http", {"Content-Type": "audio/wav"}
    assert [http.post(where, content=AUDIO, headers=kind).status_code for _ in range(2)] == [202, 200]
    assert len(own_audio(bucket, bridge)) == 2
    forget_copies(bridge)
    heard = http.get(f"/v1/conversations/{name}/chunks/by-http/audio")
    assert heard.content[44:] == AUDIO[44:]
    metrics = http.get("/metrics").text
    assert "omi_bridge_bucket_reachable 1.0" in metrics
    assert "omi_bridge_bucket_failures_total 0.0" in metrics
    event = encode(ConversationEvent(event_id="gone", type=EventType.DELETED))
    kind = {"Content-Type": "application/json"}
    gone = http.post(f"/v1/conversations/{name}/events", content=event, headers=kind)
    assert (gone.status_code, gone.json()["verdict"]) == (200, "accepted")
    assert own_audio(bucket, bridge) == []


def test_audio_alone_can_be_purged_while_the_bridge_runs(
    bucket: RunningBucket, backend: Backend, bridge: LiveBridge
) -> None:
    name = new_name()
    backend.send_call(name)
    assert "1 chunks" in bridge.command("purge", name, "--audio", "--yes").stdout
    assert own_audio(bucket, bridge) == []
    assert_nowhere(bridge, AUDIO)
