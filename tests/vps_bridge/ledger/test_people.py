"""People in the ledger: each owner's alone, learned as often as confirmed, and gone when forgotten."""

import itertools
from dataclasses import replace

from schemas.conversation import EventType, Verdict
from schemas.failure import FailureCode
from schemas.people import PersonEvent, PersonEventType
from tests.vps_bridge.ledger.test_ledger import tell
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import Voice, VoiceBook
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.deleted_people import FROM_CONVERSATION, FROM_ENROLMENT
from vps_bridge.ledger.people import PrintRecord
from vps_bridge.ledger.records import CorrectionRecord

numbers = itertools.count()


def say(ledger, person_id, kind, **fields):
    """Apply an event as it is applied where nothing refuses it; return its answer."""
    event = PersonEvent(**{"event_id": f"e{next(numbers)}", "type": kind, "owner": "one", **fields})
    answer = ledger.people.find_answer(person_id, event)
    if answer is None:
        ledger.people.note(person_id, event, Verdict.ACCEPTED)
    return answer or (Verdict.ACCEPTED, None)


def print_of(person_id, conversation_id="c1", source=FROM_CONVERSATION, vector=b"\x01\x02\x03\x04"):
    return PrintRecord(person_id, source, conversation_id, "campplus@1/1", vector, 9.0)


def sources(ledger, owner="one"):
    return [(each.person_id, each.source, each.conversation_id) for each in ledger.people.known_to(owner).prints]


def confirm(ledger, conversation_id, person_id, *, owner="one"):
    tell(ledger, EventType.STARTED, conversation_id, owner=owner)
    said = [{"kind": "voice_is", "speaker_id": 0, "person_id": person_id}]
    ledger.people.add(owner, person_id)
    ledger.corrections.add(conversation_id, CorrectionRecord(next(numbers), "e", said, "[]", None))
    ledger.people.learn(owner, conversation_id, [print_of(person_id, conversation_id)])


def test_one_person_is_the_owner_and_facts_of_a_lower_revision_change_nothing(ledger):
    for person_id in ("anna", "ben"):
        say(ledger, person_id, PersonEventType.OWNER)
    assert [(each.person_id, each.is_owner) for each in ledger.people.of_owner("one")] == [
        ("anna", False),
        ("ben", True),
    ]
    say(ledger, "anna", PersonEventType.NAMED, name="Anna", revision=5)
    stale = Verdict.DISCARDED, FailureCode.REVISION_STALE
    assert say(ledger, "anna", PersonEventType.NAMED, name="Ann", revision=4) == stale
    say(ledger, "anna", PersonEventType.OWNER, owner="two", revision=1)
    assert ledger.people.get("one", "anna").name == "Anna"
    assert ledger.people.get("one", "ben").is_owner, "the other owner's person is another person"


def test_prints_of_a_conversation_are_what_is_confirmed_there_now(ledger):
    confirm(ledger, "c1", "anna")
    confirm(ledger, "c2", "anna")
    assert sources(ledger) == [("anna", "conversation", "c1"), ("anna", "conversation", "c2")]
    ledger.people.learn("one", "c1", [], kept=["anna"])
    assert len(sources(ledger)) == 2, "what cannot be made again stays"
    ledger.people.learn("one", "c1", [print_of("nobody")])
    assert sources(ledger) == [("anna", "conversation", "c2")], "of somebody unknown none is kept"
    ledger.people.learn("two", "c2", [])
    assert sources(ledger) == [], "a conversation's prints are its owner's"
    assert [each.what for each in ledger.people.decisions("one", "anna")] == ["learned"] * 2 + ["unlearned"] * 2


def test_what_is_not_final_of_the_same_owner_is_labelled_anew_when_somebody_is_known(ledger):
    for name, owner in (("c1", "one"), ("c2", "one"), ("c3", "two"), ("c4", None)):
        tell(ledger, EventType.STARTED, name, owner=owner)
        ledger.conversations.note_nothing_new(name, final=name == "c1", done_jobs=(), seen=1)
    ledger.people.enrol("one", print_of("anna", "c9", FROM_ENROLMENT))
    assert ledger.conversations.dirty() == ["c2"]


def test_who_is_forgotten_teaches_no_more_and_late_events_bring_nobody_back(ledger):
    confirm(ledger, "c1", "anna")
    confirm(ledger, "c2", "anna", owner="two")
    say(ledger, "anna", PersonEventType.NAMED, name="Anna", event_id="e-late")
    ledger.people.forget("one", "anna")
    assert ledger.people.get("one", "anna") is None
    assert sources(ledger) == []
    assert [each.teaches for each in ledger.corrections.of_conversation("c1")] == [False]
    assert [each.teaches for each in ledger.corrections.of_conversation("c2")] == [True]
    assert sources(ledger, "two") == [("anna", "conversation", "c2")]
    assert say(ledger, "anna", PersonEventType.NAMED, name="Anna", event_id="e-late") == (Verdict.ACCEPTED, None)
    assert ledger.people.get("one", "anna") is None
    say(ledger, "anna", PersonEventType.NAMED, name="Anna")
    assert ledger.people.get("one", "anna").name == "Anna", "a new event makes a new person"


def test_a_deleted_conversation_takes_its_prints_and_who_was_named_only_there(ledger):
    confirm(ledger, "c1", "anna")
    confirm(ledger, "c1", "ben")
    say(ledger, "ben", PersonEventType.CONSENTED, consent_date="2026-05-04")
    ledger.people.learn("one", "c1", [print_of("anna"), print_of("ben")])
    ledger.conversations.delete("c1")
    assert [each.person_id for each in ledger.people.of_owner("one")] == ["ben"]
    assert sources(ledger) == []
    tell(ledger, EventType.STARTED, "c3", owner="one", enrols="ben")
    ledger.people.enrol("one", print_of("ben", "c3", FROM_ENROLMENT))
    ledger.conversations.delete("c3")
    assert sources(ledger) == [("ben", "enrolment", "c3")], "an enrolment is thrown away and its print stays"


