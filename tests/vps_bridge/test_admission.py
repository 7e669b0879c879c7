"""Which messages are let into the mailbox, by their topic alone, and how many lines a sender's bad ones may log."""

import pytest
import structlog

from broker.logs import LINES_PER_MINUTE, MESSAGE_FROM, MINUTE_S, SenderLimit
from broker.session import Incoming
from schemas.topics import Topics
from vps_bridge.admission import (
    KNOWN,
    LASTING_S,
    MAX_KNOWN,
    NEW,
    OFFERED_AGAIN_S,
    PEOPLE,
    STRANGER_BEAT_S,
    Admission,
)
from vps_bridge.ledger.agents import MAX_STRANGERS
from vps_bridge.mailbox import Mailbox

TOPICS = Topics()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def incoming(topic: str, *, retain: bool = False, size: int = 1) -> Incoming:
    return Incoming(topic=topic, payload=bytes(size), retain=retain, qos=1, content_type=None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def admission(mailbox: Mailbox, clock: Clock) -> Admission:
    made = Admission(TOPICS, mailbox, own_id="bridge", clock=clock)
    made.set_allowed(frozenset({"mac"}))
    return made


def taken(mailbox: Mailbox) -> list[str]:
    topics = []
    while isinstance(item := mailbox.take(0), Incoming):
        topics.append(item.topic)
    return topics


def test_an_agent_that_is_not_allowed_may_say_that_it_lives_and_nothing_else(
    admission: Admission, mailbox: Mailbox, clock: Clock
) -> None:
    for topic in (TOPICS.want("who"), TOPICS.turns("c1", "who"), TOPICS.failure("c1", "who")):
        admission.take(incoming(topic))
    assert taken(mailbox) == []
    beat = TOPICS.agent_heartbeat("who")
    for _ in range(3):
        admission.take(incoming(beat))
    admission.take(incoming(TOPICS.agent_heartbeat("big"), size=100_000))
    assert taken(mailbox) == [beat]
    clock.now_s += STRANGER_BEAT_S
    admission.take(incoming(beat))
    assert taken(mailbox) == [beat]
    assert admission.dropped == 6


def test_an_allowed_agent_is_heard_whatever_the_number_of_others(admission: Admission, mailbox: Mailbox) -> None:
    for number in range(2 * MAX_STRANGERS):
        admission.take(incoming(TOPICS.agent_heartbeat(f"who-{number}")))
    admission.take(incoming(TOPICS.turns("c1", "mac")))
    assert len(topics := taken(mailbox)) == MAX_STRANGERS + 1
    assert TOPICS.turns("c1", "mac") in topics
    assert admission.dropped == MAX_STRANGERS


def test_what_proves_nothing_is_left_out_uncounted(admission: Admission, mailbox: Mailbox) -> None:
    admission.take(incoming(TOPICS.agent_heartbeat("mac"), retain=True))
    admission.take(incoming(TOPICS.failure("c1", "bridge")))
    assert (taken(mailbox), admission.dropped) == ([], 0)


def test_a_conversation_that_becomes_known_keeps_the_order_of_its_messages(
    admission: Admission, mailbox: Mailbox
) -> None:
    first, second = TOPICS.events("c1"), TOPICS.audio("c1")
    for number in range(3):
        admission.take(incoming(TOPICS.events(f"other-{number}")))
    admission.take(incoming(first))
    admission.note_known(["c1"])
    admission.take(incoming(second))
    assert mailbox.holds(NEW.group, "conversation c1")
    assert not mailbox.holds(KNOWN.group, "conversation c1")
    assert [topic for topic in taken(mailbox) if "/c1/" in topic] == [first, second]
    admission.take(incoming(first))
    assert mailbox.holds(KNOWN.group, "conversation c1")


def test_a_new_conversation_that_found_no_room_has_it_when_it_is_offered_again(
    admission: Admission, mailbox: Mailbox, clock: Clock
) -> None:
    for number in range(NEW.group_messages):
        admission.take(incoming(TOPICS.events(f"invented-{number}")))
    honest = TOPICS.events("honest")
    admission.take(incoming(honest))
    assert admission.dropped == 1
    clock.now_s += OFFERED_AGAIN_S
    for number in range(NEW.group_messages):
        admission.take(incoming(TOPICS.events(f"more-{number}")))
    admission.take(incoming(honest))
    assert admission.dropped == 1 + NEW.group_messages
    assert taken(mailbox).index(honest) <= 1, "and does not wait behind the invented ones"


def test_one_new_conversation_that_floods_leaves_room_for_others(admission: Admission, mailbox: Mailbox) -> None:
    for _ in range(2 * NEW.group_messages):
        admission.take(incoming(TOPICS.events("flood")))
    admission.take(incoming(TOPICS.events("honest")))
    assert mailbox.holds(NEW.group, "conversation honest")


def test_ever_new_conversations_do_not_push_out_one_that_lasts(
    admission: Admission, mailbox: Mailbox, clock: Clock
) -> None:
    for name in ("lasting", "begun"):
        admission.note_known([name])
    clock.now_s += LASTING_S
    admission.note_known(["lasting"])
    admission.note_known(f"invented-{number}" for number in range(MAX_KNOWN))
    for name in ("lasting", "begun"):
        admission.take(incoming(TOPICS.events(name)))
    assert mailbox.holds(KNOWN.group, "conversation lasting")
    assert mailbox.holds(NEW.group, "conversation begun")


def test_lines_about_one_sender_are_few_and_the_rest_is_counted() -> None:
    clock = Clock()
    limit = SenderLimit(clock)

    def log(sender: str | None, level: str = "warning") -> bool:
        MESSAGE_FROM.set(sender)
        try:
            limit(None, level, {"event": "refused"})
        except structlog.DropEvent:
            return False
        finally:
            MESSAGE_FROM.set(None)
        return True

    assert sum(log("liar") for _ in range(100)) == LINES_PER_MINUTE
    assert log("honest")
    assert sum(log("liar", "info") for _ in range(100)) == 100
    assert sum(log(None) for _ in range(100)) == 100
    clock.now_s += MINUTE_S
    with structlog.testing.capture_logs() as lines:
        limit.report()
    assert [(line["sender"], line["count"]) for line in lines] == [("liar", 100 - LINES_PER_MINUTE)]
    assert log("liar")


def test_a_flood_about_people_keeps_nobody_else_out_and_is_bounded(admission: Admission, mailbox: Mailbox) -> None:
    for number in range(PEOPLE.group_messages + 10):
        admission.take(incoming(TOPICS.person_events(f"p{number % 500}")))
    assert admission.dropped == 10
    admission.take(incoming(TOPICS.events("c1")))
    assert TOPICS.events("c1") in taken(mailbox)[:2]
    admission.take(incoming(TOPICS.person_events("anna"), retain=True))
    assert len(taken(mailbox)) == 1, "that it is retained, and no new input, the bridge says itself"


def test_the_log_names_a_topic_that_is_not_ours_and_what_to_mend(admission: Admission, clock: Clock) -> None:
    admission.take(incoming("omi/v1/conversations/call.1/audio"))
    admission.take(incoming("omi/v1/conversations/call\x1b[2J/events"))
    with structlog.testing.capture_logs() as lines:
        admission.log_dropped(clock.now_s)
    (line,) = lines
    assert (line["reason"], line["count"]) == ("topic_malformed", 2)
    assert line["topic"] == r"'omi/v1/conversations/call\x1b[2J/events'"
    assert "A-Z a-z 0-9" in line["remedy"]
