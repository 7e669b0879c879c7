"""The webhook of a real bridge: each update arrives once in effect, in order, whatever receiver and bridge do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.bridge import BridgeHeartbeat
from schemas.conversation import ConversationUpdated, EventType, TranscriptSegment
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.inbox import eventually
from tests.vps_bridge.http.door import answering
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from tests.vps_bridge.webhook.hook_receiver import SECRET, HookReceiver, Manner
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.webhook_outbox import WebhookCounts


@pytest.fixture(scope="module")
def hook() -> HookReceiver:
    return HookReceiver()


@pytest.fixture(scope="module")
def hooked(
    mosquitto: RunningBroker, backend: Backend, hook: HookReceiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveBridge]:
    """A bridge whose webhook goes to `hook`, where nobody listens yet."""
    options = {
        "OMI_WEBHOOK_URL": hook.url,
        "OMI_WEBHOOK_SECRET": SECRET,
        "OMI_WEBHOOK_TIMEOUT_S": "1",
        "OMI_RETRY_MIN_S": "0.1",
        "OMI_RETRY_MAX_S": "0.4",
    }
    with run_bridge(mosquitto, tmp_path_factory.mktemp("data"), backend, **options) as bridge:
        bridge.allow("first")
        yield bridge
        log = bridge.log_file.read_text()
        assert SECRET not in log
        assert "hush" not in log, "the path may be a secret of the receiver's"


def counts(bridge: LiveBridge) -> WebhookCounts:
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    found = ledger.webhook.counts()
    ledger.close()
    assert found is not None
    return found


def attempt_fails(bridge: LiveBridge, hook: HookReceiver, manner: Manner, said: str) -> None:
    """Have the receiver do so from now on, until the bridge says that it did."""
    hook.manner = manner
    wait_until(lambda: said in (counts(bridge).last_error or ""), f"`{said}` of a receiver that does: {manner.value}")


def test_each_update_arrives_once_in_effect_and_in_order_whatever_dies_and_refuses(
    mosquitto: RunningBroker, backend: Backend, hooked: LiveBridge, hook: HookReceiver
) -> None:
    with answering(mosquitto):
        for name in ("one", "two"):
            backend.send_call(name)
            backend.wait_updated(name)
        wait_until(lambda: "refused" in (counts(hooked).last_error or ""), "an attempt that finds nobody")
        beat = wait_until(
            lambda: next((b for b in backend.seen(BridgeHeartbeat) if b.webhook and b.webhook.waiting >= 2), None),
            "a heartbeat that tells of both",
        )
        assert beat.version == "1.2"
        with hook.listening():
            attempt_fails(hooked, hook, Manner.FAIL, "answered 500")
            attempt_fails(hooked, hook, Manner.REDIRECT, "redirects are not followed")
            attempt_fails(hooked, hook, Manner.OTHER_SECRET, "answered 401")
            hook.manner, before = Manner.HANG, len(hook.came.items)
            under_way = hook.came.wait_count(before + 1)[before]
            hooked.kill()
            hook.manner = Manner.TAKE_AND_HANG_UP
            hooked.start(backend)
            hook.taken.wait_for(lambda request: request.delivery == under_way.delivery)
            late = TranscriptSegment(id="one-late", start_s=25.5, end_s=29.0, text="late", speaker="SPEAKER_00")
            backend.event("one", EventType.SEGMENTS, segments=(late,))
            latest = backend.wait_updated("one", version=2)
            hook.manner = Manner.TAKE
            eventually(lambda: counts(hooked).waiting == 0)
            for name, version in (("one", latest.updated_version), ("two", 1)):
                check_arrived(hook, backend, name, version)
    assert all(request.is_signed_with(SECRET) for request in hook.came.items)
    assert len(hook.came.items) > len(hook.taken.items), "what was not answered was sent again"


def check_arrived(hook: HookReceiver, backend: Backend, name: str, version: int) -> None:
    """What a receiver acted on is what MQTT told, each version at most once, never back, the last one at last."""
    told = {update.updated_version: update for update in backend.seen(ConversationUpdated, name)}
    arrived = [ConversationUpdated.model_validate_json(request.body) for request in hook.of(name)]
    versions = [update.updated_version for update in arrived]
    assert versions == sorted(set(versions))
    assert versions[-1] >= version
    assert [told[update.updated_version] for update in arrived] == arrived


def test_a_failed_job_is_told_before_the_update_without_it_and_a_refusal_stops_no_other_conversation(
    mosquitto: RunningBroker, backend: Backend, hooked: LiveBridge, hook: HookReceiver
) -> None:
    with hook.listening(), ScriptedAgent(mosquitto, "first") as agent:
        backend.send_call("broken")
        for attempt in range(3):
            agent.fail(agent.wait_offer("broken", after=attempt), FailureCode.AUDIO_UNDECODABLE)
        backend.wait_updated("broken")
        wait_until(lambda: len(hook.of("broken")) >= 2, "failure and update")
    failure, *_, update = hook.of("broken")
    assert (failure.schema, failure.message["code"]) == ("job-failure", "audio.undecodable")
    assert failure.message["job_id"] == hooked.jobs("broken")[0]["job_id"]
    assert (update.schema, update.message["failed_jobs"]) == ("conversation-updated", 1)


def test_several_conversations_that_the_receiver_never_takes_stop_no_other(
    mosquitto: RunningBroker, backend: Backend, hooked: LiveBridge, hook: HookReceiver
) -> None:
    hook.manner, hook.refused = Manner.TAKE, frozenset({"poison-1", "poison-2", "poison-3"})
    with hook.listening(), answering(mosquitto):
        for name in sorted(hook.refused):
            backend.send_call(name)
            backend.wait_updated(name)
        wait_until(lambda: "answered 500" in (counts(hooked).last_error or ""), "a message that is refused")
        for name in ("fine-1", "fine-2", "fine-3"):
            backend.send_call(name)
        for name in ("fine-1", "fine-2", "fine-3"):
            wait_until(lambda name=name: hook.of(name), f"the update of {name}")  # type: ignore[misc]
        hook.refused = frozenset()
        eventually(lambda: counts(hooked).waiting == 0)


def test_one_that_is_never_taken_is_not_all_that_is_tried_once_the_receiver_is_back(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    hook, names = HookReceiver(), ("poison", "fine-1", "fine-2")
    hook.refused = frozenset({"poison"})
    options = {
        "OMI_WEBHOOK_URL": hook.url,
        "OMI_WEBHOOK_SECRET": SECRET,
        "OMI_RETRY_MIN_S": "0.2",
        "OMI_RETRY_MAX_S": "0.4",
    }
    with run_bridge(own_broker, tmp_path / "data", own_backend, **options) as bridge, answering(own_broker):
        bridge.allow("first")
        for name in names:
            own_backend.send_call(name)
            own_backend.wait_updated(name, final=True)

        def failed() -> set[str]:
            return {line["conversation"] for line in bridge.logged("webhook_not_delivered")}

        wait_until(lambda: failed() == set(names), "each to have failed")
        with hook.listening():
            for name in ("fine-1", "fine-2"):
                wait_until(lambda name=name: hook.of(name), f"the update of {name}", 40.0)  # type: ignore[misc]
