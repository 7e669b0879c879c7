"""A conversation whose owner a later `started` event names: what it knows of people goes along, and nothing stays."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from schemas.conversation import ConversationUpdated, EventType, Verdict
from schemas.corrections import Correction
from schemas.people import PersonEventType
from tests.vps_bridge.live_bridge import STARTED_AT, LiveBridge, wait_until
from tests.vps_bridge.owners_backend import ALONE, OwnersBackend, person_of
from tests.vps_bridge.scripted_agent import voice_of


@pytest.fixture
def first(people: OwnersBackend) -> OwnersBackend:
    return people


@pytest.fixture
def second(first: OwnersBackend) -> OwnersBackend:
    return OwnersBackend(first.backend, first.agent)


def change_owner(call: ConversationUpdated, to: OwnersBackend) -> None:
    """Say whose conversation it is."""
    name = call.conversation_id
    said = to.backend.event(name, EventType.STARTED, started_at=STARTED_AT, owner=to.owner, revision=1)
    assert said.verdict is Verdict.ACCEPTED


def known(bridge: LiveBridge, owner: OwnersBackend) -> dict[str, list[str]]:
    """Return whom an owner knows, and out of which conversations."""
    return {
        person["person_id"]: [found["conversation_id"] for found in person["prints"]]
        for person in bridge.people(owner.owner)
    }


def test_a_voice_that_was_confirmed_is_the_new_owner_s_alone(
    first: OwnersBackend, second: OwnersBackend, bridge: LiveBridge
) -> None:
    call = first.confirm("ben", first.call(), 1)
    learned = {"ben": [call.conversation_id]}
    assert known(bridge, first) == learned
    change_owner(call, second)
    wait_until(lambda: known(bridge, second) == learned, "the new owner's person")
    assert known(bridge, first) == {"ben": []}, "the id of its event, and no voice"
    assert first.call().people == ()
    heard = second.call()
    assert [(each.person_id, each.identity) for each in heard.people] == [("ben", "matched")]
    detail = bridge.json("people", "show", "ben", "--owner", second.owner)
    assert {found["conversation_id"] for found in detail["heard_in"]} == {call.conversation_id, heard.conversation_id}


def test_forgetting_the_new_owner_s_person_erases_the_voice_and_the_old_owner_has_none_to_forget(
    first: OwnersBackend, second: OwnersBackend, bridge: LiveBridge
) -> None:
    voices = {"b": voice_of(f"ben-{uuid.uuid4().hex}")}
    call = first.confirm("ben", first.call(voices=voices), 1)
    change_owner(call, second)
    wait_until(lambda: known(bridge, second), "the new owner's person")
    assert first.say("ben", PersonEventType.FORGOTTEN).verdict is Verdict.ACCEPTED
    assert known(bridge, second) == {"ben": [call.conversation_id]}, "another owner's word"
    assert voices["b"] in all_files(bridge)
    assert second.say("ben", PersonEventType.FORGOTTEN).verdict is Verdict.ACCEPTED
    assert known(bridge, second) == {}
    assert voices["b"] not in all_files(bridge)


def test_whom_the_old_owner_knows_names_nobody_any_more(
    first: OwnersBackend, second: OwnersBackend, bridge: LiveBridge
) -> None:
    first.say("anna", PersonEventType.NAMED, name="Anna")
    first.enrol("anna", ALONE)
    call = first.call()
    assert [each.identity for each in call.people] == ["matched"]
    change_owner(call, second)
    told = second.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    assert told.people == ()
    assert {label.person_id for label in told.segments} == {None}
    assert (list(known(bridge, first)), known(bridge, second)) == (["anna"], {}), "she was not learned there"


def test_a_person_of_whom_the_old_owner_knows_more_stays_without_the_voice(
    first: OwnersBackend, second: OwnersBackend, bridge: LiveBridge
) -> None:
    first.say("ben", PersonEventType.NAMED, name="Ben")
    call = first.confirm("ben", first.call(), 1)
    change_owner(call, second)
    wait_until(lambda: known(bridge, second), "the new owner's person")
    ((person,), (other,)) = bridge.people(first.owner), bridge.people(second.owner)
    assert (person["name"], person["prints"]) == ("Ben", ())
    assert other["name"] is None, "the name was told of the old owner's"
    shown = bridge.json("people", "show", "ben", "--owner", first.owner)
    assert {each["conversation_id"] for each in shown["decisions"]} == {None}


def test_who_was_named_before_the_owner_was_is_known_to_the_owner(first: OwnersBackend, bridge: LiveBridge) -> None:
    person_id = f"early-{uuid.uuid4().hex[:8]}"
    of_nobody = OwnersBackend(first.backend, first.agent, "")
    call = of_nobody.call(completed=False)
    said = Correction.model_validate({"kind": "voice_is", "speaker_id": 0, "person_id": person_id})
    first.backend.event(call.conversation_id, EventType.CORRECTED, corrections=(said,))
    change_owner(call, first)
    first.backend.event(call.conversation_id, EventType.COMPLETED, chunks=1)
    wait_until(lambda: known(bridge, first) == {person_id: [call.conversation_id]}, "the owner's person")
    assert person_id not in known(bridge, of_nobody)


def test_an_enrolment_of_another_owner_leaves_nothing_with_the_first(
    first: OwnersBackend, second: OwnersBackend, bridge: LiveBridge
) -> None:
    name = f"enrolment-{uuid.uuid4().hex[:8]}"
    first.backend.event(name, EventType.STARTED, started_at=STARTED_AT, owner=first.owner, enrols="anna")
    first.hear(name, ALONE)
    first.backend.event(name, EventType.COMPLETED, chunks=1)
    told = first.backend.wait_updated(name)
    assert known(bridge, first) == {"anna": [name]}
    change_owner(told, second)
    wait_until(lambda: known(bridge, second) == {"anna": [name]}, "the new owner's person")
    assert known(bridge, first) == {}
    heard = person_of(second.call(), 0)
    assert heard is not None
    assert (heard.person_id, heard.identity) == ("anna", "matched")


def test_a_voice_teaches_no_person_of_the_new_owner_s_who_sounds_otherwise(
    first: OwnersBackend, second: OwnersBackend, bridge: LiveBridge
) -> None:
    """Many backends call every owner's own voice `me`."""
    stranger = {"a": voice_of("somebody else's")}
    second.enrol("me", ((0.5, 9.0, "a"),))
    call = first.confirm("me", first.call(voices=stranger), 0)
    change_owner(call, second)
    told = second.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    moved = person_of(told, 0)
    assert moved is not None
    assert (moved.identity, moved.voiceprint) == ("confirmed", "asks")
    assert len(known(bridge, second)["me"]) == 1
    assert second.call(voices=stranger).people == ()
    assert [each.identity for each in second.call().people] == ["matched"]


def test_a_voice_teaches_the_person_of_the_new_owner_s_who_sounds_the_same(
    first: OwnersBackend, second: OwnersBackend, bridge: LiveBridge
) -> None:
    second.enrol("me", ALONE)
    call = first.confirm("me", first.call(), 0)
    change_owner(call, second)
    wait_until(lambda: call.conversation_id in known(bridge, second)["me"], "the voiceprint of the conversation")
    assert len(known(bridge, second)["me"]) == 2


def all_files(bridge: LiveBridge) -> bytes:
    """Every byte that the bridge keeps."""
    files = (path for path in Path(bridge.data_dir).rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in files if path.suffix != ".out")
