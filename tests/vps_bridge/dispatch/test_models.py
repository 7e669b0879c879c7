"""Which agents a conversation's jobs go to where not all have the same model: voices of two are never compared."""

from schemas.conversation import Verdict
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent


def test_a_conversation_of_which_nothing_was_found_yet_goes_to_an_agent_of_another_model(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    """An engine that fails with everything is replaced by another one: what it failed with is not lost."""
    with ScriptedAgent(mosquitto, "first", embedding=("broken-voices", "1")) as first:
        backend.send_call("replaced", tone=30)
        for attempt in range(3):
            first.fail(first.wait_offer("replaced", after=attempt))
        wait_until(lambda: bridge.jobs("replaced")[0]["state"] == "failed", "the end of the job")
    with ScriptedAgent(mosquitto, "second") as second:
        bridge.command("retry", "--all")
        second.answer(second.wait_offer("replaced"), CALL_TURNS)
        wait_until(lambda: bridge.jobs("replaced")[0]["state"] == "done", "the result of the other agent")


def test_who_comes_back_with_another_model_than_the_one_that_works_now_has_no_say(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    with ScriptedAgent(mosquitto, "first") as first:
        backend.send_call("two-models", tone=31)
        lost = first.wait_offer("two-models")
        first.fall_silent()
        with ScriptedAgent(mosquitto, "second", embedding=("other-voices", "1")) as second:
            offer = second.wait_offer("two-models")
            first.answer(lost, [(0.0, 29.0, "z")])
            said = first.settled.wait_for(lambda word: word.lease_id == lost.lease_id)
            assert said.verdict is Verdict.DISCARDED
            second.answer(offer, CALL_TURNS)
            assert second.settled.wait_for(lambda word: word.verdict is Verdict.STORED).lease_id == offer.lease_id
    assert backend.wait_updated("two-models").speakers == 2
