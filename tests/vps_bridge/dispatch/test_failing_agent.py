"""An agent whose engine fails with everything costs no conversation its labels, while another agent could do it."""

import time
from datetime import timedelta

import pytest

from schemas.codec import encode
from schemas.conversation import EventType
from schemas.failure import FailureCode, policy_of
from schemas.turns import UndecodedChunk
from tests.brokers import RunningBroker
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.ledger.test_ledger import add_job
from tests.vps_bridge.live_bridge import (
    CALL_S,
    CALL_TURNS,
    STARTED_AT,
    Backend,
    LiveBridge,
    call_segments,
    wait_until,
)
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.dispatch.ready_jobs import find_ready_jobs
from vps_bridge.ledger import Ledger
from vps_bridge.rules.lease import AgentCapacity, LeaseEnd

VOICES = ("model", "1")
FIRST_TONE = {FailureCode.ENGINE_CRASHED: 50, FailureCode.AUDIO_UNDECODABLE: 100, FailureCode.AUDIO_TOO_LONG: 110}
RESTS_S = 2.0  # longer than the bridge of these tests lets a job rest after the first failure


def test_what_it_failed_with_waits_for_the_one_that_is_busy_and_it_goes_on_with_the_rest(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "second", places=1) as healthy:
        backend.send_call("busy", tone=40)
        busy = healthy.wait_offer("busy")
        with ScriptedAgent(mosquitto, "first") as broken:
            backend.send_call("tried", tone=41)
            broken.fail(broken.wait_offer("tried"))
            time.sleep(RESTS_S)
            backend.send_call("next", tone=42)
            broken.answer(broken.wait_offer("next"), CALL_TURNS)
            assert len(broken.leases("tried")) == 1
            healthy.answer(busy, CALL_TURNS)
            healthy.answer(healthy.wait_offer("tried"), CALL_TURNS)
            assert backend.wait_updated("tried").speakers == 2
    assert {bridge.jobs(name)[0]["state"] for name in ("busy", "tried", "next")} == {"done"}


@pytest.mark.parametrize(
    "code", [FailureCode.ENGINE_CRASHED, FailureCode.AUDIO_UNDECODABLE, FailureCode.AUDIO_TOO_LONG]
)
def test_of_two_agents_one_that_fails_at_once_with_everything_leaves_all_to_the_other(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge, code: FailureCode
) -> None:
    names = [f"{code.name}-{number}" for number in range(8)]
    with AnsweringAgent(mosquitto, "second") as healthy, ScriptedAgent(mosquitto, "first") as broken:
        for number, name in enumerate(names):
            backend.send_call(name, tone=FIRST_TONE[code] + number)
        answered: set[str] = set()

        def fail_all() -> bool:
            for offer in list(broken.offers.items):
                if offer.lease_id is not None and offer.lease_id not in answered:
                    answered.add(offer.lease_id)
                    broken.fail(offer, code, retryable=policy_of(code).is_retryable)
            return all(bridge.jobs(name)[0]["state"] in ("done", "failed") for name in names)

        wait_until(fail_all, "the end of all jobs")
    assert [bridge.jobs(name)[0]["state"] for name in names] == ["done"] * len(names)
    assert healthy.offers.items


