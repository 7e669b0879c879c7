"""Agents that crash on a job, share an id, may not publish, sleep, or have a half-open link: no work is lost, and only
faults of audio or engine count as attempts."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.agent import AgentState
from schemas.bridge import BridgeHeartbeat, BridgeState
from schemas.conversation import Verdict
from schemas.failure import FailureCode
from tests.brokers import RunningBroker, run_mosquitto
from tests.faults.conftest import AGENTS, StartAgent
from tests.faults.proxy import TcpProxy
from tests.faults.tone_calls import assert_labelled, send_call, spoken_spans
from tests.inbox import WAIT_S
from tests.mac_agent.agent_process import AgentProcess
from tests.vps_bridge.live_bridge import TOPICS, Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent

EXIT_SECOND_INSTANCE = 3
SLEEPS = 6


def bridge_beats(backend: Backend) -> list[BridgeHeartbeat]:
    return [beat for beat in backend.seen(BridgeHeartbeat) if beat.state is BridgeState.ONLINE]


def wait_running(agent: AgentProcess, runs: int = 1) -> None:
    wait_until(lambda: agent.log().count('"job runs"') >= runs, "the run of a job")


def test_audio_that_kills_the_worker_three_times_ends_its_job_and_no_other(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    agent = start_agent(broker, behaviour="poison TONE_900")
    send_call(backend, "poison", (900, 300))
    send_call(backend, "beside")
    assert_labelled(backend.wait_updated("beside"))
    update = wait_until(lambda: backend.wait_updated("poison"), "the end of the job")
    assert (update.failed_jobs, update.speakers) == (1, 0)
    wait_until(lambda: len(backend.failures("poison")) >= 4, "three failures of the agent, and the bridge's own")
    by_agent = [failure for failure in backend.failures("poison") if failure.lease_id is not None]
    assert {failure.code for failure in by_agent} == {FailureCode.ENGINE_CRASHED}
    assert len({failure.lease_id for failure in by_agent}) == 3
    (by_bridge,) = [failure for failure in backend.failures("poison") if failure.lease_id is None]
    assert by_bridge.code == FailureCode.ENGINE_CRASHED
    (job,) = bridge.jobs("poison")
    assert (job["state"], job["attempts"], job["deaths"]) == ("failed", 3, 0)
    assert agent.process.poll() is None, "only the worker may die, not its agent"
    assert agent.inbox_files() == []


def test_a_second_agent_of_one_id_stops_and_costs_the_first_nothing(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    """The second agent is started again and again, as a service manager does."""
    first = start_agent(broker, behaviour="hold")
    send_call(backend, "shared-name")
    wait_running(first)
    time.sleep(2.5)  # older by more than a tie
    for _ in range(6):
        second = start_agent(broker)
        assert second.process.wait(WAIT_S) == EXIT_SECOND_INSTANCE
        assert "Another agent named first" in second.log()
    first.behaviour.write_text("")
    assert_labelled(backend.wait_updated("shared-name"))
    (job,) = bridge.jobs("shared-name")
    assert (job["state"], job["attempts"], job["deaths"]) == ("done", 0, 0), "no attempt and no death may count"
    assert first.log().count('"job runs"') == 1
    assert first.process.poll() is None


def test_an_agent_that_may_not_publish_results_says_so_and_delivers_once_it_may(
    tmp_path: Path, start_agent: StartAgent
) -> None:
    """With a wrong line in the broker's ACL: the heartbeat reports it, and no work is lost."""
    with run_mosquitto(tmp_path, agent_ids=AGENTS) as broker:
        (acl_file,) = tmp_path.glob("mosquitto-*/acl")
        right = acl_file.read_text()
        wrong = "".join(line for line in right.splitlines(keepends=True) if "/turns/first" not in line)
        assert wrong != right
        backend = Backend(broker)
        with run_bridge(broker, tmp_path / "bridge", backend) as bridge:
            bridge.allow("first")
            acl_file.write_text(wrong)
            os.kill(broker.pid, signal.SIGHUP)
            start_agent(broker)
            send_call(backend, "muzzled")

            def reported() -> str | None:
                beats = backend.beats_of("first")
                return beats[-1].last_error if beats else None

            wait_until(lambda: "the broker refused" in (reported() or ""), "the refusal in the heartbeat")
            assert TOPICS.turns("muzzled", "first") in (reported() or "")
            assert bridge.jobs("muzzled")[0]["state"] == "leased", "the agent must keep its lease"
            acl_file.write_text(right)
            os.kill(broker.pid, signal.SIGHUP)
            assert_labelled(backend.wait_updated("muzzled"))
            (job,) = bridge.jobs("muzzled")
            assert (job["state"], job["attempts"], job["deaths"]) == ("done", 0, 0)
        backend.stop()


