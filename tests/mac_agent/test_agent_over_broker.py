from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time

import numpy as np
import psutil
import pytest

from schemas.agent import AgentControl, AgentState, ControlType
from schemas.bridge import BridgeState
from tests.brokers import AGENT_ID, RunningBroker
from tests.inbox import WAIT_S, eventually
from tests.mac_agent.small_bridge import TOPICS
from tests.mac_agent.sounds import as_wav, tone

TWO_VOICES = (as_wav(tone(300, 2)), as_wav(tone(700, 3)))
EXIT_SECOND_INSTANCE, EXIT_NO_ENGINE = 3, 4


@pytest.fixture
def broker(any_broker) -> RunningBroker:
    return any_broker


def test_an_offer_becomes_turns_and_is_offered_until_settled(broker, start_agent, small_bridge):
    bridge = small_bridge(broker)
    agent = start_agent(broker, part_bytes=16_384)
    bridge.wait_online()
    offer = bridge.offer("job-1", *TWO_VOICES)
    turns = bridge.wait_turns("job-1")

    assert (turns.lease_id, turns.attempt, turns.agent_id) == ("lease-1", 1, AGENT_ID)
    assert turns.conversation_id == offer.conversation_id
    assert [(round(turn.start_s, 1), round(turn.end_s, 1), turn.speaker) for turn in turns.turns] == [
        (0.0, 2.0, "TONE_300"),
        (2.0, 5.0, "TONE_700"),
    ]
    assert [(span.chunk_id, span.start_s, span.duration_s) for span in turns.chunks] == [
        ("job-1-chunk-0", 0.0, 2.0),
        ("job-1-chunk-1", 2.0, 3.0),
    ]
    assert [len(voice.embedding) for voice in turns.speakers] == [16, 16]
    assert turns.engine.name == "tone"
    assert 0.4 < turns.quality.peak < 0.6
    assert turns.timings_ms["total"] > 0
    assert agent.inbox_files() == []

    bridge.turns.wait_count(3)  # nobody settled: offered again and again
    assert all(again == turns for again in bridge.turns.items)
    bridge.settle("job-1")
    seen = len(bridge.beats.items)
    bridge.wait_beat(lambda beat: beat.state_of("job-1") is None, after=seen)
    offered = len(bridge.turns.items)
    time.sleep(2.5)
    assert len(bridge.turns.items) == offered


def test_no_more_parts_are_on_their_way_than_the_window_allows_and_half_of_it_is_asked_for_at_once(
    mosquitto, start_agent, small_bridge
):
    sent, most = 0, 0
    bridge = small_bridge(mosquitto)

    def count(part):
        nonlocal sent, most
        asked_now = sum(len(want.ranges) for want in bridge.wants.items)
        most = max(most, asked_now - sent)
        sent += 1
        return [part]

    bridge.tamper = count
    start_agent(mosquitto, part_bytes=8_192, part_window=4)
    bridge.wait_online()
    bridge.offer("job-1", as_wav(tone(300, 20)), as_wav(tone(300, 20)))
    bridge.wait_turns("job-1")
    assert sent > 100
    assert most <= 4
    assert len(bridge.wants.items) <= sent / 2 + 3  # where one chunk ends and the next begins, less is asked for


def test_parts_damaged_lost_doubled_and_out_of_order_do_no_harm(broker, start_agent, small_bridge):
    seen: dict[int, int] = {}
    late = []

    def tamper(part):
        seen[part.byte_offset] = seen.get(part.byte_offset, 0) + 1
        if seen[part.byte_offset] > 1:
            return [part]
        match (part.byte_offset // 8_192) % 5:
            case 0:
                return [part.model_copy(update={"audio": bytes(len(part.audio))})]
            case 1:
                return []
            case 2:
                return [part, part]
            case 3:
                late.append(part)
                return []
            case _:
                return [part, *(late.pop() for _ in range(len(late)))]

    bridge = small_bridge(broker, tamper=tamper)
    start_agent(broker, part_bytes=8_192)
    bridge.wait_online()
    bridge.offer("job-1", as_wav(tone(300, 6)))
    turns = bridge.wait_turns("job-1")
    assert turns.duration_s == pytest.approx(6.0, abs=0.01)
    assert [turn.speaker for turn in turns.turns] == ["TONE_300"]


def test_a_chunk_that_never_has_its_sha256_fails_and_says_so(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto)
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0], sha256=hashlib.sha256(b"other").hexdigest())
    failure = bridge.wait_failure("job-1")
    assert (failure.code, failure.retryable) == ("payload.sha256_mismatch", True)
    assert (failure.lease_id, failure.chunk_id) == ("lease-1", "job-1-chunk-0")
    assert agent.inbox_files() == []


