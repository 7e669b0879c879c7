"""People over a real broker: enrolled, recognised, confirmed, refused, exported, and forgotten for good."""

import unicodedata
import uuid
from typing import Any

import pytest

from schemas.conversation import ConversationUpdated, EventType, Verdict
from schemas.corrections import Correction
from schemas.failure import FailureCode
from schemas.people import PersonEvent, PersonEventType
from tests.vps_bridge.live_bridge import LiveBridge, call_segments, wait_until
from tests.vps_bridge.owners_backend import ALONE, CALIBRATED, OwnersBackend, person_of, sounding
from tests.vps_bridge.scripted_agent import voice_of
from vps_bridge.ledger.event_content import digest_event
from vps_bridge.people.match import rules_for


def test_who_was_enrolled_over_mqtt_is_named_in_the_next_conversation_and_strangers_are_not(
    people: OwnersBackend, bridge: LiveBridge
) -> None:
    assert people.say("anna", PersonEventType.NAMED, name="Anna").verdict is Verdict.ACCEPTED
    told = people.enrol("anna", ALONE)
    assert told.enrolment is not None
    assert (told.enrolment.person_id, told.enrolment.outcome, told.enrolment.clean_s) == ("anna", "learned", 27.5)
    assert told.people == ()
    call = people.call()
    anna = person_of(call, 0)
    assert anna is not None
    assert (anna.person_id, anna.identity, anna.similarity, anna.reason) == ("anna", "matched", 1.0, None)
    assert person_of(call, 1) is None, "an unknown voice stays unknown"
    assert [(label.person_id, label.identity) for label in call.segments] == [("anna", "matched"), (None, None)] * 3
    (listed,) = bridge.people(people.owner)
    assert (listed["name"], [each["source"] for each in listed["prints"]]) == ("Anna", ["enrolment"])
    wait_until(lambda: bridge.is_deleted(told.conversation_id), "the end of the enrolment")


def test_an_owner_is_the_same_however_the_name_was_typed_and_whoever_is_no_id_is_not_learned(
    people: OwnersBackend, bridge: LiveBridge
) -> None:
    written = "Zoë"
    zoe = OwnersBackend(people.backend, people.agent, unicodedata.normalize("NFD", f" {written} "))
    zoe.enrol("anna", ALONE)
    call = OwnersBackend(people.backend, people.agent, written).call()
    assert [each.identity for each in call.people] == ["matched"]
    (listed,) = bridge.json("people", "list", "--owner", zoe.owner)["people"]
    assert listed["person_id"] == "anna"
    done = bridge.command("correct", call.conversation_id, "name", "1", " Ben  B.")
    assert "'Ben B.' labels this conversation alone" in done.stderr
    told = people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    ben = person_of(told, 1)
    assert ben is not None
    assert (ben.person_id, ben.identity, ben.voiceprint) == ("Ben B.", "confirmed", "no_id")
    assert len(bridge.people(written)) == 1


def test_a_match_is_taken_back_by_an_undo_and_by_saying_who_it_is_not(people: OwnersBackend) -> None:
    people.enrol("anna", ALONE)
    call = people.call()
    name, before = call.conversation_id, [label.speaker for label in call.segments]
    updates = {
        update.updated_version: update for update in people.backend.seen(ConversationUpdated, name)
    }  # offered anew
    assert [change.matched_after for update in updates.values() for change in update.changed][::2] == ["anna"] * 3
    people.backend.event(name, EventType.UNDONE, target_write=call.write)
    undone = people.backend.wait_updated(name, version=call.updated_version + 1)
    assert {label.person_id for label in undone.segments} == {None}
    people.backend.event(name, EventType.REDONE, target_write=call.write)
    redone = people.backend.wait_updated(name, version=undone.updated_version + 1)
    assert redone.segments == call.segments
    said = Correction.model_validate({"kind": "voice_is_not", "speaker_id": 0, "person_id": "anna"})
    people.backend.event(name, EventType.CORRECTED, corrections=(said,))
    refused = people.backend.wait_updated(name, version=redone.updated_version + 1)
    assert refused.people == ()
    assert [(label.speaker, label.person_id) for label in refused.segments] == [(each, None) for each in before]


def test_a_confirmed_voice_teaches_its_undo_unteaches_and_a_match_teaches_nothing(
    people: OwnersBackend, bridge: LiveBridge
) -> None:
    first = people.call()
    assert first.people == ()
    told = people.confirm("ben", first, 1)
    heard = person_of(told, 1)
    assert heard is not None
    assert (heard.person_id, heard.identity, heard.voiceprint) == ("ben", "confirmed", "learned")
    second = people.call()
    assert [each.identity for each in second.people] == ["matched"]
    (ben,) = bridge.people(people.owner)
    assert [each["conversation_id"] for each in ben["prints"]] == [first.conversation_id], "a match teaches nothing"
    people.backend.event(first.conversation_id, EventType.UNDONE, target_write=told.write)
    people.backend.wait_updated(first.conversation_id, version=told.updated_version + 1)
    assert people.call().people == ()


