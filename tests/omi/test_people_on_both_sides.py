"""Whatever people say in OMI and here, in whatever order: OMI ends with what was said last, and it stays so."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest

from schemas.conversation import TranscriptSegment
from schemas.people import PersonEventType
from tests.hand_clock import HandClock
from tests.omi.labelled_talk import open_talk
from tests.omi.people_on_both_sides import BothSides
from tests.omi.sides_of_a_talk import OLD_S, WatchedOmi
from tests.omi.simulated_omi import OmiLine
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from vps_bridge.omi.api import OWNER

FEW, MANY = range(8), range(1_000)


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_omi_has_in_the_end_what_was_said_last(seeds: range) -> None:
    for seed in seeds:
        go_through(seed)


def test_a_report_of_the_same_bytes_says_that_omi_wrote_over_what_it_was_told() -> None:
    with one_talk() as both:
        read, rows = both.omi.begin_processing(), both.rows
        both.talk.report(rows, 0)
        hers = name_a_voice(both, "o-A")
        both.omi.end_processing(read)
        both.talk.report(rows, 0)
        assert both.talk.send()
        assert {both.omi.lines[one].person for one in hers} == {"o-A"}


def test_what_was_corrected_here_stays_when_omi_reports_its_older_label_again() -> None:
    with one_talk() as both:
        both.omi.say("l-s01", "o-A")
        both.report_again()
        both.talk.correct(kind="segment_is", segment_id="l-s01", person_id="p-B")
        both.omi.say("l-s02", "o-A")
        both.report_again()
        assert both.talk.persons["l-s01"] == "p-B"
        both.omi.say("l-s01", None)
        both.report_again()
        both.omi.say("l-s01", "o-A")
        both.report_again()
        assert both.talk.persons["l-s01"] == "o-A"


def test_whoever_becomes_the_owner_is_nobody_in_omi() -> None:
    with one_talk() as both:
        hers = name_a_voice(both, "p-A")
        assert {both.omi.lines[one].person for one in hers} == {"o-A"}
        both.talk.know("p-A", PersonEventType.OWNER, is_owner=True)
        assert both.talk.send()
        assert {both.omi.lines[one].person for one in hers} == {None}


def test_whoever_was_made_anew_here_is_whom_somebody_picks_in_omi() -> None:
    """Somebody of that name was deleted here before: OMI's person is not two of ours."""
    with one_talk() as both:
        first, second, *_ = [one for one, number in both.talk.numbers.items() if number == 0]
        both.talk.correct(kind="segment_is", segment_id=first, person_id="p-A")
        assert both.talk.send()
        both.talk.forget("p-A")
        both.talk.know("anew", PersonEventType.NAMED, name="A")
        both.talk.correct(kind="segment_is", segment_id=second, person_id="anew")
        assert both.talk.send()
        other = next(one for one, number in both.talk.numbers.items() if number == 1)
        both.omi.say(other, "o-A")
        both.report_again()
        assert both.talk.persons[other] == "anew"


def test_whom_omi_was_told_by_name_is_the_same_person_here_where_somebody_picks_her_there() -> None:
    with one_talk() as both:
        both.talk.know("p-A", PersonEventType.NAMED, name="A")
        hers = name_a_voice(both, "p-A")
        assert {both.omi.lines[one].person for one in hers} == {"o-A"}
        other = next(one for one in both.omi.lines if one not in hers)
        both.omi.say(other, "o-A")
        both.report_again()
        assert both.talk.store_person(other) == "p-A"
        both.talk.correct(kind="segment_is", segment_id=other, person_id="p-B")
        both.omi.say(hers[0], "o-B")
        both.report_again()
        assert (both.talk.store_person(other), both.talk.store_person(hers[0])) == ("p-B", "o-B")


def test_nobody_whom_omi_got_from_here_is_no_persons_word() -> None:
    with one_talk() as both:
        both.names_source = True
        both.talk.correct(kind="segment_is", segment_id="l-s01", person_id="p-A")
        assert both.talk.send()
        both.talk.know("p-A", PersonEventType.OWNER, is_owner=True)
        assert both.talk.send()
        both.report_again()
        assert (both.omi.lines["l-s01"].person, both.talk.persons["l-s01"]) == (None, "p-A")


def test_a_name_that_is_taken_back_here_goes_from_both_halves_of_a_line_that_omi_cut() -> None:
    with one_talk() as both:
        line = name_a_voice(both, "o-A")[0]
        both.omi.cut(line, "half")
        both.talk.correct(kind="voice_is_not", speaker_id=0, person_id="o-A")
        both.report_again()
        assert both.talk.send()
        assert [both.omi.lines[one].person for one in (line, "half")] == [None, None]