@pytest.mark.slow
def test_a_mac_that_sleeps_six_times_during_one_job_finishes_it_and_no_attempt_is_counted(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    agent = start_agent(broker, behaviour="hold", keepalive_s=5)
    send_call(backend, "sleepy")
    wait_running(agent)

    def lost() -> int:
        return len(bridge.revocations("sleepy"))

    def given_back() -> int:
        return len(bridge.logged("lease_given_back", conversation="sleepy"))

    for _ in range(SLEEPS):
        awake = lost()
        agent.sleep()
        wait_until(lambda awake=awake: lost() > awake, "the loss of the lease")  # type: ignore[misc]
        agent.wake()
        wait_until(lambda: given_back() == lost(), "the return of the lease")
    agent.behaviour.write_text("")
    assert_labelled(backend.wait_updated("sleepy"))
    (job,) = bridge.jobs("sleepy")
    assert (job["state"], job["attempts"], job["deaths"]) == ("done", 0, 0)
    assert agent.log().count('"job runs"') == 1, "it must be one run, interrupted six times"
    assert len(bridge.logged("lease_granted", conversation="sleepy")) == 1


def test_the_job_of_an_agent_on_a_half_open_link_is_finished_by_the_other_within_stale_and_two_beats(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    """Measured by the bridge's own heartbeats, between the lost agent's last heartbeat and the grant to the other."""
    heartbeat_s, stale_s = (float(bridge.environment()[f"OMI_{name}_S"]) for name in ("HEARTBEAT", "STALE"))
    with TcpProxy(broker.port) as link:
        lost = start_agent(broker.reached_at(link.port), behaviour="hold", heartbeat_s=heartbeat_s, keepalive_s=600)
        send_call(backend, "half-open")
        wait_running(lost)
        with ScriptedAgent(broker, "second", embedding=("pitch", "1")) as other:
            wait_until(lambda: backend.beats_of("second"), "the other agent")
            link.refuse()
            link.freeze()
            offer = other.wait_offer("half-open")
            other.answer(offer, [(*span, "ab"[turn % 2]) for turn, span in enumerate(spoken_spans(6))])
            other.settled.wait_for(lambda word: word.verdict is Verdict.STORED)
            other.beat(AgentState.STOPPED)
        assert_labelled(backend.wait_updated("half-open"))
    assert bridge.revocations("half-open") == ["agent is stale"], "the broker noticed nothing, so it published no will"
    _, granted = bridge.logged("lease_granted", conversation="half-open")
    assert granted["agent"] == "second"
    last_beat_at = max(beat.sent_at for beat in backend.beats_of("first") if beat.state is AgentState.ONLINE)
    granted_at = datetime.fromisoformat(granted["timestamp"]).astimezone(UTC)
    between = [beat for beat in bridge_beats(backend) if last_beat_at < beat.sent_at < granted_at]
    assert len(between) <= stale_s / heartbeat_s + 2


def test_a_result_that_waited_on_a_dead_link_is_settled_when_it_is_back(
    broker: RunningBroker, backend: Backend, bridge: LiveBridge, start_agent: StartAgent
) -> None:
    """The broker acknowledges results that reach nobody; only `settled` removes them from the outbox."""
    with TcpProxy(broker.port) as link:
        agent = start_agent(broker.reached_at(link.port), behaviour="hold", keepalive_s=5)
        send_call(backend, "mute")
        wait_running(agent)
        link.freeze()
        link.refuse()
        agent.behaviour.write_text("")
        wait_until(lambda: '"job done"' in agent.log(), "the result")
        time.sleep(1.0)
        assert bridge.jobs("mute")[0]["state"] != "done"
        link.refuse(on=False)
        link.cut()
        assert_labelled(backend.wait_updated("mute"))
    assert bridge.jobs("mute")[0]["attempts"] == 0
