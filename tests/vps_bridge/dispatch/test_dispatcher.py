"""Leases over a real broker: the bridge as a process, agents that do as they are told."""

import time

import pytest

from schemas.agent import AgentState
from schemas.conversation import ConversationUpdated, EventType, Verdict
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav, stays_empty

SHORT_LEASES = {"OMI_LEASE_LIMIT_FACTOR": "0.01", "OMI_LEASE_LIMIT_FLOOR_S": "1.5"}


def test_a_call_is_diarized_labelled_and_told_without_torch(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("whole", tone=1)
        offer = agent.wait_offer("whole")
        assert agent.pull(offer) == {offer.chunks[0].chunk_id: make_wav(30.0, tone=1)}
        agent.answer(offer, CALL_TURNS)
        assert agent.settled.wait_for(lambda word: word.job_id == offer.job_id).verdict is Verdict.STORED
        update = backend.wait_updated("whole")
    labels = {label.id: label.speaker for label in update.segments}
    a, b = labels["whole-0"], labels["whole-1"]
    assert {a, b} == {"SPEAKER_00", "SPEAKER_01"}
    assert [labels[f"whole-{place}"] for place in range(6)] == [a, b, a, b, a, b]
    assert (update.speakers, update.failed_jobs) == (2, 0)
    assert [segment["speaker"] for segment in bridge.json("show", "whole")["segments"]] == [a, b, a, b, a, b]


def test_who_comes_after_a_backlog_waits_for_a_few_jobs_of_it_and_not_for_all(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    own_bridge.allow("first")
    for number in range(12):
        own_backend.send_call(f"archive-{number}", tone=number)
    own_backend.send_call("today", tone=99)
    with AnsweringAgent(own_broker, "first") as agent:
        own_backend.wait_updated("today")
        began = dict.fromkeys(offer.conversation_id for offer in agent.offers.items)
        assert list(began).index("today") <= 3
        assert "archive-0" in began
        for number in range(12):
            own_backend.wait_updated(f"archive-{number}")


def test_an_update_is_offered_until_it_is_applied(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("offered", tone=2)
        agent.answer(agent.wait_offer("offered"), CALL_TURNS)
        update = backend.wait_updated("offered")

    def count() -> int:
        return len(backend.seen(ConversationUpdated, "offered"))

    wait_until(lambda: count() >= 3, "two more offers")
    backend.event("offered", EventType.APPLIED, updated_version=update.updated_version)
    told = count()
    time.sleep(2.5)  # longer than the longest pause
    assert count() == told
    backend.event("offered", EventType.RESYNC)
    wait_until(lambda: count() > told, "the offer after `resync`")


def test_a_silent_agents_job_goes_to_the_other_and_its_late_result_counts_once(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as first:
        backend.send_call("silent", tone=3)
        lost = first.wait_offer("silent")
        first.fall_silent()
        with ScriptedAgent(mosquitto, "second") as second:
            offer = second.wait_offer("silent")
            assert (offer.job_id, offer.lease_id != lost.lease_id) == (lost.job_id, True)
            first.fail(lost)
            assert first.settled.wait_for(lambda word: word.lease_id == lost.lease_id).verdict is Verdict.DISCARDED
            first.answer(lost, CALL_TURNS)
            assert first.settled.wait_for(lambda word: word.verdict is Verdict.STORED).lease_id == lost.lease_id
            second.answer(offer, [(0.0, 29.0, "z")])
            assert second.settled.wait_for(lambda word: word.lease_id == offer.lease_id).verdict is Verdict.DUPLICATE
    assert backend.wait_updated("silent").speakers == 2
    (job,) = bridge.jobs("silent")
    assert (job["state"], job["attempts"]) == ("done", 0)


def test_an_agent_that_starts_anew_is_offered_its_job_at_once(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("anew", tone=4)
        lost = agent.wait_offer("anew")
        agent.vanish(told=True)
    with ScriptedAgent(mosquitto, "first") as agent:
        offer = agent.wait_offer("anew")
        assert offer.lease_id != lost.lease_id
        assert bridge.revocations("anew") == ["agent started anew without the job"], "and was not stale"
        agent.answer(offer, CALL_TURNS)
        backend.wait_updated("anew")
    (job,) = bridge.jobs("anew")
    assert (job["attempts"], job["deaths"]) == (0, 1)


def test_an_agent_that_vanished_before_it_took_the_job_did_not_die_of_it(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        agent.accepts = False
        backend.send_call("untaken", tone=16)
        agent.wait_offer("untaken")
        agent.vanish(told=True)
    with ScriptedAgent(mosquitto, "first") as agent:
        agent.answer(agent.wait_offer("untaken"), CALL_TURNS)
        backend.wait_updated("untaken")
    assert bridge.revocations("untaken") == ["agent started anew, and had not said that it took the job"]
    (job,) = bridge.jobs("untaken")
    assert (job["attempts"], job["deaths"]) == (0, 0)


def test_an_agent_that_comes_back_still_holding_the_job_gets_its_lease_back(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("asleep", tone=5)
        offer = agent.wait_offer("asleep")
        agent.fall_silent()
        wait_until(lambda: bridge.jobs("asleep")[0]["state"] == "ready", "the loss of the lease")
        agent.come_back()
        wait_until(lambda: bridge.jobs("asleep")[0]["lease_id"] == offer.lease_id, "the same lease again")
        assert agent.pull(offer), "and parts with it"
        agent.answer(offer, CALL_TURNS)
        backend.wait_updated("asleep")
    assert agent.leases("asleep") == [offer.lease_id], "and no other ever"
    assert bridge.revocations("asleep") == ["agent is stale"]


def test_a_will_ends_the_lease_after_the_grace_and_a_farewell_at_once(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as first:
        backend.send_call("will", tone=6)
        first.wait_offer("will")
        first.fall_silent()
        first.beat(AgentState.OFFLINE)
        with ScriptedAgent(mosquitto, "second") as second:
            second.wait_offer("will")
            assert bridge.revocations("will") == ["agent is offline beyond the grace"], "before it is stale"
            second.fall_silent()
            second.held.clear()
            second.beat(AgentState.STOPPED)
            first.held.clear()
            first.come_back()
            offer = first.wait_offer("will", after=1)
            assert bridge.revocations("will")[1:] == ["agent stopped without the job"]
            first.answer(offer, CALL_TURNS)
    backend.wait_updated("will")


def test_an_offer_that_got_lost_is_made_again(mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        agent.accepts = False
        backend.send_call("lost", tone=7)
        first = agent.wait_offer("lost")
        agent.accepts = True
        offers = wait_until(lambda: [o for o in agent.offers.items if o.conversation_id == "lost"][1:], "it again")
        assert offers[0] == first
        agent.answer(first, CALL_TURNS)
        backend.wait_updated("lost")


def test_a_denied_agent_gets_no_offer_and_no_parts(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("denied", tone=8)
        offer = agent.wait_offer("denied")
        bridge.allow("first", allowed=False)
        try:
            agent.want(offer, offer.chunks[0].chunk_id, 0, 1000)
            agent.cancelled.wait_for(lambda word: word.lease_id == offer.lease_id)
            assert agent.parts.items == []
            agent.held.clear()
            assert stays_empty(agent.offers, 2.0)
            assert "no agent is allowed" not in bridge.json("show", "denied")["reason"], "the second one is allowed"
            with ScriptedAgent(mosquitto, "second") as other:
                other.answer(other.wait_offer("denied"), CALL_TURNS)
                backend.wait_updated("denied")
        finally:
            bridge.allow("first")


def test_three_failures_end_the_job_and_the_conversation_says_so(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("failing", tone=9)
        for attempt in range(3):
            offer = agent.wait_offer("failing", after=attempt)
            assert offer.attempt == attempt + 1
            agent.fail(offer)
        failure = wait_until(
            lambda: [item for item in backend.failures("failing") if item.lease_id is None], "the bridge's own failure"
        )[0]
        assert (failure.code, failure.job_id) == (FailureCode.ENGINE_CRASHED, offer.job_id)
        time.sleep(1.0)  # longer than the pause between attempts
        assert len(agent.leases("failing")) == 3
        update = backend.wait_updated("failing")
        assert (update.failed_jobs, update.speakers) == (1, 0)
        agent.answer(offer, CALL_TURNS)  # better late than never
        assert backend.wait_updated("failing", version=update.updated_version + 1).speakers == 2


def test_a_failure_that_nothing_will_mend_ends_the_job_at_once(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("hopeless", tone=10)
        agent.fail(agent.wait_offer("hopeless"), FailureCode.AUDIO_UNDECODABLE, retryable=False)
        assert backend.wait_updated("hopeless").failed_jobs == 1


def test_a_failure_of_the_road_counts_no_attempt_and_rests(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("road", tone=11)
        offer, pauses_s = agent.wait_offer("road"), []
        for attempt in range(1, 5):
            assert offer.attempt == 1
            began_s = time.monotonic()
            agent.fail(offer, FailureCode.PAYLOAD_INCOMPLETE)
            offer = agent.wait_offer("road", after=attempt)
            pauses_s.append(time.monotonic() - began_s)
        assert min(pauses_s) > 0.4
        agent.answer(offer, CALL_TURNS)
        backend.wait_updated("road")


def test_deletion_cancels_the_lease_and_discards_what_comes_late(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("gone", tone=12)
        offer = agent.wait_offer("gone")
        assert backend.event("gone", EventType.DELETED).verdict is Verdict.ACCEPTED
        agent.cancelled.wait_for(lambda word: word.lease_id == offer.lease_id)
        agent.answer(offer, CALL_TURNS)
        assert agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id).verdict is Verdict.DISCARDED
    assert backend.audio("gone", make_wav(1.0)).verdict is Verdict.DISCARDED
    assert backend.event("gone", EventType.STARTED).verdict is Verdict.DISCARDED
    assert bridge.jobs("gone") == []
    assert bridge.command("show", "gone", check=False).returncode == 1
    assert backend.seen(ConversationUpdated, "gone") == []
    assert backend.event("gone", EventType.DELETED).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("guess", ["0" * 32, "of-another-job"])
def test_turns_without_a_lease_are_refused_and_change_nothing(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge, guess: str
) -> None:
    name = f"spoofed-{guess[0]}"
    with ScriptedAgent(mosquitto, "first") as first, ScriptedAgent(mosquitto, "second") as second:
        second.accepts = False
        backend.send_call(name, tone=13)
        wait_until(
            lambda: [o for a in (first, second) for o in a.offers.items if o.conversation_id == name], "an offer"
        )
        holder, other = (first, second) if first.offers.items else (second, first)
        offer = holder.wait_offer(name)
        lease_id = guess if guess == "0" * 32 else offer.lease_id
        (other if lease_id == offer.lease_id else holder).answer(offer, [(0.0, 29.0, "z")], lease_id=lease_id)
        word = wait_until(lambda: [*holder.settled.items, *other.settled.items], "the refusal")[0]
        assert (word.verdict, word.reason) == (Verdict.REFUSED, FailureCode.LEASE_LOST)
        assert bridge.jobs(name)[0]["state"] == "leased"
        assert backend.seen(ConversationUpdated, name) == []
        holder.answer(offer, CALL_TURNS)
        assert backend.wait_updated(name).speakers == 2


def test_an_unreadable_result_is_settled_and_costs_an_attempt(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("poison", tone=14)
        offer = agent.wait_offer("poison")
        agent.send_raw("poison", b"\xc1 never used in msgpack")
        word = agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id)
        assert (word.verdict, word.reason) == (Verdict.REFUSED, FailureCode.SCHEMA_UNSUPPORTED)
        again = agent.wait_offer("poison", after=1)
        assert again.attempt == 2
        agent.answer(again, CALL_TURNS)
        backend.wait_updated("poison")


def test_a_job_whose_agent_died_with_it_five_times_is_given_up(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    backend.send_call("deadly", tone=15)
    for life in range(6):
        with ScriptedAgent(mosquitto, "first") as agent:
            if life < 5:
                agent.wait_offer("deadly")
                agent.vanish(told=True)
            else:
                failure = wait_until(lambda: backend.failures("deadly"), "giving up")[0]
    assert failure.code == FailureCode.LEASE_LOST
    (job,) = bridge.jobs("deadly")
    assert (job["state"], job["attempts"], job["deaths"]) == ("failed", 0, 5)


def test_a_lease_over_its_limit_is_cancelled_and_does_not_return(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **SHORT_LEASES) as bridge:
        bridge.allow("first", "second")
        with ScriptedAgent(own_broker, "first") as slow:
            own_backend.send_call("slow")
            offer = slow.wait_offer("slow")
            word = slow.cancelled.wait_for(lambda word: word.lease_id == offer.lease_id)
            assert word.reason == "over the absolute limit"
            again = slow.wait_offer("slow", after=1)
            assert again.lease_id != offer.lease_id


def test_a_job_that_its_agent_never_ends_fails_after_its_attempts_and_one_that_waits_behind_it_does_not(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **SHORT_LEASES) as bridge:
        bridge.allow("first")
        with ScriptedAgent(own_broker, "first") as agent:
            agent.queued.add("behind")
            own_backend.send_call("endless")
            own_backend.send_call("behind", tone=1)
            failure = wait_until(lambda: own_backend.failures("endless"), "giving up")[0]
            wait_until(lambda: len(agent.leases("behind")) > 3, "the leases of the job that waits")
            agent.answer(agent.wait_offer("behind", after=3), CALL_TURNS)
            assert own_backend.wait_updated("behind").speakers == 2
        assert failure.code == FailureCode.ENGINE_OVER_LIMIT
        assert "agent first worked on it" in failure.message
        (endless,), (behind,) = bridge.jobs("endless"), bridge.jobs("behind")
        assert (endless["state"], endless["attempts"], len(agent.leases("endless"))) == ("failed", 3, 3)
        assert f"omi-bridge retry {endless['job_id']}" in endless["failure_message"]
        assert (behind["state"], behind["attempts"]) == ("done", 0)


def test_a_kill_of_the_bridge_with_a_lease_out_loses_nothing(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend) as bridge:
        bridge.allow("first")
        with ScriptedAgent(own_broker, "first") as agent:
            own_backend.send_call("killed")
            offer = agent.wait_offer("killed")
            bridge.kill()
            agent.answer(offer, CALL_TURNS)  # into the void
            bridge.start(own_backend)
            agent.answer(offer, CALL_TURNS)
            assert agent.settled.wait_for(lambda word: word.lease_id == offer.lease_id).verdict is Verdict.STORED
            agent.answer(offer, CALL_TURNS)
            wait_until(lambda: [w for w in agent.settled.items if w.verdict is Verdict.DUPLICATE], "`duplicate`")
        assert own_backend.wait_updated("killed").speakers == 2
        (job,) = bridge.jobs("killed")
        assert (job["state"], job["attempts"], job["deaths"]) == ("done", 0, 0)
        assert len(bridge.json("history", "killed")) == 1