def test_a_sample_unlike_the_person_s_others_asks_first_and_anyway_takes_it(people: OwnersBackend) -> None:
    people.confirm("anna", people.call(), 0)
    call = people.call(voices={"a": sounding("a", 0.2)})
    asked = people.confirm("anna", call, 0)
    odd = person_of(asked, 0)
    assert odd is not None
    assert (odd.identity, odd.voiceprint) == ("confirmed", "asks")
    assert odd.similarity == pytest.approx(0.2, abs=0.001)
    taken = person_of(people.confirm("anna", asked, 0, anyway=True), 0)
    assert taken is not None
    assert taken.voiceprint == "learned"


def test_what_is_close_is_only_suggested_and_written_nowhere(people: OwnersBackend, bridge: LiveBridge) -> None:
    people.enrol("anna", ALONE)
    call = people.call(voices={"a": sounding("a", _between())})
    (close,) = call.people
    assert (close.identity, close.reason, close.person_id) == ("suggested", "below_threshold", "anna")
    assert close.needed is not None
    assert close.similarity is not None
    assert close.similarity < close.needed
    assert {label.person_id for label in call.segments} == {None}
    told = f"SPEAKER_00 may be anna (suggested): {close.similarity:.2f} alike, {close.needed:.2f} needed, too unlike\n"
    assert told in bridge.command("show", call.conversation_id).stdout


@pytest.mark.parametrize(
    ("turns", "outcome"),
    [
        (((0.5, 10.0, "a"), (11.0, 20.0, "b")), "two_voices"),
        (((0.5, 1.3, "a"),), "little_speech"),
        ((), "no_voice"),
    ],
)
def test_an_enrolment_without_one_clear_voice_says_why_and_teaches_nothing(
    people: OwnersBackend, turns: tuple[tuple[float, float, str], ...], outcome: str
) -> None:
    told = people.enrol("anna", turns)
    assert told.enrolment is not None
    assert told.enrolment.outcome == outcome
    assert people.call().people == ()


def test_no_owner_s_people_are_known_to_another(people: OwnersBackend, bridge: LiveBridge) -> None:
    people.enrol("anna", ALONE)
    call = people.call()
    assert len(call.people) == 1
    for owner in ("", f"other-{uuid.uuid4().hex[:8]}"):
        other = OwnersBackend(people.backend, people.agent, owner)
        assert other.call().people == ()
        about: dict[str, Any] = {"conversation_id": call.conversation_id, "speaker_id": 1, "owner": owner or None}
        refused = people.say("anna", PersonEventType.CONFIRMED, **about)
        assert (refused.verdict, refused.reason) == (Verdict.REFUSED, "person.refused")
        assert people.say("anna", PersonEventType.FORGOTTEN, owner=owner or None).verdict is Verdict.ACCEPTED
        assert bridge.people(owner) == []
    assert len(people.call().people) == 1, "still known to her owner"


def test_what_is_forgotten_is_in_no_file_and_no_late_event_brings_it_back(
    people: OwnersBackend, bridge: LiveBridge
) -> None:
    people.say("zoe", PersonEventType.NAMED, event_id="e-zoe", name="Zoe-Quartermaine")
    other = people.say("zoe", PersonEventType.NAMED, event_id="e-zoe", name="Zoe Another")
    assert (other.verdict, other.reason) == (Verdict.REFUSED, FailureCode.EVENT_ID_CONFLICT)
    people.say("zoe", PersonEventType.CONSENTED, consent_date="2026-05-04")
    people.say("zoe", PersonEventType.OWNER)
    voices = {"a": voice_of("zoe")}
    people.enrol("zoe", ALONE, voices=voices)
    call = people.call(voices=voices)
    call = people.confirm("zoe", call, 0)
    (known,) = bridge.people(people.owner)
    assert (known["name"], known["is_owner"], known["consent_date"]) == ("Zoe-Quartermaine", True, "2026-05-04")
    assert [each["source"] for each in known["prints"]] == ["conversation", "enrolment"]
    digest = digest_event(
        PersonEvent(event_id="e-zoe", type=PersonEventType.NAMED, owner=people.owner, name="Zoe-Quartermaine")
    ).encode()
    assert digest in _all_files(bridge)
    assert b"Zoe-Quartermaine" in _all_files(bridge)
    assert voices["a"] in _all_files(bridge)
    assert people.say("zoe", PersonEventType.FORGOTTEN, event_id="e-forget").verdict is Verdict.ACCEPTED
    people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    assert b"Zoe-Quartermaine" not in _all_files(bridge)
    assert digest not in _all_files(bridge), "whoever guesses the name could check it"
    assert voices["a"] not in _all_files(bridge)
    assert people.say("zoe", PersonEventType.NAMED, event_id="e-zoe", name="Zoe-Quartermaine").reason is None
    assert bridge.people(people.owner) == []
    assert people.call(voices=voices).people == ()


