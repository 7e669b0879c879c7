"""A time that no clock gave costs nobody anything: programs send the last moment of 9999 where they have none."""

from datetime import UTC, datetime

import pytest

from schemas.conversation import EventType
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, Backend, LiveBridge, call_segments
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav

LAST, FIRST = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize(("name", "moment", "tone"), [("last", LAST, 80), ("first", FIRST, 82)])
def test_audio_of_the_last_or_first_moment_there_is_goes_to_an_agent_and_holds_up_nobody(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge, name: str, moment: datetime, tone: int
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event(name, EventType.SEGMENTS, segments=call_segments(name))
        backend.audio(name, make_wav(CALL_S, tone=tone), captured_at=moment)
        backend.event(name, EventType.COMPLETED, chunks=1)
        other = f"beside-{name}"
        backend.send_call(other, tone=tone + 1)
        agent.answer(agent.wait_offer(other), CALL_TURNS)
        assert backend.wait_updated(other).speakers == 2
        offer = agent.wait_offer(name)
        assert offer.chunks[0].captured_at == moment.replace(microsecond=0)
        agent.answer(offer, CALL_TURNS)
        assert backend.wait_updated(name).failed_jobs == 0