def test_a_chunk_that_one_agent_cannot_decode_goes_to_the_other(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    name, half_s = "one-codec", CALL_S / 2
    with ScriptedAgent(mosquitto, "second", places=0) as healthy, ScriptedAgent(mosquitto, "first") as broken:
        backend.event(name, EventType.STARTED, started_at=STARTED_AT)
        backend.event(name, EventType.SEGMENTS, segments=call_segments(name))
        for number in range(2):
            captured_at = STARTED_AT + timedelta(seconds=number * half_s)
            backend.audio(name, make_wav(half_s, tone=80 + number), captured_at=captured_at, sequence=number)
        backend.event(name, EventType.COMPLETED, chunks=2)
        offer = broken.wait_offer(name)
        heard = broken.result(offer, [turn for turn in CALL_TURNS if turn[1] < half_s])
        missing = UndecodedChunk(chunk_id=offer.chunks[1].chunk_id, message="no such codec")
        told = heard.model_copy(update={"chunks": heard.chunks[:1], "undecoded": (missing,)})
        broken.send_raw(name, encode(told))
        del broken.held[offer.job_id or ""]
        healthy.places = 1
        late = [(start_s - half_s, end_s - half_s, who) for start_s, end_s, who in CALL_TURNS if start_s > half_s]

        def try_again() -> bool:
            if len(broken.leases(name)) > 1 and broken.held:  # it may be offered what it could not decode once more
                broken.fail(broken.wait_offer(name, after=1), FailureCode.AUDIO_UNDECODABLE, retryable=False)
            return bool(healthy.leases(name)) or any(job["state"] == "failed" for job in bridge.jobs(name))

        wait_until(try_again, "the offer to the other agent")
        assert healthy.leases(name)
        healthy.answer(healthy.wait_offer(name), late)
        update = backend.wait_updated(name)
    assert update.failed_jobs == 0
    labels = [segment.speaker for segment in update.segments]
    assert labels == ["SPEAKER_00", "SPEAKER_01"] * (len(labels) // 2)


def test_what_none_of_them_can_decode_is_given_up_once_each_has_said_so(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as first, ScriptedAgent(mosquitto, "second") as second:
        backend.send_call("noise", tone=90)
        agents = {"first": first, "second": second}
        tried: list[str] = []

        def fail_all() -> bool:
            for name, agent in agents.items():
                if name not in tried and agent.leases("noise"):
                    tried.append(name)
                    agent.fail(agent.wait_offer("noise"), FailureCode.AUDIO_UNDECODABLE, retryable=False)
            return bridge.jobs("noise")[0]["state"] == "failed"

        wait_until(fail_all, "the end of the job")
        assert sorted(tried) == ["first", "second"]
        assert [len(agent.leases("noise")) for agent in agents.values()] == [1, 1]
    assert backend.wait_updated("noise").failed_jobs == 1


def test_where_all_failed_any_of_them_tries_again(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as first, ScriptedAgent(mosquitto, "second") as second:
        backend.send_call("poison", tone=60)
        agents, answered = (first, second), set[str]()

        def fail_all() -> bool:
            for agent in agents:
                for lease_id in agent.leases("poison"):
                    if lease_id not in answered:
                        answered.add(lease_id)
                        agent.fail(next(offer for offer in agent.offers.items if offer.lease_id == lease_id))
            return bridge.jobs("poison")[0]["state"] == "failed"

        wait_until(fail_all, "the end of the job")
        assert sorted(len(agent.leases("poison")) for agent in agents) == [1, 2]


def test_jobs_that_wait_for_another_agent_hide_no_others(ledger: Ledger) -> None:
    jobs = [add_job(ledger, f"c{number}") for number in range(3)]
    for job_id, why in zip(jobs[:2], (None, LeaseEnd.OVER_LIMIT), strict=True):
        lease = ledger.leases.grant(job_id, "broken", "i", VOICES)
        assert lease is not None
        if why is None:
            ledger.jobs.note_failure(job_id, FailureCode.ENGINE_CRASHED, "as the test told it", counted=True)
        else:
            ledger.leases.end(lease.lease_id, why)
    broken, busy = AgentCapacity("broken", 1, 10.0, VOICES), AgentCapacity("busy", 0, 10.0, VOICES, held=1)

    def found(free: AgentCapacity, *others: AgentCapacity) -> list[tuple[str, list[str]]]:
        ready = find_ready_jobs(
            ledger, [free], [free, *others], leased=set(), resting=set(), limit=1, newest_first=False
        )
        return [(job.job_id, sorted(job.shuns)) for job in ready]

    assert found(broken, busy) == [(jobs[2], [])]
    assert found(broken) == [(jobs[0], [])], "nobody else is up"
    assert found(busy, broken) == [(jobs[0], ["broken"])]
