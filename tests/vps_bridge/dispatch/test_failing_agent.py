"""An agent whose engine fails with everything costs no conversation its labels, while another agent could do it."""

import time

from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.ledger.test_ledger import add_job
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.dispatch.ready_jobs import find_ready_jobs
from vps_bridge.ledger import Ledger
from vps_bridge.rules.lease import AgentCapacity, LeaseEnd

VOICES = ("model", "1")
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


def test_of_two_agents_one_that_fails_at_once_with_everything_leaves_all_to_the_other(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    names = [f"all-{number}" for number in range(8)]
    with AnsweringAgent(mosquitto, "second") as healthy, ScriptedAgent(mosquitto, "first") as broken:
        for number, name in enumerate(names):
            backend.send_call(name, tone=50 + number)
        answered: set[str] = set()

        def fail_all() -> bool:
            for offer in list(broken.offers.items):
                if offer.lease_id is not None and offer.lease_id not in answered:
                    answered.add(offer.lease_id)
                    broken.fail(offer)
            return all(bridge.jobs(name)[0]["state"] in ("done", "failed") for name in names)

        wait_until(fail_all, "the end of all jobs")
    assert [bridge.jobs(name)[0]["state"] for name in names] == ["done"] * len(names)
    assert healthy.offers.items


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