@pytest.mark.parametrize(
    ("audio", "code"), [(b"this is no audio", "audio.undecodable"), (b"", "audio.empty")], ids=["text", "empty"]
)
def test_audio_that_cannot_be_used_is_a_failure_that_is_not_retried(mosquitto, start_agent, small_bridge, audio, code):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0], audio)
    failure = bridge.wait_failure("job-1")
    assert (failure.code, failure.retryable, failure.chunk_id) == (code, False, "job-1-chunk-1")
    assert failure.sha256 == hashlib.sha256(audio).hexdigest()
    bridge.offer("job-2", TWO_VOICES[0])
    assert bridge.wait_turns("job-2").turns


def test_a_job_that_crashes_the_worker_fails_and_the_next_one_runs(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto, behaviour="once crash")
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0])
    failure = bridge.wait_failure("job-1")
    assert (failure.code, failure.retryable) == ("engine.crashed", True)
    bridge.offer("job-1", TWO_VOICES[0], lease_id="lease-2", attempt=2)
    turns = bridge.wait_turns("job-1")
    assert (turns.lease_id, turns.attempt) == ("lease-2", 2)


def test_the_same_offer_again_changes_nothing(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, behaviour="wait 2")
    bridge.wait_online()
    for _ in range(5):
        bridge.offer("job-1", *TWO_VOICES)
        time.sleep(0.2)
    bridge.wait_turns("job-1")
    assert sum(len(want.ranges) for want in bridge.wants.items) == 2
    assert agent.log().count('"job runs"') == 1


def test_a_new_lease_for_held_work_keeps_the_work_and_names_the_new_lease(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, behaviour="wait 3")
    bridge.wait_online()
    bridge.offer("job-1", *TWO_VOICES)
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "running")
    bridge.offer("job-1", *TWO_VOICES, lease_id="lease-2")
    assert bridge.wait_turns("job-1").lease_id == "lease-2"
    assert agent.log().count('"job runs"') == 1


def test_another_bridge_cannot_take_settle_or_cancel_a_held_job(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto, behaviour="wait 2")
    bridge.wait_online()
    bridge.offer("job-1", *TWO_VOICES)
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "running")
    bridge.offer("job-1", *TWO_VOICES, lease_id="lease-9", ledger_id="ledger-2")
    bridge.settle("job-1", ledger_id="ledger-2")
    assert bridge.wait_turns("job-1").lease_id == "lease-1"


def test_no_more_jobs_are_held_than_allowed_and_the_rest_is_taken_later(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto, settles=True)
    start_agent(mosquitto, behaviour="wait 1", max_jobs=2)
    assert bridge.wait_online().free_capacity == 2
    for number in range(4):
        bridge.offer(f"job-{number}", TWO_VOICES[0])
    bridge.wait_turns("job-1")
    assert all(len(beat.message.jobs) <= 3 for beat in bridge.beats.items)
    for number in (2, 3):
        bridge.offer(f"job-{number}", TWO_VOICES[0])
        bridge.wait_turns(f"job-{number}")


def test_a_cancelled_job_is_forgotten_at_once(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, behaviour="once wait 60")
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0])
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "running")
    seen = len(bridge.beats.items)
    bridge.cancel("job-1")
    bridge.wait_beat(lambda beat: not beat.message.jobs, after=seen)
    assert agent.inbox_files() == []
    bridge.offer("job-2", TWO_VOICES[0])
    bridge.wait_turns("job-2")
    assert bridge.failures.items == []


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
    assert not any(beat.message.state is AgentState.OFFLINE for beat in bridge.beats.items)
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
    """The broker says that it is gone; what the agent said since then, nobody has heard."""
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
    second = start_agent(mosquitto, data_dir=tmp_path / "other")
    assert second.process.wait(WAIT_S) == EXIT_SECOND_INSTANCE
    assert "Another agent named" in second.log()
    seen = len(bridge.beats.items)
    assert bridge.wait_online(after=seen).instance_id == first.instance_id
    assert not any(
        beat.message.instance_id != first.instance_id and beat.message.state in (AgentState.STOPPED, AgentState.OFFLINE)
        for beat in bridge.beats.items
    )


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
    agent = start_agent(mosquitto, max_jobs=2, part_bytes=8_192, **{patience: 2})
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0])
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "receiving")
    seen = len(bridge.beats.items)
    bridge.wait_beat(lambda beat: not beat.message.jobs and beat.message.free_capacity == 2, after=seen)
    assert agent.inbox_files() == []
    assert bridge.failures.items == []


def test_a_result_no_broker_carries_becomes_a_failure_that_says_so(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto, assumed_max_packet_bytes=6_000)
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


def test_no_id_of_a_message_reaches_the_disk_or_audio_the_log(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, behaviour="wait 1")
    bridge.wait_online()
    bridge.offer("job-with-a-telling-name", TWO_VOICES[0])
    names: set[str] = set()
    deadline = time.monotonic() + 20
    while not bridge.turns.items and time.monotonic() < deadline:
        names |= {path.name for path in agent.data_dir.rglob("*")}
        time.sleep(0.01)
    assert names
    assert not any("telling" in name for name in names)
    assert (agent.data_dir / "inbox").stat().st_mode & 0o777 == 0o700
    assert (agent.data_dir / "outbox.sqlite").stat().st_mode & 0o777 == 0o600
