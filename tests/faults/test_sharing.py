"""Several agents share the work; another one needs nothing but `omi-agent run`."""

from __future__ import annotations

from collections import Counter

from schemas.conversation import EventType
from tests.brokers import RunningBroker
from tests.faults.conftest import StartAgent
from tests.faults.tone_calls import assert_labelled, begin_call, call_audio
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, audio_payload, wait_until

CALLS = 12
PITCHES = (300, 700) * 3


def test_two_agents_share_a_backlog(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    """The jobs wait on the VPS while no agent is live. Then each of two agents does a fair part of them, and the first
    result of one does not wait for the other."""
    audio = call_audio(PITCHES)
    names = [f"backlog-{number}" for number in range(CALLS)]
    for name in names:
        begin_call(backend, name, PITCHES)
        backend.publish(TOPICS.audio(name), audio_payload(name, audio, chunk_id="c1"))
        backend.event(name, EventType.COMPLETED, chunks=1)
    wait_until(lambda: len(bridge.logged("job_ready")) >= CALLS, "the jobs")
    agents = [start_agent(broker, agent_id, behaviour="hold") for agent_id in ("first", "second")]
    for agent in agents:  # both have a job before either continues, however fast each of them started
        wait_until(lambda agent=agent: '"job runs"' in agent.log(), "its first job")  # type: ignore[misc]
    for agent in agents:
        agent.behaviour.write_text("wait 0.5")
    for name in names:
        assert_labelled(backend.wait_updated(name), PITCHES)
    done = Counter(line["agent"] for line in bridge.logged("turns", verdict="stored"))
    assert sum(done.values()) == CALLS
    assert min(done["first"], done["second"]) >= CALLS // 4, done
