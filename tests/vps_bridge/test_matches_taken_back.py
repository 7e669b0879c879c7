"""A final conversation that a wrong voiceprint named loses the name with the mistake; a right name comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.conversation import ConversationUpdated, EventType
from schemas.corrections import Correction
from tests.vps_bridge.live_bridge import STARTED_AT, LiveBridge
from tests.vps_bridge.owners_backend import OwnersBackend, person_of, sounding


def said_of(update: ConversationUpdated) -> list[tuple[int, str, str]]:
    return [(each.speaker_id, each.person_id, each.identity) for each in update.people]


def after(people: OwnersBackend, update: ConversationUpdated) -> ConversationUpdated:
    """The update that follows, which nobody asked for."""
    told = people.backend.wait_updated(update.conversation_id, version=update.updated_version + 1)
    assert told.state == "final"
    return told


def switch(people: OwnersBackend, kind: EventType, update: ConversationUpdated, event_id: str) -> ConversationUpdated:
    """Undo or redo what an event said; returns the update that follows."""
    people.backend.event(update.conversation_id, kind, target_event_id=event_id)
    return people.backend.wait_updated(update.conversation_id, version=update.updated_version + 1)


def correct(
    people: OwnersBackend, person_id: str, update: ConversationUpdated, speaker_id: int, *, event_id: str
) -> ConversationUpdated:
    """Say in the conversation alone who a voice is: no event tells of the person."""
    said = Correction.model_validate({"kind": "voice_is", "speaker_id": speaker_id, "person_id": person_id})
    people.backend.event(update.conversation_id, EventType.CORRECTED, event_id=event_id, corrections=(said,))
    return people.backend.wait_updated(update.conversation_id, version=update.updated_version + 1)


@pytest.mark.parametrize("teach", [OwnersBackend.confirm, correct])
def test_an_undone_mistake_takes_the_name_from_a_final_conversation_and_its_redo_gives_it_back(
    people: OwnersBackend, bridge: LiveBridge, teach: Callable[..., ConversationUpdated]
) -> None:
    taught = teach(people, "bob", people.call(), 0, event_id="e-said")
    matched = people.call()
    assert said_of(matched) == [(0, "bob", "matched")]
    undone = switch(people, EventType.UNDONE, taught, "e-said")
    cleared = after(people, matched)
    assert said_of(cleared) == []
    assert {label.person_id for label in cleared.segments} == {None}
    assert {change.matched_before for change in cleared.changed} == {"bob"}
    assert not any(known["prints"] for known in bridge.people(people.owner))
    redone = switch(people, EventType.REDONE, undone, "e-said")
    named = after(people, cleared)
    assert said_of(named) == [(0, "bob", "matched")]
    assert named.segments == matched.segments
    for kind, expected in ((EventType.UNDONE, []), (EventType.REDONE, [(0, "bob", "matched")])):
        redone, named = switch(people, kind, redone, "e-said"), after(people, named)
        assert said_of(named) == expected, "however often"


def test_a_name_that_goes_to_another_voice_leaves_the_final_conversation_too(people: OwnersBackend) -> None:
    first = people.call()
    taught = people.confirm("bob", first, 0)
    matched = people.call()
    assert said_of(matched) == [(0, "bob", "matched")]
    said = tuple(
        Correction.model_validate({"kind": kind, "speaker_id": number, "person_id": "bob"})
        for kind, number in (("voice_is_not", 0), ("voice_is", 1))
    )
    people.backend.event(first.conversation_id, EventType.CORRECTED, corrections=said)
    people.backend.wait_updated(first.conversation_id, version=taught.updated_version + 1)
    assert said_of(after(people, matched)) == [(1, "bob", "matched")]


@pytest.mark.parametrize("way", ["same_voice", "voice_is"])
def test_whom_a_voiceprint_of_two_voices_named_loses_the_name_once_they_are_two_again(
    people: OwnersBackend, way: str
) -> None:
    other, stranger = sounding("a", 0.4), sounding("c", 1.0)
    first = people.call(voices={"b": other})
    people.confirm("bob", first, 0)
    said = {
        "same_voice": {"kind": "same_voice", "speaker_ids": (0, 1)},
        "voice_is": {"kind": "voice_is", "speaker_id": 1, "person_id": "bob"},
    }
    mistake = Correction.model_validate(said[way])
    name = first.conversation_id
    people.backend.event(name, EventType.CORRECTED, event_id="e-mistake", corrections=(mistake,))
    joined = people.backend.wait_updated(name, version=first.updated_version + 2)
    assert len({label.speaker_id for label in joined.segments}) == 1
    matched, right = people.call(voices={"a": stranger, "b": other}), people.call(voices={"b": stranger})
    assert (said_of(matched), said_of(right)) == ([(1, "bob", "matched")], [(0, "bob", "matched")])
    switch(people, EventType.UNDONE, joined, "e-mistake")
    cleared = after(people, matched)
    assert [identity for _, _, identity in said_of(cleared)] != ["matched"]
    assert {label.person_id for label in cleared.segments} == {None}
    assert people.backend.wait_updated(right.conversation_id) == right, "nothing was told of whom it is rightly"
    people.backend.event(name, EventType.REDONE, target_event_id="e-mistake")
    assert said_of(after(people, cleared)) == said_of(matched), "and has it back where they are one after all"


def test_who_is_known_from_elsewhere_keeps_the_name(people: OwnersBackend) -> None:
    first = people.confirm("bob", people.call(), 0, event_id="e-first")
    second = people.confirm("bob", people.call(), 0, event_id="e-second")
    matched = people.call()
    switch(people, EventType.UNDONE, second, "e-second")
    switched = switch(people, EventType.UNDONE, first, "e-first")
    cleared = after(people, matched)
    assert said_of(cleared) == [], "both are taken back"
    assert cleared.updated_version == matched.updated_version + 1, "the first that went changed nothing"
    switch(people, EventType.REDONE, switched, "e-first")
    assert said_of(after(people, cleared)) == [(0, "bob", "matched")]


def test_what_another_owner_s_voice_named_is_not_named_any_more(people: OwnersBackend) -> None:
    other = OwnersBackend(people.backend, people.agent)
    taught = people.confirm("bob", people.call(), 0)
    matched = people.call()
    for owner, revision in ((other, 1), (people, 2)):
        name = taught.conversation_id
        people.backend.event(name, EventType.STARTED, started_at=STARTED_AT, owner=owner.owner, revision=revision)
        matched = after(people, matched)
        assert said_of(matched) == ([] if owner is other else [(0, "bob", "matched")])


def test_a_person_s_own_word_in_the_final_conversation_stands(people: OwnersBackend) -> None:
    taught = people.confirm("bob", people.call(), 0, event_id="e-said")
    matched = people.call()
    own = people.confirm("bob", matched, 0)
    switch(people, EventType.UNDONE, taught, "e-said")
    third = people.call()
    assert said_of(third) == [(0, "bob", "matched")], "it is known from the second"
    latest = people.backend.wait_updated(own.conversation_id)
    bob = person_of(latest, 0)
    assert bob is not None
    assert (bob.identity, bob.voiceprint) == ("confirmed", "learned")