def test_an_enrolment_that_is_under_way_brings_nobody_back_who_is_forgotten(
    people: OwnersBackend, bridge: LiveBridge
) -> None:
    name = f"enrolment-{uuid.uuid4().hex[:8]}"
    people.backend.event(name, EventType.STARTED, owner=people.owner, enrols="anna")
    people.hear(name, ALONE)
    people.say("anna", PersonEventType.FORGOTTEN)
    wait_until(lambda: bridge.is_deleted(name), "the end of the enrolment")
    assert people.backend.event(name, EventType.COMPLETED, chunks=1).verdict is Verdict.DISCARDED
    assert bridge.people(people.owner) == []


def test_whom_it_only_suggested_an_update_tells_no_more(people: OwnersBackend) -> None:
    people.enrol("anna", ALONE)
    call = people.call(voices={"a": sounding("a", _between())})
    assert [each.identity for each in call.people] == ["suggested"]
    people.say("anna", PersonEventType.FORGOTTEN)
    assert people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1).people == ()


def test_a_conversation_that_goes_on_tells_that_the_voice_of_whoever_was_forgotten_in_it_is_not_known_again(
    people: OwnersBackend,
) -> None:
    people.enrol("anna", ALONE)
    call = people.call()
    people.say("anna", PersonEventType.FORGOTTEN)
    told = people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    assert "voices.erased" not in told.warnings, "nothing came that would have to be known again"
    people.hear(call.conversation_id, ALONE, later_s=100.0)
    told = people.backend.wait_updated(call.conversation_id, version=told.updated_version + 1)
    assert "voices.erased" in told.warnings


def test_who_is_forgotten_takes_nobody_along_who_was_named_in_the_same_breath(
    people: OwnersBackend, bridge: LiveBridge
) -> None:
    call = people.call()
    said = [
        {"kind": "voice_is", "speaker_id": number, "person_id": name} for number, name in enumerate(("anna", "ben"))
    ]
    corrections = tuple(map(Correction.model_validate, said))
    people.backend.event(call.conversation_id, EventType.CORRECTED, event_id="e-both", corrections=corrections)
    told = people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    assert [(each.person_id, each.voiceprint) for each in told.people] == [("anna", "learned"), ("ben", "learned")]
    people.say("ben", PersonEventType.FORGOTTEN)
    told = people.backend.wait_updated(call.conversation_id, version=told.updated_version + 1)
    assert [(each.person_id, each.voiceprint) for each in told.people] == [("anna", "learned"), ("ben", None)]
    assert [(each["person_id"], len(each["prints"])) for each in bridge.people(people.owner)] == [("anna", 1)]
    assert [each.person_id for each in people.call().people] == ["anna"]
    for kind in (EventType.UNDONE, EventType.REDONE):
        people.backend.event(call.conversation_id, kind, target_event_id="e-both")
        told = people.backend.wait_updated(call.conversation_id, version=told.updated_version + 1)
    assert [(each["person_id"], len(each["prints"])) for each in bridge.people(people.owner)] == [("anna", 1)]


def test_a_conversation_with_a_transcript_is_no_enrolment(people: OwnersBackend, bridge: LiveBridge) -> None:
    call = people.call()
    for name in (call.conversation_id, f"call-{uuid.uuid4().hex[:8]}"):
        people.backend.event(name, EventType.SEGMENTS, segments=call_segments(name))
        refused = people.backend.event(name, EventType.STARTED, owner=people.owner, enrols="anna")
        assert (refused.verdict, refused.reason) == (Verdict.REFUSED, FailureCode.PERSON_REFUSED)
        assert "an id of its own" in (refused.message or "")
    people.backend.event(call.conversation_id, EventType.APPLIED, updated_version=call.updated_version)
    again = people.confirm("anna", call, 0)
    assert len(again.segments) == len(call.segments)
    assert not bridge.is_deleted(call.conversation_id)


def _between() -> float:
    """A similarity that is too little for a match, and enough for a suggestion."""
    rules = rules_for("@".join(CALIBRATED))
    assert rules is not None
    return (rules.suggest_from + rules.threshold) / 2


def _all_files(bridge: LiveBridge) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((bridge.data_dir).rglob("*")) if path.is_file())


def test_an_erased_voice_teaches_nobody_how_it_sounded_and_another_of_the_conversation_still_does(
    people: OwnersBackend, bridge: LiveBridge
) -> None:
    call = people.confirm("evve", people.call(), 0)
    people.say("evve", PersonEventType.FORGOTTEN)  # a slip of the keyboard, mended
    told = people.backend.wait_updated(call.conversation_id, version=call.updated_version + 1)
    told = people.confirm("eve", people.confirm("ben", told, 1), 0)
    assert [(each.person_id, each.identity, each.voiceprint) for each in told.people] == [
        ("eve", "confirmed", "gone"),
        ("ben", "confirmed", "learned"),
    ]
    assert {each["person_id"]: len(each["prints"]) for each in bridge.people(people.owner)} == {"ben": 1, "eve": 0}
    following = people.call()
    assert [(each.person_id, each.identity) for each in following.people] == [("ben", "matched")]
    eve = person_of(people.confirm("eve", following, 0), 0)
    assert eve is not None
    assert eve.voiceprint == "learned", "nothing that she does not sound like is known of her"
    assert [(each.person_id, each.identity) for each in people.call().people] == [
        ("eve", "matched"),
        ("ben", "matched"),
    ]
