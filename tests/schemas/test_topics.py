"""Topics are built and parsed in one place, and no id can contain a level separator or a wildcard."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import TopicMalformed
from schemas.messages import MESSAGE_BY_SCHEMA, MESSAGE_BY_TOPIC
from schemas.record import is_id
from schemas.topics import TopicAddress, TopicKind, Topics

TOPICS = Topics()
ALPHANUMERIC = string.ascii_letters + string.digits
IDS = st.builds(str.__add__, st.sampled_from(ALPHANUMERIC), st.text(ALPHANUMERIC + "_-", max_size=127))
ROOTS = st.lists(IDS, min_size=1, max_size=3).map("/".join)
BUILDERS = {
    TopicKind.EVENTS: lambda topics, conversation, _: topics.events(conversation),
    TopicKind.AUDIO: lambda topics, conversation, _: topics.audio(conversation),
    TopicKind.ACCEPTED: lambda topics, conversation, _: topics.accepted(conversation),
    TopicKind.UPDATED: lambda topics, conversation, _: topics.updated(conversation),
    TopicKind.PARTS: lambda topics, conversation, sender: topics.parts(conversation, sender),
    TopicKind.TURNS: lambda topics, conversation, sender: topics.turns(conversation, sender),
    TopicKind.FAILURE: lambda topics, conversation, sender: topics.failure(conversation, sender),
    TopicKind.WANT: lambda topics, _, sender: topics.want(sender),
    TopicKind.CONTROL: lambda topics, _, sender: topics.control(sender),
    TopicKind.AGENT_HEARTBEAT: lambda topics, _, sender: topics.agent_heartbeat(sender),
    TopicKind.BRIDGE_HEARTBEAT: lambda topics, _, sender: topics.bridge_heartbeat(sender),
    TopicKind.PERSON_EVENTS: lambda topics, person, _: topics.person_events(person),
    TopicKind.PERSON_ACCEPTED: lambda topics, person, _: topics.person_accepted(person),
}
OF_A_PERSON = {TopicKind.PERSON_EVENTS, TopicKind.PERSON_ACCEPTED}
OF_A_CONVERSATION = {TopicKind.EVENTS, TopicKind.AUDIO, TopicKind.ACCEPTED, TopicKind.UPDATED}
OF_A_SENDER = {TopicKind.WANT, TopicKind.CONTROL, TopicKind.AGENT_HEARTBEAT, TopicKind.BRIDGE_HEARTBEAT}
BAD_IDS = {
    "dot": "a.b",
    "slash": "a/b",
    "plus": "+",
    "plus inside": "a+",
    "hash": "#",
    "empty": "",
    "129 characters": "a" * 129,
    "newline at the end": "a\n",
    "nul": "a\0",
    "space": "a b",
    "unicode letter": "ä",
    "unicode digit": "٣",
    "surrogate": "\ud800",
    "dollar": "$SYS",
    "leading dash": "-a",
    "leading underscore": "_a",
    "parent": "..",
}


def matches(topic_filter: str, topic: str) -> bool:
    """Match a filter as in MQTT 3.1.1, 4.7: + is one level, # is all that follow."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


@pytest.mark.parametrize("kind", TopicKind)
@given(root=ROOTS, conversation=IDS, sender=IDS)
def test_a_topic_parses_to_what_it_was_built_from(kind: TopicKind, root: str, conversation: str, sender: str) -> None:
    address = Topics(root).parse(BUILDERS[kind](Topics(root), conversation, sender))
    assert address == TopicAddress(
        kind,
        None if kind in OF_A_SENDER | OF_A_PERSON else conversation,
        None if kind in OF_A_CONVERSATION | OF_A_PERSON else sender,
        conversation if kind in OF_A_PERSON else None,
    )


@pytest.mark.parametrize("kind", TopicKind)
@pytest.mark.parametrize("other", TopicKind)
def test_a_filter_takes_its_own_kind_and_no_other(kind: TopicKind, other: TopicKind) -> None:
    topic = BUILDERS[other](TOPICS, "conversation", "mac")
    assert matches(TOPICS.filter(kind), topic) == (kind is other)


@pytest.mark.parametrize("kind", sorted(set(TopicKind) - OF_A_CONVERSATION - OF_A_PERSON))
def test_a_filter_for_one_sender_takes_only_that_sender(kind: TopicKind) -> None:
    own, foreign = (BUILDERS[kind](TOPICS, "conversation", sender) for sender in ("mac", "mini"))
    assert matches(TOPICS.filter(kind, sender_id="mac"), own)
    assert not matches(TOPICS.filter(kind, sender_id="mac"), foreign)


@pytest.mark.parametrize("kind", TopicKind)
@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
def test_an_id_that_may_not_stand_in_a_topic_is_refused(kind: TopicKind, bad: str) -> None:
    for conversation, sender in ((bad, bad), (bad, "mac"), ("c1", bad)):
        if (kind in OF_A_SENDER and sender != bad) or (kind in OF_A_CONVERSATION | OF_A_PERSON and conversation != bad):
            continue
        with pytest.raises(TopicMalformed, match="may not stand in a topic"):
            BUILDERS[kind](TOPICS, conversation, sender)
        topic = BUILDERS[kind](TOPICS, "CONVERSATION", "SENDER")
        with pytest.raises(TopicMalformed, match="not one of this root's"):
            TOPICS.parse(topic.replace("CONVERSATION", conversation).replace("SENDER", sender))


@pytest.mark.parametrize("bad", [bad for bad in BAD_IDS.values() if bad != "+"])
def test_a_filter_for_an_id_that_may_not_stand_in_a_topic_is_refused(bad: str) -> None:
    with pytest.raises(TopicMalformed):
        TOPICS.filter(TopicKind.WANT, sender_id=bad)


@pytest.mark.parametrize("root", ["", "/", "omi/", "/omi", "omi//v1", "omi/+", "#", "omi/v1.2", "$share/x", "omi\n"])
def test_a_root_that_no_broker_could_route_is_refused(root: str) -> None:
    with pytest.raises(TopicMalformed, match="topic root"):
        Topics(root)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "omi/v1",
        "omi/v1/",
        "omi/v2/conversations/c/events",
        "xomi/v1/conversations/c/events",
        "omi/v1/conversations/c",
        "omi/v1/conversations/c/events/",
        "omi/v1/conversations/c/events/mac",
        "omi/v1/conversations/c/turns",
        "omi/v1/conversations/c/audio/mac/x",
        "omi/v1/agents/mac/turns",
        "omi/v1/bridge/vps/want",
        "omi/v1/conversations//events",
        "omi/v1/people/anna",
        "omi/v1/people/anna/updated",
        "$SYS/broker/uptime",
    ],
)
def test_a_foreign_topic_is_refused(topic: str) -> None:
    with pytest.raises(TopicMalformed, match="not one of this root's"):
        TOPICS.parse(topic)


@given(st.text())
def test_no_text_breaks_the_parser(topic: str) -> None:
    for candidate in (topic, f"omi/v1/{topic}", f"omi/v1/conversations/{topic}/events"):
        try:
            address = TOPICS.parse(candidate)
        except TopicMalformed:
            continue
        ids = address.conversation_id, address.sender_id, address.person_id
        assert all(part is None or is_id(part) for part in ids)


def test_every_topic_carries_one_message_and_every_message_has_its_topic() -> None:
    assert set(MESSAGE_BY_TOPIC) == set(TopicKind)
    assert len(MESSAGE_BY_SCHEMA) == len(TopicKind)
