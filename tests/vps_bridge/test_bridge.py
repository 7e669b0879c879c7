"""The bridge as a whole: what it tells of itself, what it survives, what it forgets, and that there is one."""

import struct
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from broker.session import Incoming, MqttSession
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.codec import decode, encode
from schemas.conversation import ConversationUpdated, EventType, Verdict
from schemas.topics import TopicKind
from schemas.turns import SpeakerTurns, VoiceSamples
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import (
    CALL_TURNS,
    TOPICS,
    Backend,
    LiveBridge,
    audio_payload,
    run_bridge,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.retention import SWEEP_S


def test_an_agent_that_appears_is_in_a_heartbeat_at_once(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    slow = {"OMI_HEARTBEAT_S": "600", "OMI_STALE_S": "1800"}  # longer than any limit here
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **slow) as bridge:

        def last() -> BridgeHeartbeat:
            return own_backend.seen(BridgeHeartbeat)[-1]

        with ScriptedAgent(own_broker, "first"):
            wait_until(lambda: last().agents_waiting == ("first",), "the agent that nobody allowed")
            bridge.allow("first")
            wait_until(lambda: last().agents_live == 1, "the agent that is allowed")
            assert last().agents_waiting == ()
            assert last().agents_live_ids == ("first",)


def test_a_retained_bare_file_counts_once_however_often_the_bridge_starts(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    own_backend.session.publish(TOPICS.audio("kept"), make_wav(1.0), retain=True).wait(WAIT_S)
    wait_until(lambda: len(own_backend.receipts("kept")) == 1, "the receipt of what came live")
    for _ in range(2):
        own_bridge.stop()
        own_bridge.start(own_backend)
        own_backend.audio("marker", make_wav(1.0))  # by its receipt the bridge has read what the broker kept
    assert len(own_backend.receipts("kept")) == 1
    assert b"retained_input_ignored" in own_bridge.log_file.read_bytes()


def test_nothing_is_accepted_while_the_ledger_is_elsewhere(own_backend: Backend, own_bridge: LiveBridge) -> None:
    ledger = own_bridge.spool.parent / "ledger.sqlite3"
    files = [ledger, *(ledger.with_name(f"{ledger.name}-{end}") for end in ("wal", "shm"))]
    elsewhere = ledger.parent.parent / "elsewhere"
    elsewhere.mkdir()
    for file in files:
        file.rename(elsewhere / file.name)
    audio = audio_payload("kept", make_wav(1.0))
    own_backend.publish(TOPICS.audio("kept"), audio)
    wait_until(lambda: b"put it back as it was" in own_bridge.log_file.read_bytes(), "the bridge's log")
    assert own_backend.receipts("kept") == []
    for file in files:
        (elsewhere / file.name).rename(file)
    own_backend.publish(TOPICS.audio("kept"), audio)
    assert own_backend.wait_receipt("kept").verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE)
    own_bridge.kill()
    own_bridge.start(own_backend)
    own_backend.event("kept", EventType.COMPLETED, chunks=1)
    wait_until(lambda: own_bridge.jobs("kept"), "the job of the audio")


def test_no_client_id_can_be_worked_out_from_a_heartbeat(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    """A second connection under a known client id takes the first one over."""
    beat = wait_until(lambda: own_backend.seen(BridgeHeartbeat), "a heartbeat")[-1]
    known = f"{beat.bridge_id}-{beat.instance_id}"
    thief = MqttSession(own_broker.settings("backend"), client_id=known, on_message=lambda _message: None)
    thief.start()
    thief.wait_connected(WAIT_S)
    assert own_backend.audio("after", make_wav(1.0)).verdict is Verdict.ACCEPTED
    thief.stop()
    assert b"another client" not in own_bridge.log_file.read_bytes()
    assert own_bridge.log_file.read_bytes().count(b"connected") == 1


def test_a_message_nobody_can_read_is_survived_counted_and_told(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    received: list[Incoming] = []
    agent = MqttSession(mosquitto.settings("agent:first"), client_id="rude", on_message=received.append)
    agent.start()
    agent.wait_connected(WAIT_S)
    bridge.allow("first")  # of others nothing is read

    def told() -> str | None:
        for topic in (TOPICS.want("first"), TOPICS.agent_heartbeat("first"), TOPICS.failure("c1", "first")):
            agent.publish(topic, b"\x00 nothing of ours").wait(WAIT_S)
        return backend.seen(BridgeHeartbeat)[-1].last_error

    wait_until(lambda: "errors" in (told() or "") or "error 2" in (told() or ""), "the error in the heartbeat")
    assert "first" in (told() or "")
    agent.stop()
    assert backend.audio("after", make_wav(1.0)).verdict is Verdict.ACCEPTED


def test_a_conversation_that_cannot_be_assigned_stops_no_other(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from vps_bridge.ledger import Ledger

    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as bridge:
        bridge.allow("first")
        with ScriptedAgent(own_broker, "first") as agent:
            own_backend.send_call("broken", tone=1)
            offer = agent.wait_offer("broken")
            ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
            lease = ledger.leases.find(offer.lease_id or "")
            assert lease is not None
            assert ledger.jobs.store_result(lease, b"written by a version that is gone")
            ledger.close()
            agent.held.clear()
            own_backend.send_call("sound", tone=2)
            agent.answer(agent.wait_offer("sound"), CALL_TURNS)
            assert own_backend.wait_updated("sound").speakers == 2
        told = wait_until(lambda: own_backend.seen(BridgeHeartbeat)[-1].last_error, "the error in the heartbeat")
        assert "broken" in told
        assert own_backend.seen(ConversationUpdated, "broken") == []


def test_audio_is_unlinked_once_it_is_final_where_none_is_to_be_kept(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, OMI_KEEP_AUDIO_S="0") as bridge:
        bridge.allow("first")
        with ScriptedAgent(own_broker, "first") as agent:
            own_backend.send_call("short-lived")
            offer = agent.wait_offer("short-lived")
            assert len(list(bridge.spool.iterdir())) == 1
            agent.answer(offer, CALL_TURNS)
            own_backend.wait_updated("short-lived")
            wait_until(lambda: not list(bridge.spool.iterdir()), "the unlinking", 0.8 * SWEEP_S)
        again = own_backend.audio("short-lived", make_wav(30.0), chunk_id=offer.chunks[0].chunk_id)
        assert again.verdict is Verdict.ACCEPTED, "its id stays as a tombstone"
        assert list(bridge.spool.iterdir()) == []
        assert not any(b"OMI_BROKER_PASSWORD" in path.read_bytes() for path in [bridge.log_file])
        password = own_broker.users["bridge"].password.encode()
        assert password not in bridge.log_file.read_bytes()


def test_voice_samples_are_dropped_once_they_need_not_be_kept_and_the_result_stays(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from vps_bridge.ledger import Ledger

    soon = {"OMI_KEEP_AUDIO_S": "0", "OMI_KEEP_SAMPLES_S": "0"}  # the first asks for a sweep with the final labels
    times_s = struct.pack("<3f", 0, 10, 5)
    samples = VoiceSamples(count=1, times_s=times_s, speech=b"\xff" * 13, embeddings=b"\x00\x3c" * 8)
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **soon) as bridge:
        bridge.allow("first")
        with ScriptedAgent(own_broker, "first") as agent:
            own_backend.send_call("sampled")
            offer = agent.wait_offer("sampled")
            sent = agent.result(offer, CALL_TURNS).model_copy(update={"voice_samples": samples})
            agent.send_raw("sampled", encode(sent))
            own_backend.wait_updated("sampled")
            ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)

            def kept() -> SpeakerTurns:
                return decode(SpeakerTurns, ledger.jobs.results("sampled")[0].payload)

            wait_until(lambda: kept().voice_samples is None, "the samples to go", 0.8 * SWEEP_S)
            assert kept() == sent.model_copy(update={"voice_samples": None})
            ledger.close()


def test_a_job_whose_audio_grew_too_old_fails_and_says_so(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = {"OMI_KEEP_AUDIO_MAX_S": "1"}
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as bridge:
        own_backend.send_call("forgotten")
        wait_until(lambda: bridge.jobs("forgotten"), "the job")
        bridge.kill()
        time.sleep(1.0)
        bridge.start(own_backend, **options)
        assert own_backend.wait_updated("forgotten").failed_jobs == 1
        (failure,) = wait_until(lambda: own_backend.failures("forgotten"), "the failure")
        assert failure.code == "payload.incomplete"
        assert "publish it again" in failure.message


def test_final_waits_for_the_chunks_that_were_named(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.audio("named", make_wav(30.0, tone=1), sequence=0)
        backend.event("named", EventType.COMPLETED, chunks=2)
        agent.answer(agent.wait_offer("named"), CALL_TURNS)
        assert backend.wait_updated("named", final=False).state == "live"
        wait_until(lambda: "1 of 2 chunks to come" in (bridge.json("show", "named")["reason"] or ""), "the reason")
        time.sleep(1.2 * float(bridge.environment()["OMI_QUIET_S"]))  # which ends a conversation without names
        assert "1 of 2 chunks to come" in bridge.json("show", "named")["reason"]
        backend.audio("named", make_wav(30.0, tone=2), sequence=1)
        agent.answer(agent.wait_offer("named", after=1), CALL_TURNS)
        final = backend.wait_updated("named")
        assert final.audio_s == pytest.approx(60.0)
    backend.audio("named", make_wav(30.0, tone=3), sequence=2)
    wait_until(lambda: bridge.json("show", "named")["state"] == "waiting", "being taken back up")


def test_final_labels_say_that_audio_that_was_named_never_came_until_it_does(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, OMI_QUIET_S="0.3") as bridge,
        ScriptedAgent(own_broker, "first") as agent,
    ):
        bridge.command("agents", "allow", "first")
        own_backend.audio("lost", make_wav(30.0, tone=1), sequence=0)
        own_backend.event("lost", EventType.COMPLETED, chunks=2)
        agent.answer(agent.wait_offer("lost"), CALL_TURNS)
        update = own_backend.wait_updated("lost")
        assert update.warnings == ("audio.missing: of the 2 chunks that completed named, 1 came",)
        assert update.warnings[0] in bridge.command("show", "lost").stdout
        own_backend.audio("lost", make_wav(30.0, tone=2), sequence=1)
        agent.answer(agent.wait_offer("lost", after=1), CALL_TURNS)
        again = own_backend.wait_updated("lost", version=update.updated_version + 1)
        assert again.warnings == ()


def test_audio_that_is_only_kept_makes_room_in_a_full_queue(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = {"OMI_MAX_QUEUE_BYTES": str(len(make_wav(30.0)) + 1_000)}
    with (
        run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **options) as bridge,
        ScriptedAgent(own_broker, "first") as agent,
    ):
        bridge.command("agents", "allow", "first")
        own_backend.audio("done", make_wav(30.0, tone=1), sequence=0)
        refused = own_backend.audio("next", make_wav(30.0, tone=2), sequence=0)
        assert (refused.verdict, refused.reason) == (Verdict.REFUSED, "ingest.full")
        own_backend.event("done", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("done"), CALL_TURNS)
        own_backend.wait_updated("done")
        bridge.kill()
        bridge.start(own_backend, **options)  # which sweeps at once, and not only within a minute

        def is_accepted() -> bool:
            return own_backend.audio("later", make_wav(30.0, tone=3)).verdict is Verdict.ACCEPTED

        wait_until(is_accepted, "room for more", timeout_s=30.0)


def test_of_two_bridges_on_one_root_the_younger_stops(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as bridge:
        time.sleep(2.0)  # older by more than a tie
        other = LiveBridge(own_broker, tmp_path_factory.mktemp("other"))
        done = subprocess.run(
            [sys.executable, "-c", "from vps_bridge.commands.main import main; main()", "run"],
            env=other.environment(),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        assert "already serves omi/v1" in done.stderr
        assert bridge.process is not None
        assert bridge.process.poll() is None
        assert own_backend.audio("still", make_wav(1.0)).verdict is Verdict.ACCEPTED

        def retained() -> bool:
            beats = [beat for beat in own_backend.seen(BridgeHeartbeat) if beat.bridge_id == "bridge"]
            return beats[-1].state is BridgeState.ONLINE

        wait_until(retained, "the older one's beat over the younger one's farewell")


def test_a_bridge_on_a_ledger_in_use_refuses_to_start(bridge: LiveBridge) -> None:
    done = bridge.command("run", check=False)
    assert done.returncode == 3
    assert "another omi-bridge already runs" in done.stderr


def test_a_will_that_comes_late_is_corrected_at_once(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, OMI_HEARTBEAT_S="600"):
        beat = own_backend.seen(BridgeHeartbeat)[-1]
        will = beat.model_copy(
            update={"state": BridgeState.OFFLINE, "sent_at": datetime.now(UTC) - timedelta(seconds=5)}
        )
        liar = MqttSession(own_broker.settings("bridge"), client_id="liar", on_message=lambda _message: None)
        liar.start()
        liar.wait_connected(WAIT_S)
        liar.publish(TOPICS.bridge_heartbeat("bridge"), encode(will), retain=True).wait(WAIT_S)
        liar.stop()

        def corrected() -> bool:
            seen = [m for m in own_backend.messages if TOPICS.parse(m.topic).kind is TopicKind.BRIDGE_HEARTBEAT]
            states = [decode(BridgeHeartbeat, message.payload).state for message in seen]
            return BridgeState.OFFLINE in states and states[-1] is BridgeState.ONLINE

        wait_until(corrected, "`online` over the old will")
