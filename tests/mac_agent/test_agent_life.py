"""An agent's life on a broker: its heartbeats, its end, bridges and brokers that come and go, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from datetime import timedelta

import numpy as np
import psutil
import pytest

from broker.session import MqttSession
from schemas.agent import AgentControl, AgentState, ControlType
from schemas.bridge import BridgeState
from schemas.codec import encode
from tests.brokers import AGENT_ID, RunningBroker, require_program
from tests.clearing import clear_as_told
from tests.inbox import WAIT_S, eventually
from tests.mac_agent.small_bridge import TOPICS
from tests.mac_agent.sounds import as_wav, tone
from tests.pace import paced

TWO_VOICES = (as_wav(tone(300, 2)), as_wav(tone(700, 3)))
EXIT_SECOND_INSTANCE, EXIT_NO_ENGINE = 3, 4


@pytest.fixture
def broker(any_broker) -> RunningBroker:
    return any_broker


def test_heartbeats_tell_the_life_of_a_job(broker, start_agent, small_bridge):
    bridge = small_bridge(broker)
    start_agent(broker, behaviour="wait 2", part_bytes=16_384, heartbeat_s=0.2)
    first = bridge.wait_beat(lambda beat: not beat.retained)
    online = bridge.wait_online()
    assert first.state is AgentState.STARTING
    assert first.free_capacity == 0
    assert online.engine.embedding_model == "pitch"
    assert online.memory.agent_rss_bytes > 10_000_000
    assert online.memory.worker_rss_bytes > 10_000_000
    bridge.offer("job-1", as_wav(tone(300, 5)))
    bridge.wait_turns("job-1")
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "outbox")
    states = list(dict.fromkeys(beat.state_of("job-1") for beat in bridge.beats.items if beat.state_of("job-1")))
    assert [state for state in states if state != "queued"] == ["receiving", "running", "outbox"]
    bridge.settle("job-1")
    done = bridge.wait_beat(lambda beat: beat.message.jobs_done == 1 and not beat.message.jobs)
    assert done.speed_x_real_time > 0


def test_killed_agent_is_offline_and_its_result_survives_it(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto)
    born = bridge.wait_online()
    bridge.offer("job-1", *TWO_VOICES)
    turns = bridge.wait_turns("job-1")
    agent.behaviour.write_text("wait 60")
    bridge.offer("job-2", *TWO_VOICES)
    bridge.wait_beat(lambda beat: beat.state_of("job-2") == "running")
    bridge.offer("job-3", *TWO_VOICES)
    eventually(lambda: agent.inbox_files() != [])
    children = psutil.Process(agent.pid).children(recursive=True)
    agent.kill()

    gone = bridge.wait_beat(lambda beat: beat.message.state is AgentState.OFFLINE)
    assert gone.instance_id == born.instance_id
    eventually(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    assert agent.inbox_files() != []  # nobody was left to unlink it

    offered = len(bridge.turns.items)
    start_agent(mosquitto)
    back = bridge.wait_beat(
        lambda beat: beat.message.instance_id != born.instance_id and beat.message.state is AgentState.ONLINE
    )
    assert [(job.job_id, job.state.value) for job in back.jobs] == [("job-1", "outbox")]
    assert bridge.turns.wait_count(offered + 1)[-1] == turns
    assert agent.inbox_files() == []


def test_an_agent_that_nobody_allowed_says_so_once_and_what_to_type(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto)
    bridge.wait_online()
    for _ in range(3):
        bridge.beat(waiting=["other", AGENT_ID])
    eventually(lambda: f"omi-bridge agents allow {AGENT_ID}" in agent.log())
    bridge.beat(instance_id="b-later")
    eventually(lambda: agent.log().count("bridge is there") == 2)
    assert agent.log().count("agents allow") == 1


def test_a_stopped_agent_says_so_and_leaves_nothing_behind(broker, start_agent, small_bridge):
    bridge = small_bridge(broker)
    agent = start_agent(broker, behaviour="spin 60")
    born = bridge.wait_online()
    bridge.offer("job-1", *TWO_VOICES)
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "running")
    bridge.offer("job-2", *TWO_VOICES)
    children = psutil.Process(agent.pid).children(recursive=True)
    assert agent.stop() == 0
    last = bridge.wait_beat(lambda beat: beat.message.state is AgentState.STOPPED)
    assert last.instance_id == born.instance_id
    states = [beat.message.state for beat in bridge.beats.items]
    # Not behind it: where the connection closes at once, amqtt now and then publishes the will of who has said goodbye.
    assert AgentState.OFFLINE not in states[: states.index(AgentState.STOPPED)]
    assert agent.inbox_files() == []
    eventually(lambda: not any(child.is_running() for child in children))


def test_results_are_offered_to_a_bridge_that_begins_and_wants_repeated(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto, tamper=lambda part: [])
    start_agent(mosquitto, offer_retry_s=300, want_timeout_s=300, retry_max_s=300)
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0])
    bridge.wants.wait_count(1)
    bridge.tamper = lambda part: [part]
    bridge.beat(instance_id="b-second")
    bridge.wait_turns("job-1")
    assert len(bridge.turns.items) == 1
    bridge.beat(instance_id="b-third")
    bridge.turns.wait_count(2)


def test_results_are_offered_to_a_bridge_that_was_away_and_wants_repeated(mosquitto, start_agent, small_bridge):
    """The broker reports the bridge offline: what the agent sent since then did not arrive."""
    bridge = small_bridge(mosquitto, tamper=lambda part: [])
    start_agent(mosquitto, offer_retry_s=300, want_timeout_s=300, retry_max_s=300)
    bridge.wait_online()
    bridge.beat()
    bridge.offer("job-1", TWO_VOICES[0])
    bridge.wants.wait_count(1)
    bridge.beat()  # the same bridge, there all the time: nothing was lost
    time.sleep(1)
    assert len(bridge.wants.items) == 1
    bridge.tamper = lambda part: [part]
    bridge.beat(state=BridgeState.OFFLINE)
    bridge.beat()
    bridge.wait_turns("job-1")
    assert len(bridge.turns.items) == 1
    bridge.beat(state=BridgeState.OFFLINE)
    bridge.beat()
    bridge.turns.wait_count(2)


def test_a_broker_that_restarts_costs_nothing(broker, start_agent, small_bridge):
    bridge = small_bridge(broker)
    # The result may be offered before the bridge is back; a broker that forgot everybody drops it, the timer does not.
    start_agent(broker, behaviour="wait 3", want_timeout_s=300, offer_retry_s=5, retry_max_s=300)
    bridge.wait_online()
    bridge.offer("job-1", *TWO_VOICES)
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "running")
    seen = len(bridge.beats.items)
    broker.kill()
    time.sleep(1)
    broker.start()
    bridge.wait_online(after=seen)
    assert bridge.wait_turns("job-1").turns


def test_a_second_agent_of_the_same_name_stops_and_says_why(mosquitto, start_agent, small_bridge, tmp_path):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    first = bridge.wait_online()
    time.sleep(2.5)  # older by more than a tie
    second = start_agent(mosquitto, data_dir=tmp_path / "other")
    assert second.process.wait(WAIT_S) == EXIT_SECOND_INSTANCE
    assert "Another agent named" in second.log()
    seen = len(bridge.beats.items)
    assert bridge.wait_online(after=seen).instance_id == first.instance_id
    assert not any(
        beat.message.instance_id != first.instance_id and beat.message.state in (AgentState.STOPPED, AgentState.OFFLINE)
        for beat in bridge.beats.items
    )


def test_no_wall_clock_says_which_of_two_agents_of_one_name_stops(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto)
    own = bridge.wait_online()
    time.sleep(2.5)  # older by more than a tie
    hour = timedelta(hours=1)
    other = own.model_copy(update={"instance_id": "i-other", "uptime_s": 0.0})
    younger_by_uptime = {"sent_at": own.sent_at + hour, "started_at": own.started_at - hour}
    session = MqttSession(mosquitto.settings("agent"), client_id="other", on_message=lambda _message: None)
    session.start()
    session.wait_connected(WAIT_S)
    session.publish(TOPICS.agent_heartbeat(AGENT_ID), encode(other.model_copy(update=younger_by_uptime))).wait(WAIT_S)
    seen = len(bridge.beats.items)
    for count in range(1, 4):
        bridge.wait_online(after=seen + count)
    assert agent.process.poll() is None
    older_by_uptime = {"started_at": own.started_at + hour, "uptime_s": 3_600.0}
    session.publish(TOPICS.agent_heartbeat(AGENT_ID), encode(other.model_copy(update=older_by_uptime))).wait(WAIT_S)
    assert agent.process.wait(WAIT_S) == EXIT_SECOND_INSTANCE
    session.stop()


def test_two_agents_in_one_data_directory_are_refused(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    bridge.wait_online()
    second = start_agent(mosquitto)
    assert second.process.wait(WAIT_S) == EXIT_SECOND_INSTANCE
    assert "OMI_DATA_DIR" in second.log()


def test_an_agent_called_offline_by_mistake_corrects_it(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, heartbeat_s=300, keepalive_s=5)
    born = bridge.wait_online()
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        bridge.wait_beat(lambda beat: beat.message.state is AgentState.OFFLINE)  # the broker gave up waiting
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    seen = len(bridge.beats.items)
    assert bridge.wait_online(after=seen - 1).instance_id == born.instance_id


def test_drain_finishes_what_is_held_and_takes_nothing_new(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto, behaviour="wait 1")
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0])
    bridge.wait_beat(lambda beat: beat.state_of("job-1") is not None)
    bridge.say(AgentControl(type=ControlType.DRAIN, ledger_id=bridge.ledger_id))
    draining = bridge.wait_beat(lambda beat: beat.message.state is AgentState.DRAINING)
    assert draining.free_capacity == 0
    bridge.offer("job-2", TWO_VOICES[0])
    assert bridge.wait_turns("job-1").turns
    assert not any(beat.state_of("job-2") for beat in bridge.beats.items)


@pytest.mark.parametrize("patience", ["give_up_s", "audio_max_age_s"])
def test_a_job_whose_audio_stops_coming_is_let_go(mosquitto, start_agent, small_bridge, patience):
    bridge = small_bridge(mosquitto, tamper=lambda part: [part] if part.byte_offset == 0 else [])
    agent = start_agent(mosquitto, max_jobs=2, part_bytes=8_192, **{patience: paced(2.0)})
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0])
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "receiving")
    seen = len(bridge.beats.items)
    bridge.wait_beat(lambda beat: not beat.message.jobs and beat.message.free_capacity == 2, after=seen)
    assert agent.inbox_files() == []
    assert bridge.failures.items == []


def test_a_result_no_broker_carries_becomes_a_failure_that_says_so(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto, assumed_max_packet_bytes=6_000, mqtt_version="3.1.1")  # which announces no limit
    bridge.wait_online()
    bridge.offer("job-1", as_wav(np.concatenate([tone(300 + 400 * (n % 2), 0.2) for n in range(300)])))
    failure = bridge.wait_failure("job-1")
    assert (failure.code, failure.retryable) == ("ingest.too_large", False)
    bridge.offer("job-2", TWO_VOICES[0])
    assert bridge.wait_turns("job-2").turns


def test_ping_is_answered_with_a_heartbeat(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto, heartbeat_s=300)
    bridge.wait_online()
    time.sleep(0.5)
    seen = len(bridge.beats.items)
    bridge.say(AgentControl(type=ControlType.PING, ledger_id=bridge.ledger_id))
    bridge.wait_online(after=seen)


def test_an_agent_without_an_engine_stops_and_says_what_to_do(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, behaviour="cannot-load")
    assert agent.process.wait(WAIT_S) == EXIT_NO_ENGINE
    assert "OMI_DEVICE" in agent.log()
    with contextlib.suppress(AssertionError):  # it may end before it was ever connected
        last = bridge.wait_beat(lambda beat: beat.message.state is AgentState.STOPPED)
        assert "OMI_DEVICE" in (last.last_error or "")


def test_messages_that_are_none_are_survived(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    bridge.wait_online()
    for payload in (b"", b"{", b"\xff" * 1000, b'{"schema":"agent-control","version":"9.0"}', b"[1,2]"):
        bridge.session.publish(TOPICS.control(AGENT_ID), payload)
        bridge.session.publish(TOPICS.parts("conversation-1", AGENT_ID), payload)
    bridge.offer("job-1", TWO_VOICES[0])
    assert bridge.wait_turns("job-1").turns


def test_a_message_that_the_broker_keeps_and_nobody_can_read_is_cleared_by_what_the_heartbeat_says(
    mosquitto, start_agent, small_bridge
):
    require_program("mosquitto_pub", "mosquitto-clients")
    bridge = small_bridge(mosquitto)
    bridge.session.publish(TOPICS.control(AGENT_ID), b"{", retain=True).wait(WAIT_S)
    agent = start_agent(mosquitto)
    ill = bridge.wait_beat(lambda beat: "mosquitto_pub" in (beat.message.last_error or ""))
    agent.stop()
    clear_as_told(mosquitto, ill.last_error)
    start_agent(mosquitto)
    again = bridge.wait_beat(
        lambda beat: beat.message.state is AgentState.ONLINE and beat.message.instance_id != ill.instance_id
    )
    assert again.last_error is None


def test_no_id_of_a_message_reaches_the_disk_or_audio_the_log(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, behaviour="wait 1")
    bridge.wait_online()
    bridge.offer("job-with-a-telling-name", TWO_VOICES[0])
    names: set[str] = set()
    deadline = time.monotonic() + WAIT_S
    while not bridge.turns.items and time.monotonic() < deadline:
        names |= {path.name for path in agent.data_dir.rglob("*")}
        time.sleep(0.01)
    assert names
    assert not any("telling" in name for name in names)
    assert (agent.data_dir / "inbox").stat().st_mode & 0o777 == 0o700
    assert (agent.data_dir / "outbox.sqlite").stat().st_mode & 0o777 == 0o600


def test_no_client_id_can_be_worked_out_from_a_heartbeat(mosquitto, start_agent, small_bridge):
    """A second connection under a known client id takes the first one over."""
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    born = bridge.wait_online()
    thief = MqttSession(
        mosquitto.settings("backend"), client_id=f"{AGENT_ID}-{born.instance_id}", on_message=lambda _message: None
    )
    thief.start()
    thief.wait_connected(WAIT_S)
    bridge.offer("job-1", *TWO_VOICES)
    bridge.wait_turns("job-1")
    thief.stop()
    assert not [beat for beat in bridge.beats.items if beat.message.state is AgentState.OFFLINE]
