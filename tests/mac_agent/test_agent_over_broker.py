"""An agent's jobs over a broker: from an offer to turns, with parts lost, leases changed and offers repeated."""

from __future__ import annotations

import hashlib
import time

import httpx
import pytest

from mac_agent.inference import EMPTY_CHUNK
from tests.brokers import AGENT_ID, RunningBroker, free_port
from tests.mac_agent.sounds import as_wav, tone

TWO_VOICES = (as_wav(tone(300, 2)), as_wav(tone(700, 3)))
EXIT_SECOND_INSTANCE, EXIT_NO_ENGINE = 3, 4
PATIENT = {"want_timeout_s": 300, "retry_max_s": 300}  # nothing is lost, so nothing is asked for twice


@pytest.fixture
def broker(any_broker) -> RunningBroker:
    return any_broker


def test_an_offer_becomes_turns_and_is_offered_until_settled(broker, start_agent, small_bridge):
    bridge = small_bridge(broker)
    port = free_port()
    agent = start_agent(broker, part_bytes=16_384, metrics_port=port)
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
    assert "omi_agent_jobs_done_total 1.0\n" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
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
    start_agent(mosquitto, part_bytes=8_192, part_window=4, **PATIENT)
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
    ("chunks", "code"),
    [((b"this is no audio",), "audio.undecodable"), ((b"",), "audio.empty")],
    ids=["text", "empty"],
)
def test_audio_that_cannot_be_used_is_a_failure_that_is_not_retried(mosquitto, start_agent, small_bridge, chunks, code):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    bridge.wait_online()
    bridge.offer("job-1", *chunks)
    failure = bridge.wait_failure("job-1")
    assert (failure.code, failure.retryable, failure.chunk_id) == (code, False, f"job-1-chunk-{len(chunks) - 1}")
    assert failure.sha256 == hashlib.sha256(chunks[-1]).hexdigest()
    bridge.offer("job-2", TWO_VOICES[0])
    assert bridge.wait_turns("job-2").turns


def test_an_empty_chunk_costs_the_others_of_its_job_nothing_and_is_told(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0], b"")
    turns = bridge.wait_turns("job-1")
    assert [turn.speaker for turn in turns.turns] == ["TONE_300"]
    assert turns.warnings == (EMPTY_CHUNK,)


def test_a_chunk_that_cannot_be_decoded_costs_the_others_nothing_and_is_named(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto)
    bridge.wait_online()
    bridge.offer("job-1", TWO_VOICES[0], *[b"this is no audio"] * 5, TWO_VOICES[1])
    turns = bridge.wait_turns("job-1")
    assert [span.chunk_id for span in turns.chunks] == ["job-1-chunk-0", "job-1-chunk-6"]
    assert [turn.speaker for turn in turns.turns] == ["TONE_300", "TONE_700"]
    named = [chunk.chunk_id for chunk in turns.undecoded]
    assert named == [f"job-1-chunk-{place}" for place in range(1, 6)]
    *first, more = turns.warnings
    assert [line.split(": ")[:2] for line in first] == [["audio.undecodable", f"chunk {name}"] for name in named[:3]]
    assert more == "audio.undecodable: and 2 more chunks"


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
    agent = start_agent(mosquitto, behaviour="wait 2", **PATIENT)
    bridge.wait_online()
    for _ in range(5):
        bridge.offer("job-1", *TWO_VOICES)
        time.sleep(0.2)
    bridge.wait_turns("job-1")
    assert sum(len(want.ranges) for want in bridge.wants.items) == 2
    assert agent.log().count('"job runs"') == 1


def test_a_new_lease_for_held_work_keeps_the_work_and_names_the_new_lease(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, behaviour="hold")
    bridge.wait_online()
    bridge.offer("job-1", *TWO_VOICES)
    bridge.wait_beat(lambda beat: beat.state_of("job-1") == "running")
    bridge.offer("job-1", *TWO_VOICES, lease_id="lease-2")
    bridge.wait_beat(lambda beat: [job.lease_id for job in beat.message.jobs] == ["lease-2"])
    agent.behaviour.write_text("")
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
