"""An allowed agent whose results are far too large, or name audio of others, harms its own job only."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from schemas.codec import encode
from schemas.conversation import Verdict
from schemas.turns import ChunkSpan, EngineDescription, SpeakerTurn, SpeakerTurns
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.dispatch.result_bounds import bound_lengths
from vps_bridge.ledger.records import ChunkRecord, JobChunk


def too_many(result: SpeakerTurns) -> SpeakerTurns:
    said = tuple(SpeakerTurn(start_s=n / 1000, end_s=(n + 1) / 1000, speaker=f"s{n % 50}") for n in range(20_000))
    return result.model_copy(update={"turns": said, "exclusive_turns": said})


def of_others(result: SpeakerTurns) -> SpeakerTurns:
    other = ChunkSpan(chunk_id="c-of-another-job", start_s=0.0, duration_s=604_800.0)
    return result.model_copy(update={"chunks": (*result.chunks, other)})


def twice(result: SpeakerTurns) -> SpeakerTurns:
    return result.model_copy(update={"chunks": result.chunks * 2})


def of_none(result: SpeakerTurns) -> SpeakerTurns:
    return result.model_copy(update={"chunks": ()})


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("many", too_many, "it has 20,000 turns, more than 320 in 30 s of audio"),
        ("others", of_others, "chunks that are not its job's"),
        ("twice", twice, "it names chunks twice"),
        ("left-out", of_none, "it does not say what became of 1 of the 1 chunks of its job"),
    ],
)
def test_a_result_that_cannot_be_of_its_job_is_refused_and_counts_as_an_attempt(
    mosquitto: RunningBroker,
    backend: Backend,
    bridge: LiveBridge,
    name: str,
    spoil: Callable[[SpeakerTurns], SpeakerTurns],
    words: str,
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call(name, tone=1)
        offer = agent.wait_offer(name)
        agent.send_raw(name, encode(spoil(agent.result(offer, CALL_TURNS))))
        agent.held.clear()
        settled = agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id)
        assert settled.verdict is Verdict.REFUSED
        again = agent.wait_offer(name, after=1)
        assert again.attempt == 2
        (job,) = bridge.jobs(name)
        assert words in job["failure_message"]
        agent.answer(again, CALL_TURNS)
        assert backend.wait_updated(name).speakers == 2


def test_a_chunk_that_is_said_to_be_a_week_long_keeps_its_length(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("week", tone=1)
        offer = agent.wait_offer("week")
        result = agent.result(offer, CALL_TURNS)
        week = tuple(span.model_copy(update={"duration_s": 604_800.0}) for span in result.chunks)
        agent.send_raw("week", encode(result.model_copy(update={"chunks": week})))
        agent.held.clear()
        assert agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id).verdict is Verdict.STORED
        update = backend.wait_updated("week")
    assert (update.speakers, round(update.audio_s)) == (2, 30)
    assert bridge.logged("decoded_lengths_ignored", agent="first")


KNOWN = ChunkRecord(
    arrival=1,
    conversation_id="c",
    chunk_id="k",
    sequence=None,
    captured_at_s=None,
    encoding="mp4",
    sample_rate=None,
    channels=None,
    duration_s=30.0,
    duration_estimated=False,
    captured_error_s=0.0,
    sha256="0" * 64,
    bytes=240_000,
    spool_name="s",
    accepted_at=0.0,
    covered=True,
)
RAW = {"encoding": "pcm_s16le", "sample_rate": 8_000, "channels": 1}


@pytest.mark.parametrize(
    ("fields", "decoded_s", "kept_s"),
    [
        ({}, 31.0, 31.0),
        ({"duration_s": 5.0}, 600.0, 600.0),  # its publisher was wrong
        ({}, 1_300.0, 30.0),
        ({"duration_estimated": True}, 1_300.0, 1_300.0),  # silence takes few bytes
        ({"duration_estimated": True, "bytes": 800}, 101.0, 30.0),
        ({"bytes": 2**30}, 14_401.0, 30.0),  # longer than any job may be
        (RAW, 15.5, 15.5),
        (RAW, 30.5, 30.0),
    ],
)
def test_a_decoded_length_counts_as_far_as_the_bytes_can_hold_it(
    fields: dict[str, Any], decoded_s: float, kept_s: float
) -> None:
    engine = EngineDescription(name="test")
    span = ChunkSpan(chunk_id="k", start_s=0.0, duration_s=decoded_s)
    result = SpeakerTurns(
        conversation_id="c",
        job_id="j",
        lease_id="l",
        agent_id="a",
        engine=engine,
        chunks=(span,),
        turns=(),
        exclusive_turns=(),
    )
    bounded = bound_lengths(result, [JobChunk(replace(KNOWN, **fields), None, fresh=True)], 14_400.0)
    assert bounded.chunks[0].duration_s == kept_s
    assert (bounded is result) == (decoded_s == kept_s)
