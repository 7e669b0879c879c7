"""Who the voices of a conversation are: what voiceprints name, what they never name, and what is remembered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from schemas.corrections import Correction
from tests.vps_bridge.labelling.test_relabel import DIALOGUE, PEOPLE, POLICY, apply, evidence_of, transcript
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.corrections import KeptCorrection, find_anchors
from vps_bridge.labelling.forget_voices import FORGOTTEN
from vps_bridge.labelling.known_people import KnownPeople
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.labelling.relabel import ConversationEvidence, Relabelling, relabel
from vps_bridge.people.match import Print

SPACE = "campplus@1/32"


def prints_of(**people: str) -> KnownPeople:
    """Voiceprints of people, by who of the dialogue they sound like."""
    prints = tuple(Print(name, SPACE, PEOPLE[like].astype(np.float32), 60.0) for name, like in people.items())
    return KnownPeople(frozenset(people), prints)


def heard(segments: tuple[StoredSegment, ...] = transcript(DIALOGUE), **fields: object) -> ConversationEvidence:
    evidence = evidence_of(DIALOGUE, segments=segments, **fields)
    return replace(evidence, jobs=tuple(replace(job, embedding_model="campplus") for job in evidence.jobs))


def named(result: Relabelling) -> dict[int, tuple[str, str]]:
    return {each.speaker_id: (each.person_id, each.identity) for each in result.people.told}


def said(book: VoiceBook, write: int = 1, **fields: object) -> KeptCorrection:
    correction = Correction.model_validate(fields)
    return KeptCorrection(correction, write, event_id=f"e-{write}", anchors=find_anchors([correction], book))


def test_each_voice_gets_its_own_person_and_a_stranger_none():
    result = relabel(heard(people=prints_of(anna="A", ben="B", dora="D")), POLICY)
    assert named(result) == {0: ("anna", "matched"), 1: ("ben", "matched")}
    persons = {DIALOGUE[int(label.id[1:])][0]: label.person_id for label in result.segments}
    assert persons == {"A": "anna", "B": "ben", "C": None}


def test_a_voice_in_no_segment_is_nobody():
    rest = tuple(one for one in DIALOGUE if one[0] != "C")
    without = tuple(one for one, line in zip(transcript(DIALOGUE), DIALOGUE, strict=True) if line in rest)
    assert named(relabel(heard(without, people=prints_of(clara="C")), POLICY)) == {}


def test_whom_people_named_is_nobody_else_and_teaches_what_it_sounds_like():
    book = relabel(heard(), POLICY).voices
    people = replace(prints_of(anna="B"), people=frozenset({"anna"}))
    anna = said(book, kind="voice_is", speaker_id=0, person_id="anna", anyway=True)
    result = relabel(heard(people=people, voices=book, corrections=(anna,)), POLICY)
    assert named(result) == {0: ("anna", "confirmed")}, "the voice that sounds like her is not her too"
    (learned,) = result.people.learned
    assert (learned.person_id, learned.embedding_space) == ("anna", SPACE)
    assert learned.vector @ PEOPLE["A"] > 0.9
    forgotten = relabel(heard(people=people, voices=book, corrections=(replace(anna, teaches=False),)), POLICY)
    assert forgotten.people.learned == ()


def test_seconds_that_several_jobs_heard_teach_once():
    """Jobs overlap, and audio that is sent again is heard again: a short voice must not pass for a long one."""
    book = relabel(heard(), POLICY).voices
    anna = said(book, kind="voice_is", speaker_id=0, person_id="anna")
    evidence = heard(people=KnownPeople(frozenset({"anna"})), voices=book, corrections=(anna,))
    (learned,) = relabel(evidence, POLICY).people.learned
    spoken_s = sum(end_s - start_s for who, start_s, end_s in DIALOGUE if who == "A")
    assert learned.clean_s == pytest.approx(spoken_s), "not what each job heard of it, together"


def test_a_sample_unlike_the_others_asks_and_is_not_asked_about_again_once_taken():
    book = relabel(heard(), POLICY).voices
    anna = said(book, kind="voice_is", speaker_id=0, person_id="anna")
    asked = relabel(heard(people=prints_of(anna="B"), voices=book, corrections=(anna,)), POLICY)
    assert [each.voiceprint for each in asked.people.told] == ["asks"]
    assert asked.people.learned == ()
    taken = replace(prints_of(anna="B"), taught=frozenset({"anna"}))
    result = relabel(heard(people=taken, voices=book, corrections=(anna,)), POLICY)
    assert [each.voiceprint for each in result.people.told] == ["learned"]


def test_a_voice_that_is_not_somebody_is_compared_with_the_others_only():
    book = relabel(heard(), POLICY).voices
    refused = said(book, kind="voice_is_not", speaker_id=0, person_id="anna")
    people = prints_of(anna="A", ben="B")
    result = relabel(heard(people=people, voices=book, corrections=(refused,)), POLICY)
    assert named(result) == {1: ("ben", "matched")}
    also = replace(people, prints=(*people.prints, *prints_of(anita="A").prints), people=people.people | {"anita"})
    result = relabel(heard(people=also, voices=book, corrections=(refused,)), POLICY)
    assert named(result) == {0: ("anita", "matched"), 1: ("ben", "matched")}


def test_where_voices_are_forgotten_who_was_matched_is_remembered_while_known():
    people = prints_of(anna="A")
    first = relabel(heard(people=people), POLICY)
    jobs = tuple(replace(job, warnings=(FORGOTTEN,)) for job in heard().jobs)
    later = replace(heard(people=people, voices=first.voices), jobs=jobs)
    assert named(relabel(later, POLICY)) == {0: ("anna", "matched")}
    assert named(relabel(replace(later, people=KnownPeople()), POLICY)) == {}


def test_a_voiceprint_that_changes_no_answer_is_no_other_key():
    nobody, stranger = relabel(heard(), POLICY), relabel(heard(people=prints_of(dora="D")), POLICY)
    assert nobody.write_key == stranger.write_key
    one = relabel(heard(people=prints_of(anna="A")), POLICY)
    both = relabel(heard(people=prints_of(anna="A", dora="D")), POLICY)
    assert one.write_key == both.write_key != nobody.write_key


def test_a_match_is_written_once_and_taken_off_with_its_voiceprint():
    evidence = heard(people=prints_of(anna="A"))
    first = relabel(evidence, POLICY)
    assert {label.matched_person for label in first.labels} == {"anna", None}
    matched = {label.id: label.person_id for label in first.segments}
    segments = tuple(replace(one, matched_person=matched[one.id]) for one in apply(evidence.segments, first))
    evidence = replace(evidence, segments=segments, voices=first.voices)
    assert relabel(evidence, POLICY).changed == ()
    gone = relabel(replace(evidence, people=KnownPeople()), POLICY)
    assert {change.origin_after.matched_person for change in gone.changed} == {None}
    assert len(gone.changed) == sum(person is not None for person in matched.values())


@pytest.mark.parametrize(("source", "person"), [("manual", None), ("manual", "zoe"), ("auto", "zoe")])
def test_a_segment_that_says_itself_who_speaks_is_not_named_by_a_voiceprint(source, person):
    first, *rest = transcript(DIALOGUE)
    own = replace(first, label_source=source, person_id=person)
    result = relabel(heard((own, *rest), people=prints_of(anna="A")), POLICY)
    label = result.segments[0]
    assert label.person_id == person
    assert label.identity == ("confirmed" if person and source == "manual" else None)
