"""An allowed agent whose results are far too large, or name audio of others, harms its own job only."""

from collections.abc import Callable

import pytest

from schemas.codec import encode
from schemas.conversation import Verdict
from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerTurns
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge
from tests.vps_bridge.scripted_agent import ScriptedAgent


def too_many(result: SpeakerTurns) -> SpeakerTurns:
    said = tuple(SpeakerTurn(start_s=n / 1000, end_s=(n + 1) / 1000, speaker=f"s{n % 50}") for n in range(20_000))
    return result.model_copy(update={"turns": said, "exclusive_turns": said})


def of_others(result: SpeakerTurns) -> SpeakerTurns:
    other = ChunkSpan(chunk_id="c-of-another-job", start_s=0.0, duration_s=604_800.0)
    return result.model_copy(update={"chunks": (*result.chunks, other)})


def twice(result: SpeakerTurns) -> SpeakerTurns:
    return result.model_copy(update={"chunks": result.chunks * 2})


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("many", too_many, "it has 20,000 turns, more than 320 in 30 s of audio"),
        ("others", of_others, "chunks that are not its job's"),
        ("twice", twice, "it names chunks twice"),
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
