"""Fifty agents on one bridge: what each gets, one that is drained, one that is upgraded, and a broker that restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from schemas.agent import AgentState
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import ConversationEvent, EventType
from tests.brokers import RunningBroker, run_mosquitto
from tests.fleet import Fleet
from tests.inbox import WAIT_S
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, audio_payload, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import make_wav

SPEEDS_X = {f"mac-{number:02}": (6.0, 12.0, 24.0)[number % 3] for number in range(50)}
AUDIO_S = 6.0


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    with run_mosquitto(tmp_path_factory.mktemp("broker"), agent_ids=tuple(SPEEDS_X)) as running:
        yield running


@pytest.fixture(scope="module")
def bridge(
    mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveBridge]:
    with run_bridge(mosquitto, tmp_path_factory.mktemp("data"), backend) as running:
        running.allow(*SPEEDS_X)
        yield running


@pytest.fixture(scope="module")
def fleet(mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge) -> Iterator[Fleet]:
    with Fleet(mosquitto.settings, SPEEDS_X) as running:
        yield running


def send_talks(backend: Backend, prefix: str, count: int) -> None:
    """Publish conversations of one job each, and wait for no receipt but the last."""
    audio = make_wav(AUDIO_S)
    for number in range(count):
        name = f"{prefix}-{number}"
        backend.publish(TOPICS.audio(name), audio_payload(name, audio, chunk_id="c1"))
        event = ConversationEvent(event_id=f"{name}-end", type=EventType.COMPLETED, chunks=1)
        backend.publish(TOPICS.events(name), event)
    backend.wait_receipt(f"{prefix}-{count - 1}", event_id=f"{prefix}-{count - 1}-end")


def wait_done(bridge: LiveBridge, fleet: Fleet, prefix: str, count: int) -> dict[str, list[str]]:
    """Wait until every one of these conversations has its one result; return who sent it, by conversation."""

    def stored() -> dict[str, list[str]]:
        assert fleet.problems == []
        by: dict[str, list[str]] = {}
        for line in bridge.logged("turns", verdict="stored"):
            if str(line["conversation"]).startswith(f"{prefix}-"):
                by.setdefault(str(line["conversation"]), []).append(str(line["agent"]))
        return by

    wait_until(lambda: len(stored()) == count, f"{count} results", WAIT_S)
    return stored()


def test_every_agent_of_fifty_works_and_nothing_is_done_twice(
    backend: Backend, bridge: LiveBridge, fleet: Fleet
) -> None:
    send_talks(backend, "share", 100)
    done = wait_done(bridge, fleet, "share", 100)
    assert all(len(agents) == 1 for agents in done.values())
    assert {agent for agents in done.values() for agent in agents} <= set(SPEEDS_X)
    assert len({agent for agents in done.values() for agent in agents}) > len(SPEEDS_X) / 2
    wait_until(lambda: sum(len(agent.settled) for agent in fleet.agents.values()) == 100, "the settlements")


def test_one_is_drained_by_command_and_gets_nothing_more(backend: Backend, bridge: LiveBridge, fleet: Fleet) -> None:
    told = bridge.json("agents", "drain", "mac-02", "--wait", "--timeout", str(WAIT_S))
    assert told == {"agent_id": "mac-02", "state": "draining", "jobs": 0}
    assert fleet.agents["mac-02"].state is AgentState.DRAINING
    before = len(fleet.agents["mac-02"].settled)
    send_talks(backend, "drained", 30)
    wait_done(bridge, fleet, "drained", 30)
    assert len(fleet.agents["mac-02"].settled) == before
    fleet.restart("mac-02")
    wait_until(lambda: "mac-02" in backend.seen(BridgeHeartbeat)[-1].agents_live_ids, "its return")


def test_draining_an_agent_that_is_not_there_says_so(bridge: LiveBridge) -> None:
    done = bridge.command("agents", "drain", "nobody", "--timeout", "1", check=False)
    assert done.returncode == 1
    assert "nobody was not heard" in done.stderr


def test_one_is_upgraded_with_work_in_flight_and_nothing_is_lost(
    backend: Backend, bridge: LiveBridge, fleet: Fleet
) -> None:
    send_talks(backend, "upgrade", 30)
    victim = wait_until(
        lambda: next((name for name, agent in fleet.agents.items() if agent.jobs), None), "an agent with work"
    )
    fleet.restart(victim)
    done = wait_done(bridge, fleet, "upgrade", 30)
    assert all(len(agents) == 1 for agents in done.values())
    assert {job["state"] for name in done for job in bridge.jobs(name)} == {"done"}


def test_a_broker_that_restarts_is_met_by_all_again_and_the_work_goes_on(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge, fleet: Fleet
) -> None:
    send_talks(backend, "restart", 30)
    connects = {name: len(agent.connects) for name, agent in fleet.agents.items()}
    mosquitto.restart()
    wait_until(
        lambda: all(len(agent.connects) > connects[name] for name, agent in fleet.agents.items()), "everybody's return"
    )
    done = wait_done(bridge, fleet, "restart", 30)
    assert all(len(agents) == 1 for agents in done.values())


def test_a_flood_of_one_agent_delays_none_of_fifty(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge, fleet: Fleet
) -> None:
    """Its quota is its own: it loses its own messages, and the others' results are stored meanwhile."""
    flooder = fleet.agents["mac-00"].session
    stop_s = time.monotonic() + 2.0
    send_talks(backend, "flood", 20)
    while time.monotonic() < stop_s:
        for _ in range(50):
            flooder.publish(TOPICS.want("mac-00"), b"{}", qos=0)
        time.sleep(0.01)
    done = wait_done(bridge, fleet, "flood", 20)
    assert all(len(agents) == 1 for agents in done.values())
    assert bridge.process is not None
    assert bridge.process.poll() is None
