"""The webhook's outbox in the ledger: written with what it tells of, in order, the latest in place of the earlier."""

from collections.abc import Callable

import pytest

from schemas.codec import decode, encode
from schemas.conversation import ConversationUpdated
from schemas.failure import FailureCode, JobFailure
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.webhook_outbox import WebhookMessage


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger]) -> Ledger:
    opened = open_ledger()
    opened.webhook.turn_on()
    return opened


def update(ledger: Ledger, conversation_id: str, version: int) -> bytes:
    payload = encode(ConversationUpdated(conversation_id=conversation_id, updated_version=version, state="live"))
    ledger.conversations.note_update(
        conversation_id, AssignedUpdate([], f"k{version}", payload, final=False, done_jobs=(), seen=0)
    )
    return payload


def waiting(ledger: Ledger) -> int:
    counts = ledger.webhook.counts()
    return counts.waiting if counts else -1


def take_all(ledger: Ledger) -> list[WebhookMessage]:
    found = []
    while (message := ledger.webhook.next(())) is not None:
        found.append(message)
        ledger.webhook.note_sent(message.number)
    return found


def make_jobs(ledger: Ledger, conversation_id: str, count: int) -> list[str]:
    for number in range(count):
        add_waiting_job(ledger, conversation_id, f"{conversation_id}-{number}", audio_s=60.0, final=False)
    return [job.job_id for job in ledger.jobs.of_conversation(conversation_id)]


def test_failures_and_the_latest_update_come_in_the_order_of_their_conversation(ledger: Ledger) -> None:
    first, second = make_jobs(ledger, "a", 2)
    make_jobs(ledger, "b", 1)
    update(ledger, "a", 1)
    ledger.jobs.give_up(first, FailureCode.AUDIO_EMPTY, "why")
    update(ledger, "b", 1)
    latest = update(ledger, "a", 2)
    ledger.conversations.put_aside("a", "its labels")
    found = take_all(ledger)
    assert [(item.conversation_id, item.schema_name) for item in found] == [
        ("a", "job-failure"),
        ("a", "conversation-updated"),
        ("b", "conversation-updated"),
        ("a", "job-failure"),
    ]
    assert found[1].body == latest
    told = decode(JobFailure, found[0].body)
    assert (told.job_id, told.code, told.message) == (first, FailureCode.AUDIO_EMPTY, "why")
    assert decode(JobFailure, found[3].body).code == FailureCode.LABELS_FAILED
    assert len({item.delivery_id for item in found}) == 4
    assert second not in {decode(JobFailure, item.body).job_id for item in (found[0], found[3])}


def test_an_update_that_is_replaced_again_and_again_keeps_its_turn(ledger: Ledger) -> None:
    for name in ("a", "b"):
        make_jobs(ledger, name, 1)
        update(ledger, name, 1)
    for version in (2, 3):
        update(ledger, "a", version)
        update(ledger, "b", version)
        update(ledger, "a", version + 2)
    found = ledger.webhook.next(())
    assert found is not None
    assert found.conversation_id == "a"


def test_an_update_replaced_while_it_is_under_way_is_followed_by_the_later_one(ledger: Ledger) -> None:
    make_jobs(ledger, "a", 1)
    update(ledger, "a", 1)
    under_way = ledger.webhook.next(())
    assert under_way is not None
    ledger.webhook.note_failed(under_way.number, "answered 500")
    assert ledger.webhook.next(()) == under_way, "the same id for every attempt"
    since = ledger.webhook.counts()
    update(ledger, "a", 2)
    ledger.webhook.note_sent(under_way.number)
    counts = ledger.webhook.counts()
    assert counts == since, "it waits as long, and for the same reason"
    (later,) = take_all(ledger)
    assert decode(ConversationUpdated, later.body).updated_version == 2
    assert later.delivery_id != under_way.delivery_id


def test_a_conversation_at_rest_is_passed_over_with_all_that_follows_in_it(ledger: Ledger) -> None:
    (job,) = make_jobs(ledger, "a", 1)
    make_jobs(ledger, "b", 1)
    ledger.jobs.give_up(job, FailureCode.AUDIO_EMPTY, "why")
    update(ledger, "a", 1)
    update(ledger, "b", 1)
    found = ledger.webhook.next({"a"})
    assert found is not None
    assert found.conversation_id == "b"
    assert ledger.webhook.next({"a", "b"}) is None


def test_the_newest_is_what_comes_first_in_the_conversation_that_was_heard_of_last(ledger: Ledger) -> None:
    for name in ("a", "b", "c"):
        make_jobs(ledger, name, 1)
        update(ledger, name, 1)
    (job,) = [job.job_id for job in ledger.jobs.of_conversation("c")]
    ledger.jobs.give_up(job, FailureCode.AUDIO_EMPTY, "why")
    newest = [ledger.webhook.next(resting, newest=True) for resting in (set(), {"c"}, {"b", "c"})]
    assert [message and message.conversation_id for message in newest] == ["c", "b", "a"]
    assert newest[0] is not None
    assert newest[0].schema_name == ConversationUpdated.SCHEMA, "before the failure that was told of after it"


def test_deleted_and_temporary_conversations_are_not_told_of(ledger: Ledger) -> None:
    make_jobs(ledger, "gone", 1)
    update(ledger, "gone", 1)
    ledger.conversations.delete("gone")
    ledger.conversations.open_temporary("once")
    update(ledger, "once", 1)
    assert waiting(ledger) == 0


def test_what_happens_while_it_is_off_is_not_kept_and_what_waited_is_forgotten(ledger: Ledger) -> None:
    (job,) = make_jobs(ledger, "a", 1)
    update(ledger, "a", 1)
    assert ledger.webhook.turn_off() == 1
    update(ledger, "a", 2)
    ledger.jobs.give_up(job, FailureCode.AUDIO_EMPTY, "why")
    ledger.conversations.put_aside("a", "its labels")
    assert ledger.webhook.counts() is None
    ledger.webhook.turn_on()
    assert waiting(ledger) == 0
    ledger.webhook.turn_on()
    update(ledger, "a", 3)
    assert waiting(ledger) == 1


def test_a_command_of_another_process_that_gives_audio_up_is_told_of(
    ledger: Ledger, open_ledger: Callable[..., Ledger]
) -> None:
    (job,) = make_jobs(ledger, "a", 1)
    open_ledger(exclusive=False).operator_actions.give_up_audio("a")
    (message,) = take_all(ledger)
    assert decode(JobFailure, message.body).job_id == job
