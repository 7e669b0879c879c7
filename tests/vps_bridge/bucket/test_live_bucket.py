"""A live bridge whose audio is in a bucket, from a publisher to an agent and to its deletion."""

from __future__ import annotations

import uuid

import pytest

from schemas.conversation import EventType, Verdict
from tests.brokers import RunningBroker
from tests.bucket_server import RunningBucket
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.intake.bucket_spool import COPIES


def test_audio_goes_through_the_bucket_to_an_agent_and_is_gone_with_its_conversation(
    bucket: RunningBucket,
    mosquitto: RunningBroker,
    backend: Backend,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bucket.keep_versions()
    data = tmp_path_factory.mktemp("data")
    name = f"call-{uuid.uuid4().hex[:6]}"
    with run_bridge(mosquitto, data, backend, **bucket.environment(data)) as bridge:
        bridge.allow("first")
        backend.send_call(name)
        assert len(bucket.audio()) == 1
        audio = make_wav(30.0)
        for key, version in bucket.versions():
            stored = bucket.bytes_of(key, version)
            assert audio[1_000:1_100] not in stored
            assert name not in key
        assert not list(bridge.spool.iterdir())
        with ScriptedAgent(mosquitto, "first") as agent:
            offer = agent.wait_offer(name)
            assert list(agent.pull(offer).values()) == [audio]
            for copy in (data / "bridge" / COPIES).iterdir():
                copy.unlink()
            parts = len(agent.parts.items)
            agent.want(offer, offer.chunks[0].chunk_id, 1_000, 2_000)  # the bridge has to ask the bucket for it
            assert agent.parts.wait_count(parts + 1)[-1].audio == audio[1_000:2_000]
            agent.answer(offer, CALL_TURNS)
            assert backend.wait_updated(name).segments
        assert backend.event(name, EventType.DELETED).verdict is Verdict.ACCEPTED
        assert bucket.audio() == []
        wait_until(lambda: bridge.is_deleted(name), "the end of the deletion")