def test_a_label_by_hand_stays_in_omi_where_its_line_has_another_id() -> None:
    with one_talk() as both:
        both.talk.correct(kind="segment_is", segment_id="l-s01", person_id="o-A")
        assert both.talk.send()
        new_id = both.omi.renumber("n")["l-s01"]
        both.report_again()
        assert both.talk.send()
        assert both.omi.lines[new_id].person == "o-A"


@pytest.mark.parametrize("way", ["cut", "joined", "new ids"])
def test_a_label_by_hand_goes_along_to_a_new_line_where_its_voice_is_somebody_else(way: str) -> None:
    with one_talk() as both:
        before, line = name_a_voice(both, "o-B")[1:3]
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        assert both.talk.send()
        new_id = "new"
        if way == "new ids":
            new_id = both.omi.renumber("n")[line]
        elif way == "cut":
            both.omi.cut(line, new_id)
        else:
            both.omi.say(before, "o-A")
            both.omi.join([before, line], new_id)
        for _ in range(2):
            both.clock.now_s += 400.0
            both.report_again()
            assert both.talk.send()
            assert (both.talk.persons[new_id], both.omi.lines[new_id].person) == ("p-A", "o-A")
        both.talk.correct(kind="segment_is", segment_id=new_id, person_id="p-B")
        assert both.talk.send()
        assert (both.talk.persons[new_id], both.omi.lines[new_id].person) == ("p-B", "o-B")


@pytest.mark.parametrize("said", [None, "o-B"])
def test_what_is_said_in_omi_of_a_line_to_which_a_label_by_hand_went_along_counts(said: str | None) -> None:
    with one_talk() as both:
        first = name_a_voice(both, "o-C")[1]
        both.talk.correct(kind="segment_is", segment_id=first, person_id="p-A")
        assert both.talk.send()
        both.omi.cut(first, "half")
        both.report_again()
        both.clock.now_s += 400.0
        both.omi.say("half", said)
        both.report_again()
        assert both.talk.send()
        assert both.omi.lines["half"].person == said
        assert both.talk.persons["half"] in ({None, "o-C"} if said is None else {said})


def test_omi_may_write_over_a_mended_label_what_it_had_written_over_the_one_before() -> None:
    with one_talk() as both:
        nobody = both.omi.begin_processing()
        name_a_voice(both, "o-A")
        both.omi.end_processing(nobody)
        both.report_again()
        both.clock.now_s += 400.0
        hers = name_a_voice(both, "o-B")
        both.omi.end_processing(nobody)
        both.report_again()
        assert both.talk.send()
        assert {both.omi.lines[one].person for one in hers} == {"o-B"}


@pytest.mark.parametrize("names_source", [True, False])
def test_what_omi_does_late_for_a_call_that_was_given_up_before_the_mend_is_no_persons_word(
    *, names_source: bool
) -> None:
    with one_talk() as both:
        both.names_source = names_source
        both.omi.trouble = 2.0  # no call is answered
        both.talk.correct(kind="voice_is", speaker_id=0, person_id="o-A")
        with (
            patch.object(both.omi, "list_people", lambda _uid: both.omi.people),
            patch.object(both.omi, "read_labels", lambda *_: {one.id: one.person for one in both.omi.lines.values()}),
        ):
            assert not both.talk.send()
        both.omi.trouble = 0.0
        hers = name_a_voice(both, "o-B")
        for one in hers:
            both.omi.say(one, "o-A")
        both.clock.now_s += 30.0
        both.report_again()
        assert both.talk.send()
        assert {(both.talk.persons[one], both.omi.lines[one].person) for one in hers} == {("o-B", "o-B")}


def test_a_label_by_hand_goes_along_under_a_new_id_where_people_in_omi_had_cleared_the_line_before() -> None:
    with one_talk() as both:
        line = next(iter(both.omi.lines))
        for person in (OWNER, None):
            both.omi.say(line, person)
            both.report_again()
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        line = both.omi.renumber("n")[line]
        both.report_again()
        assert both.talk.send()
        assert both.talk.persons[line] == "p-A"


def test_what_omi_wrote_over_and_could_not_be_told_again_for_long_is_no_persons_word() -> None:
    with one_talk() as both:
        line = next(iter(both.omi.lines))
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        line = both.omi.renumber("n")[line]
        both.report_again()
        read = both.omi.begin_processing()
        assert both.talk.send()
        both.omi.end_processing(read)
        both.report_again()
        both.clock.now_s += OLD_S + 100.0
        both.move_all(8.0)
        both.report_again()
        assert both.talk.send()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-A", "o-A")


