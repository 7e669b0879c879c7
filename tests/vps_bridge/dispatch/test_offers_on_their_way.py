"""When a job that its agent's beats do not list is offered again; on a clock of its own."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.agent import AgentControl, AgentHeartbeat, AgentState, ControlType, HeldJob, HeldJobState
from tests.ledger_switch import copy_ledger
from tests.vps_bridge.dispatch.lease_model import ENGINE, SimulatedWire, bridge_settings, three_jobs
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.dispatch.offer_times import ON_ITS_WAY_S
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.records import LeaseRecord
from vps_bridge.rules.lease import LeaseEnd, LeaseRules

GRANTED_S = 1e9
TAKE_S = LeaseRules().take_s


def held(lease: LeaseRecord) -> HeldJob:
    return HeldJob(job_id=lease.job_id, lease_id=lease.lease_id, state=HeldJobState.QUEUED)


class BusyAgent:
    """An agent that got one job and beats about other things: it never lists the job."""

    def __init__(self, dispatcher: Dispatcher, wire: SimulatedWire) -> None:
        self.dispatcher, self.wire = dispatcher, wire
        self.beat(GRANTED_S, free=1)

    def beat(
        self,
        at_s: float,
        *,
        free: int = 0,
        state: AgentState = AgentState.ONLINE,
        jobs: tuple[HeldJob, ...] = (),
    ) -> None:
        now = datetime.now(UTC)
        beat = AgentHeartbeat(
            agent_id="a",
            instance_id="a0",
            state=state,
            sent_at=now,
            started_at=now,
            engine=ENGINE,
            free_capacity=free,
            speed_x_real_time=1.0,
            jobs=jobs,
        )
        self.dispatcher.take_heartbeat(beat, at_s)
        self.dispatcher.tick(at_s)

    @property
    def offers(self) -> int:
        said = [message for _, message in self.wire.said if isinstance(message, AgentControl)]
        return sum(message.type is ControlType.OFFER for message in said)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    settings = bridge_settings(tmp_path)
    copy_ledger(three_jobs(), settings.root)
    ledger = Ledger(settings.root, exclusive=True)
    yield ledger
    ledger.close()


@pytest.fixture
def agent(tmp_path: Path, ledger: Ledger) -> BusyAgent:
    wire = SimulatedWire()
    dispatcher = Dispatcher(bridge_settings(tmp_path), ledger, Spool(tmp_path / "spool"), wire)  # type: ignore[arg-type]
    return BusyAgent(dispatcher, wire)


def test_beats_that_may_have_crossed_an_offer_bring_no_second_one(agent: BusyAgent) -> None:
    """A queue of short jobs was offered twice, and its audio sent twice: an agent beats with each job it ends."""
    for place in range(10):
        agent.beat(GRANTED_S + place * ON_ITS_WAY_S / 10)
    assert agent.offers == 1


def test_a_job_that_cannot_be_offered_is_given_up_and_holds_up_no_other(tmp_path: Path, ledger: Ledger) -> None:
    odd, *others = (job.job_id for job in ledger.jobs.all())
    with sqlite3.connect(bridge_settings(tmp_path).root / "ledger.sqlite3") as connection:
        connection.execute("UPDATE job_chunks SET start_s = 1e9 WHERE job_id = ?", (odd,))
    wire = SimulatedWire()
    agent = BusyAgent(Dispatcher(bridge_settings(tmp_path), ledger, Spool(tmp_path / "spool"), wire), wire)  # type: ignore[arg-type] # as in `agent`
    for place in range(1, 4):
        agent.beat(GRANTED_S + place, free=3)
    offered = {message.job_id for _, message in wire.said if isinstance(message, AgentControl)}
    assert offered == set(others)
    failed = ledger.jobs.get(odd)
    assert failed is not None
    assert (failed.state, failed.failure_code) == (JobState.FAILED, "payload.malformed")


def test_a_job_that_its_agent_does_not_take_is_left_for_another(agent: BusyAgent, ledger: Ledger) -> None:
    """It held its leases for ten minutes at least, while another agent had nothing to do."""
    (lease,) = ledger.leases.current()
    place_s = 0.0
    while lease.lease_id in {each.lease_id for each in ledger.leases.current()}:
        place_s += 10.0
        agent.beat(GRANTED_S + place_s)
    assert TAKE_S < place_s < TAKE_S + 30.0
    assert agent.offers >= 3
    (found,) = (each for each in [ledger.leases.find(lease.lease_id)] if each)
    assert found.lease_end is LeaseEnd.OFFERS_UNANSWERED
    assert ledger.leases.failed_by([lease.job_id]) == {lease.job_id: frozenset({"a"})}


def test_a_job_that_its_agent_lists_late_stays_with_it(agent: BusyAgent, ledger: Ledger) -> None:
    (lease,) = ledger.leases.current()
    for place_s in range(10, 100, 10):
        is_listed = place_s % 50 == 0
        agent.beat(GRANTED_S + place_s, jobs=(held(lease),) if is_listed else ())
    assert [each.lease_id for each in ledger.leases.current()] == [lease.lease_id]


def test_two_later_beats_bring_the_offer_again_and_it_has_its_time_too(agent: BusyAgent) -> None:
    again_s = GRANTED_S + ON_ITS_WAY_S + 0.1
    agent.beat(GRANTED_S + ON_ITS_WAY_S)
    assert agent.offers == 1
    agent.beat(again_s)
    assert agent.offers == 2
    agent.beat(again_s + ON_ITS_WAY_S / 3)
    agent.beat(again_s + ON_ITS_WAY_S / 2)
    assert agent.offers == 2
    agent.beat(again_s + ON_ITS_WAY_S)
    agent.beat(again_s + ON_ITS_WAY_S + 0.1)
    assert agent.offers == 3


def test_an_agent_that_stops_without_the_job_just_offered_loses_it_at_once(agent: BusyAgent, ledger: Ledger) -> None:
    (lease,) = ledger.leases.current()
    agent.beat(GRANTED_S + ON_ITS_WAY_S / 10, state=AgentState.STOPPED)
    ended = ledger.leases.find(lease.lease_id)
    assert ended is not None
    assert ended.lease_end is LeaseEnd.AGENT_STOPPED
