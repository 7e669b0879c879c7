"""What an agent says again, and when: that its engine is back, a beat that is too large, wants for lost parts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

from mac_agent.heartbeat import AgentCounters, AgentIdentity
from mac_agent.held_jobs import HeldJobs
from mac_agent.inbox import Inbox
from mac_agent.outbox import Outbox
from mac_agent.own_heartbeat import OwnHeartbeat
from mac_agent.settings import AgentSettings
from mac_agent.worker import Worker, read_limits
from schemas.agent import AgentState
from tests.mac_agent.sounds import as_wav, tone
from tests.mac_agent.tone_engine import load_tone_engine

A_LONG_TIME_S = 3_600


def test_a_bridge_learns_at_once_that_an_engine_is_gone_and_back(mosquitto, start_agent, small_bridge):
    bridge = small_bridge(mosquitto)
    agent = start_agent(mosquitto, heartbeat_s=A_LONG_TIME_S)
    places = bridge.wait_beat(lambda beat: beat.message.free_capacity > 0).free_capacity
    seen = len(bridge.beats.items)
    for child in agent.children():
        child.kill()
    assert bridge.wait_beat(lambda beat: beat.message.free_capacity == 0, after=seen).state is AgentState.ONLINE
    seen = len(bridge.beats.items)
    assert bridge.wait_beat(lambda beat: beat.message.free_capacity > 0, after=seen).free_capacity == places


def test_a_beat_that_cannot_be_sent_is_tried_once_in_the_time_between_two(tmp_path):
    settings = AgentSettings(data_dir=tmp_path, agent_id="studio")
    inbox, outbox = Inbox(settings.inbox), Outbox(settings.outbox, retry_s=15, retry_max_s=300)
    try:
        counters, worker = (
            AgentCounters(),
            Worker(partial(load_tone_engine, tmp_path / "behaviour"), read_limits(settings)),
        )
        held_jobs = HeldJobs(settings, inbox, outbox, worker, counters)
        identity = AgentIdentity("studio", "i-1", datetime.now(UTC), time.monotonic())
        beat = OwnHeartbeat(identity, counters, held_jobs, worker, engine_reason="", heartbeat_s=A_LONG_TIME_S)
        tried: list[AgentState] = []

        def send(heartbeat) -> bool:
            tried.append(heartbeat.state)
            return len(tried) > 2

        for state in (AgentState.STARTING, AgentState.ONLINE, AgentState.DRAINING):
            beat.state = state
            beat.send_if_due(send, is_connected=True)
        assert tried == [AgentState.STARTING]
        beat.send_soon()  # a new connection
        beat.send_if_due(send, is_connected=True)
        beat.send_if_due(send, is_connected=True)
        assert tried == [AgentState.STARTING, AgentState.DRAINING]
        beat.send_soon()
        beat.send_if_due(send, is_connected=True)
        beat.state = AgentState.STOPPED
        beat.send_if_due(send, is_connected=True)
        assert tried[2:] == [AgentState.DRAINING, AgentState.STOPPED]
    finally:
        outbox.close()
        inbox.close()


def test_audio_that_is_missing_is_asked_for_at_once_when_the_bridge_offers_the_job_again(
    mosquitto, start_agent, small_bridge
):
    bridge = small_bridge(mosquitto)
    start_agent(mosquitto, want_timeout_s=A_LONG_TIME_S, offer_retry_s=A_LONG_TIME_S, retry_max_s=A_LONG_TIME_S)
    bridge.wait_online()
    bridge.tamper = lambda _: []  # every part is lost
    speech = as_wav(tone(300, 2))
    for times, lease_id in enumerate(("lease-1", "lease-1", "lease-2"), start=1):
        bridge.offer("job-1", speech, lease_id=lease_id)
        assert bridge.wants.wait_count(times)[-1].lease_id == lease_id
    bridge.tamper = lambda part: [part]
    bridge.offer("job-1", speech, lease_id="lease-2")
    assert bridge.wait_turns("job-1").turns