def test_whom_omi_has_in_a_line_that_got_another_ones_id_is_still_its_word() -> None:
    with one_talk() as both:
        one, other = list(both.omi.lines)[:2]
        both.omi.say(one, "o-A")
        both.report_again()
        first, second = both.omi.lines[one], both.omi.lines[other]
        both.omi.lines |= {
            one: replace(second, id=one, person="o-A", is_manual=True),
            other: replace(first, id=other, person=None, is_manual=False),
        }
        both.report_again()
        assert (both.talk.persons[one], both.talk.persons[other]) == ("o-A", None)


def name_a_voice(both: BothSides, person: str) -> list[str]:
    """Name the first voice, send that to OMI, and return its lines."""
    both.talk.correct(kind="voice_is", speaker_id=0, person_id=person)
    assert both.talk.send()
    return [one for one, number in both.talk.numbers.items() if number == 0 and both.talk.persons[one] == person]


@contextmanager
def one_talk() -> Iterator[BothSides]:
    """A talk of which all was heard; both sides know all people."""
    drawn, draw, clock = DrawnConversation(2), random.Random(0), HandClock(1_800_000_000.0)
    with begin(drawn, draw, clock, known=1.0) as both:
        while len(both.talk.jobs) < len(drawn.jobs):
            both.hear()
        yield both


def go_through(seed: int) -> None:
    drawn, draw, clock = DrawnConversation(seed), random.Random(seed + 17), HandClock(1_800_000_000.0)
    with begin(drawn, draw, clock, known=0.75) as both:
        for _ in range(draw.randint(0, len(drawn.jobs))):
            both.hear()
        for _ in range(draw.randint(3, 30)):
            both.step()
        check(both)


@contextmanager
def begin(drawn: DrawnConversation, draw: random.Random, clock: HandClock, known: float) -> Iterator[BothSides]:
    """A talk that OMI has reported. `known`: how likely it is that somebody is known in OMI, and here by name."""
    ids = {line.id: f"l-{line.id}" for line in drawn.segments}
    lines = {ids[one.id]: draw_line(ids[one.id], one, draw, usual=known) for one in drawn.segments}
    people = {f"o-{one}": one for one in drawn.people if draw.random() < known}
    omi = WatchedOmi(lines, people, draw, clock=clock)
    with patch.object(time, "time", clock), open_talk(omi, drawn) as talk:
        both = BothSides(talk, omi, drawn, draw, clock, names_source=draw.random() < 0.6)
        for one in drawn.people:
            if draw.random() < known:
                talk.know(f"p-{one}", PersonEventType.NAMED, name=one)
        both.report_again()
        yield both


def draw_line(name: str, said: TranscriptSegment, draw: random.Random, usual: float) -> OmiLine:
    """Return a line as OMI has it; some say what others say too, and some have no length."""
    is_usual, has_length = (draw.random() < share for share in (usual, 1 - (1 - usual) / 5))
    text = " ".join(f"{said.text}-{n}" for n in range(8)) if is_usual else "Yeah, that is so, yeah."
    return OmiLine(name, said.start_s, said.end_s if has_length else said.start_s, text)


def check(both: BothSides) -> None:
    both.settle()
    has = {one: line.person for one, line in both.omi.lines.items()}
    wanted, words = both.wanted(), both.words
    log = "\n".join(both.log)
    wrong = {
        one: (person, words.get(one, "nobody said"), wanted.get(one))
        for one, person in has.items()
        if one not in both.unsure
        and person not in both.deleted
        and not (one in both.left_there and one not in words and wanted.get(one) is None)
        and person != (words[one] if one in words else wanted.get(one))
    }
    assert not wrong, f"{wrong}\n{log}"
    labels = {label.id: label.person_id for label in both.talk.found.segments}
    sure = both.reported - both.unsure - both.contested if both.names_source else set[str]()
    there = {one: words[one] for one in sure if words.get(one) not in (None, OWNER)}
    heard = {one: said for one, said in (there | both.by_hand).items() if one in labels}
    here = {one: (labels[one], said) for one, said in heard.items() if not both.is_same(labels[one], said)}
    assert not here, f"here: {here}\n{log}"
    before = (has, both.talk.persons)
    both.report_again()
    assert both.talk.send()
    assert ({one: line.person for one, line in both.omi.lines.items()}, both.talk.persons) == before, log