def test_an_enrolment_whose_result_comes_after_the_person_was_forgotten_brings_nobody_back(ledger):
    tell(ledger, EventType.STARTED, "c1", owner="one", enrols="anna")
    ledger.conversations.mark_deleted("c1")
    ledger.people.forget("one", "anna")
    ledger.people.enrol("one", print_of("anna", "c1", FROM_ENROLMENT))
    assert ledger.people.of_owner("one") == []
    assert sources(ledger) == []
    tell(ledger, EventType.STARTED, "c2", owner="one", enrols="anna")
    ledger.people.enrol("one", print_of("anna", "c2", FROM_ENROLMENT))
    assert sources(ledger) == [("anna", "enrolment", "c2")], "who is enrolled anew is known"


def test_an_enrolment_is_stripped_once_it_is_final(ledger):
    tell(ledger, EventType.STARTED, "c1", owner="one", enrols="anna")
    assert ledger.people.strip("c1") is None, "it is not final"
    ledger.conversations.note_nothing_new("c1", final=True, done_jobs=(), seen=1)
    assert ledger.people.strip("c1") == ()
    assert ledger.people.strip("c1") is None
    found = ledger.conversations.get("c1")
    assert (found.stripped, found.enrols, found.owner) == (True, "anna", "one")
    assert ledger.people.enrolments() == [("c1", found.final_at)]


def test_whom_only_an_undone_correction_named_is_known_no_more(ledger):
    for name, person_id in (("c1", "carl"), ("c2", "anna"), ("c3", "anna"), ("c4", "ben")):
        confirm(ledger, name, person_id)
    say(ledger, "ben", PersonEventType.NAMED, name="Ben")
    for name in ("c1", "c2", "c4"):
        (kept,) = ledger.corrections.of_conversation(name)
        ledger.corrections.switch(name, {kept.write: False}, voices_now=None, voices=None)
        ledger.corrections.forget_unnamed(name)
    assert [each.person_id for each in ledger.people.of_owner("one")] == ["anna", "ben", "carl"], "all have prints"
    for name in ("c1", "c2", "c4"):
        ledger.people.learn("one", name, [])
        ledger.corrections.forget_unnamed(name)
    assert [each.person_id for each in ledger.people.of_owner("one")] == ["anna", "ben"]
    assert ledger.people.decisions("one", "carl") == []


def test_another_owner_gets_what_a_conversation_taught_and_nothing_else(ledger):
    confirm(ledger, "c1", "anna")
    confirm(ledger, "c2", "anna")
    confirm(ledger, "c1", "ben")
    ledger.people.learn("one", "c1", [print_of("anna"), print_of("ben")])
    for name, owner in (("c3", "one"), ("c4", "two"), ("c5", "three")):
        tell(ledger, EventType.STARTED, name, owner=owner)
    for name in ("c1", "c2", "c3", "c4", "c5"):
        seen = ledger.conversations.get(name).dirty
        ledger.conversations.note_nothing_new(name, final=False, done_jobs=(), seen=seen)
    tell(ledger, EventType.STARTED, "c1", owner="two")
    assert sources(ledger) == [("anna", "conversation", "c2")]
    assert sources(ledger, "two") == [("anna", "conversation", "c1"), ("ben", "conversation", "c1")]
    assert [each.person_id for each in ledger.people.of_owner("one")] == ["anna"], "only c1 knew of ben"
    assert {each.conversation_id for each in ledger.people.decisions("one", "anna")} == {"c2"}
    assert {each.conversation_id for each in ledger.people.decisions("two", "anna")} == {"c1"}
    assert sorted(ledger.conversations.dirty()) == ["c1", "c2", "c3", "c4"], "whose voices may be named otherwise now"


def test_the_same_owner_again_moves_nobody_and_whom_nobody_may_learn_is_not_taken_along(ledger):
    confirm(ledger, "c1", "anna")
    confirm(ledger, "c1", "zoe")
    ledger.people.learn("one", "c1", [print_of("anna"), print_of("zoe")])
    ledger.people.forget("one", "zoe")
    before = ledger.people.of_owner("one"), sources(ledger)
    tell(ledger, EventType.STARTED, "c1", owner="one")
    tell(ledger, EventType.STARTED, "c1")
    assert (ledger.people.of_owner("one"), sources(ledger)) == before
    tell(ledger, EventType.STARTED, "c1", owner="two")
    assert [each.person_id for each in ledger.people.of_owner("two")] == ["anna"]


def test_whom_the_old_owner_s_voiceprints_named_is_not_remembered_for_the_new_one(ledger):
    """How the voices sound may be forgotten by then: who was matched is all that would tell."""
    tell(ledger, EventType.STARTED, "c1", owner="one")
    member = LocalSpeaker("j1", "A")
    voices = (Voice(0, (member,), ("s1",), "ben"), Voice(1, (), ("s2",), None, "anna"), Voice(2, (), ()))
    update = AssignedUpdate(VoiceBook(voices, (3,)).to_json(), "key", b"{}", True, (), 0)
    ledger.conversations.note_update("c1", update)
    tell(ledger, EventType.STARTED, "c1", owner="two")
    kept = VoiceBook.from_json(ledger.conversations.get("c1").voices)
    assert kept == VoiceBook((voices[0], replace(voices[1], matched_person=None), voices[2]), (3,))
