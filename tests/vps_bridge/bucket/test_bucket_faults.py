"""A live bridge whose bucket is full, slow, down, loses answers or audio: nothing is lost, doubled or told early."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import ConversationEvent, EventType, Verdict
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.bucket_server import BUCKET, RunningBucket
from tests.faulty_bucket import Faults, faulty_way
from tests.vps_bridge.bucket.bucket_files import AUDIO, chunk_ids, forget_copies, new_name, own_audio
from tests.vps_bridge.live_bridge import (
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.bucket.keys import drop_old_keys, rotate_key_file


@contextmanager
def bridge_behind(
    bucket: RunningBucket, broker: RunningBroker, backend: Backend, data: Path, **options: str
) -> Iterator[tuple[LiveBridge, Faults]]:
    """A bridge, and what may go wrong on its way to the bucket."""
    with faulty_way(bucket.port) as (url, faults):
        settings = bucket.environment(data, endpoint=url, OMI_SPOOL_TIMEOUT_S="2", **options)
        with run_bridge(broker, data, backend, **settings) as bridge:
            bridge.allow("first")
            yield bridge, faults


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_nothing_is_accepted_that_the_bucket_does_not_have_and_nothing_is_doubled(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, data: Path
) -> None:
    with bridge_behind(bucket, mosquitto, backend, data) as (bridge, faults):
        name = new_name()
        assert backend.audio(name, AUDIO, chunk_id="before").verdict is Verdict.ACCEPTED

        faults.status, faults.code = 507, "InsufficientStorage"
        refused = backend.audio(name, AUDIO, chunk_id="full")
        assert (refused.verdict, refused.reason) == (Verdict.REFUSED, FailureCode.SPOOL_UNAVAILABLE)
        assert "full" in (refused.message or "")
        failure = wait_until(lambda: backend.failures(name), "the failure that operators see")[-1]
        assert (failure.code, failure.retryable) == (FailureCode.SPOOL_UNAVAILABLE, True)
        wait_until(lambda: not backend.seen(BridgeHeartbeat)[-1].accepting, "a heartbeat that says so")
        assert "full" in (backend.seen(BridgeHeartbeat)[-1].last_error or "")
        faults.clear()
        wait_until(lambda: backend.seen(BridgeHeartbeat)[-1].accepting, "the bridge that has found out by itself")
        wait_until(lambda: backend.audio(name, AUDIO, chunk_id="full").verdict is Verdict.ACCEPTED, "its acceptance")

        # The bucket has it, and nobody hears of that.
        faults.loses_answers, faults.methods = True, ("PUT",)
        assert backend.audio(name, AUDIO, chunk_id="lost").reason == FailureCode.SPOOL_UNAVAILABLE
        faults.clear()
        wait_until(lambda: backend.audio(name, AUDIO, chunk_id="lost").verdict is Verdict.ACCEPTED, "its acceptance")
        wait_until(lambda: len(own_audio(bucket, bridge)) == 3, "the end of what nobody was told of")

        # Slow, but not too slow: the same audio sent again meanwhile is one chunk, and its order is kept.
        faults.delay_s, faults.methods = 1.0, ("PUT",)
        for chunk_id in ("slow-1", "slow-2"):
            for _ in range(2):
                backend.publish(TOPICS.audio(name), audio_payload(name, AUDIO, chunk_id=chunk_id))
        for chunk_id in ("slow-1", "slow-2"):
            assert backend.wait_receipt(name, chunk_id=chunk_id).verdict is Verdict.ACCEPTED
        faults.clear()
        assert chunk_ids(bridge, name) == ["before", "full", "lost", "slow-1", "slow-2"]
        assert len(own_audio(bucket, bridge)) == 5


def test_a_deletion_is_confirmed_only_once_the_bucket_has_nothing_more(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, data: Path
) -> None:
    bucket.keep_versions()
    with bridge_behind(bucket, mosquitto, backend, data) as (bridge, faults):
        name = new_name()
        backend.audio(name, AUDIO, chunk_id="one")
        backend.audio(name, AUDIO, chunk_id="two")
        faults.status, faults.methods = 503, ("DELETE",)
        event = ConversationEvent(event_id="gone", type=EventType.DELETED)
        backend.publish(TOPICS.events(name), event)
        late = backend.audio(name, AUDIO, chunk_id="late")
        assert late.reason == FailureCode.CONVERSATION_DELETED
        wait_until(lambda: ("DELETE" in [method for method, _ in faults.asked]) or None, "the attempt to delete")
        assert not backend.receipts(name, event_id="gone")
        bridge.kill()
        bridge.start(backend)
        assert not backend.receipts(name, event_id="gone")
        assert len(own_audio(bucket, bridge)) == 2
        assert not bridge.is_deleted(name)
        faults.clear()
        wait_until(lambda: bridge.is_deleted(name), "the end of the deletion")
        assert own_audio(bucket, bridge) == []
        backend.publish(TOPICS.events(name), event)  # its owner asks again: the bridge was killed meanwhile
        assert backend.wait_receipt(name, event_id="gone").verdict is Verdict.ACCEPTED


def test_a_bridge_that_is_killed_between_put_and_row_leaves_an_orphan_that_is_collected(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, data: Path
) -> None:
    with bridge_behind(bucket, mosquitto, backend, data, OMI_SPOOL_ORPHAN_S="0.001") as (bridge, faults):
        name = new_name()
        backend.audio(name, AUDIO, chunk_id="kept")
        faults.delay_s, faults.methods = 1.5, ("PUT",)  # before it passes on
        puts = len([1 for method, _ in faults.asked if method == "PUT"])
        backend.publish(TOPICS.audio(name), audio_payload(name, AUDIO, chunk_id="killed"))
        wait_until(lambda: len([1 for method, _ in faults.asked if method == "PUT"]) > puts, "the put")
        bridge.kill()
        wait_until(lambda: len(own_audio(bucket, bridge)) == 2, "the object that nobody knows")
        faults.clear()
        bridge.start(backend)
        wait_until(lambda: len(own_audio(bucket, bridge)) == 1, "its end")
        assert backend.audio(name, AUDIO, chunk_id="killed").verdict is Verdict.ACCEPTED
        with ScriptedAgent(mosquitto, "first") as agent:
            backend.event(name, EventType.COMPLETED, chunks=2)
            pulled = agent.pull(agent.wait_offer(name))
        assert {hashlib.sha256(audio).digest() for audio in pulled.values()} == {hashlib.sha256(AUDIO).digest()}


def test_audio_that_the_bucket_lost_or_changed_is_never_sent_and_ends_its_job_with_words(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, data: Path
) -> None:
    with bridge_behind(bucket, mosquitto, backend, data) as (bridge, _):
        for deed in ("changed", "lost"):
            name = new_name()
            known = set(own_audio(bucket, bridge))
            backend.send_call(name)
            (key,) = set(own_audio(bucket, bridge)) - known
            if deed == "changed":
                body = bucket.admin.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                bucket.admin.put_object(Bucket=BUCKET, Key=key, Body=body[:-1] + bytes([body[-1] ^ 1]))
            else:
                bucket.admin.delete_object(Bucket=BUCKET, Key=key)
            forget_copies(bridge)
            with ScriptedAgent(mosquitto, "first") as agent:
                offer = agent.wait_offer(name)
                agent.want(offer, offer.chunks[0].chunk_id, 0, 1_000)
                failure = wait_until(partial(backend.failures, name), "the job's failure")[-1]
                assert "publish it again" in failure.message
                assert not [part for part in agent.parts.items if part.lease_id == offer.lease_id]


@pytest.mark.slow
def test_an_agent_waits_out_an_outage_of_the_bucket_and_a_key_that_is_missing(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, data: Path
) -> None:
    with bridge_behind(bucket, mosquitto, backend, data) as (bridge, faults):
        name, key_file = new_name(), data / "spool-keys"
        backend.send_call(name)
        old = key_file.read_text()
        rotate_key_file(key_file)
        drop_old_keys(key_file)
        bridge.stop()
        bridge.start(backend)
        with ScriptedAgent(mosquitto, "first") as agent:
            offer = agent.wait_offer(name)
            agent.want(offer, offer.chunks[0].chunk_id, 0, 1_000)
            logged = wait_until(lambda: bridge.logged("audio_not_fetched"), "the missing key in the log")
            assert "add that key's line" in logged[-1]["error"]
            with key_file.open("a") as file:
                file.write(old)
            faults.status, faults.methods = 503, ("GET",)
            agent.want(offer, offer.chunks[0].chunk_id, 0, 1_000)
            wait_until(lambda: len(bridge.logged("audio_not_fetched")) > len(logged), "the outage in the log")
            faults.clear()

            def came() -> bool:
                agent.want(offer, offer.chunks[0].chunk_id, 0, 1_000)
                return any(part.lease_id == offer.lease_id for part in agent.parts.items)

            wait_until(came, "the audio, once the bucket answers and the key is there")
            assert agent.parts.items[-1].audio == AUDIO[:1_000]
            assert not backend.failures(name)
            assert bridge.jobs(name)[0]["attempts"] == 0


@pytest.mark.slow
def test_audio_in_the_directory_moves_into_the_bucket_and_no_way_leads_back_without_it(
    bucket: RunningBucket, mosquitto: RunningBroker, backend: Backend, data: Path
) -> None:
    name = new_name()
    with run_bridge(mosquitto, data, backend) as bridge:
        bridge.allow("first")
        backend.send_call(name)
        assert len(list(bridge.spool.iterdir())) == 1
        bridge.stop()
        bridge.start(backend, **bucket.environment(data))
        wait_until(lambda: not list(bridge.spool.iterdir()), "the move")
        assert len(own_audio(bucket, bridge)) == 1
        forget_copies(bridge)
        with ScriptedAgent(mosquitto, "first") as agent:
            assert list(agent.pull(agent.wait_offer(name)).values()) == [AUDIO]
        bridge.stop()
        for setting in [setting for setting in bridge.options if setting.startswith("OMI_SPOOL_")]:
            del bridge.options[setting]
        refused = bridge.command("run", check=False)
        assert (refused.returncode, "set OMI_SPOOL_URL as it was" in refused.stderr) == (2, True)
        bridge.start(backend, **bucket.environment(data))
        assert backend.event(name, EventType.DELETED).verdict is Verdict.ACCEPTED
        assert own_audio(bucket, bridge) == []
