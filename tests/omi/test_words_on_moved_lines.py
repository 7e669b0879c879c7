"""What people said of a line, in OMI or here, holds where OMI gives the line another id, or merges its conversation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.omi.people_on_both_sides import BothSides
from tests.omi.simulated_omi import OmiLine
from tests.omi.test_people_on_both_sides import name_a_voice, one_talk
from vps_bridge.omi.api import OWNER

LATER_S = 400.0


@pytest.mark.parametrize("who", [OWNER, "o-A"])
@pytest.mark.parametrize("way", ["same id", "new id", "merged"])
def test_whom_people_took_away_in_omi_does_not_come_back(way: str, who: str) -> None:
    with one_talk() as both:
        line = first_line(both)
        both.omi.say(line, who)
        both.report_again()
        both.omi.say(line, None)
        both.report_again()
        line = move(both, line, way)
        name_a_voice(both, "o-B")
        assert both.omi.lines[line].person is None


@pytest.mark.parametrize("way", ["new id", "merged"])
def test_what_people_took_away_in_omi_that_it_had_from_here_does_not_come_back(way: str) -> None:
    with one_talk() as both:
        line = name_a_voice(both, "o-A")[0]
        both.clock.now_s += LATER_S
        both.omi.say(line, None)
        both.report_again()
        line = move(both, line, way)
        name_a_voice(both, "o-A")
        assert both.omi.lines[line].person is None


def test_what_omi_lost_just_after_it_was_told_is_told_again_under_another_id() -> None:
    with one_talk() as both:
        line = name_a_voice(both, "o-A")[0]
        both.omi.say(line, None)
        line = move(both, line, "new id")
        assert both.talk.send()
        assert both.omi.lines[line].person == "o-A"


def test_what_was_corrected_here_stays_where_omi_reports_its_older_label_under_another_id() -> None:
    with one_talk() as both:
        line = first_line(both)
        both.omi.say(line, "o-A")
        both.report_again()
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-B")
        line = move(both, line, "new id")
        both.report_again()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-B", "o-A")
        both.omi.say(line, "o-B")
        both.report_again()
        assert both.talk.persons[line] == "o-B"


@pytest.mark.parametrize("way", ["same id", "new id", "cut", "merged"])
def test_what_was_corrected_here_stays_where_omi_goes_on_to_say_that_its_owner_speaks(way: str) -> None:
    with one_talk() as both:
        line = first_line(both)
        both.omi.say(line, OWNER)
        both.report_again()
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-B")
        line = move(both, line, way)
        both.report_again()
        assert both.talk.send()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-B", OWNER)
        both.omi.say(line, "o-C")
        both.report_again()
        assert both.talk.persons[line] == "o-C"


@pytest.mark.parametrize("way", ["by hand", "voice"])
def test_a_label_by_hand_in_a_merged_conversation_stays_where_omi_takes_that_apart(way: str) -> None:
    """The line is somebody else in the conversation that it was in before: that was said earlier."""
    with one_talk() as both:
        line = first_line(both)
        said = {"kind": "voice_is", "speaker_id": 0} if way == "voice" else {"kind": "segment_is", "segment_id": line}
        both.talk.correct(**said, person_id="p-A")
        assert both.talk.send()
        move(both, line, "merged")
        both.clock.now_s += LATER_S
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-B")
        assert both.talk.send()
        both.omi.name = "talk"
        for _ in range(2):
            both.clock.now_s += LATER_S
            both.report_again()
            assert both.talk.send()
            assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-B", "o-B")
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        both.report_again()
        assert both.talk.send()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-A", "o-A")


@pytest.mark.parametrize("way", ["taken apart", "split"])
def test_a_label_by_hand_goes_along_where_omi_reports_first_what_is_left_of_the_conversation(way: str) -> None:
    with one_talk() as both:
        line = first_line(both)
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        assert both.talk.send()
        if way == "taken apart":
            move(both, line, "merged")
        both.clock.now_s += LATER_S
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-B")
        assert both.talk.send()
        left, gone = {"own": OmiLine("own", 0.0, 3.0, "quite other words")}, both.omi.lines
        both.omi.lines = left
        both.report_again()
        both.omi.lines, both.omi.name = gone, "talk" if way == "taken apart" else "split"
        both.names["split"] = 0.0
        for _ in range(2):
            both.clock.now_s += LATER_S
            both.report_again()
            assert both.talk.send()
            assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-B", "o-B")
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        both.report_again()
        assert both.talk.send()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-A", "o-A")


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told yet"])
def test_a_label_by_hand_goes_along_into_a_merged_conversation(is_told: bool) -> None:
    with one_talk() as both:
        line = first_line(both)
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        assert not is_told or both.talk.send()
        move(both, line, "merged")
        name_a_voice(both, "o-B")
        check_it_stays(both, line, every_s=LATER_S)
        check_it_can_be_taken_away(both, line)


def test_a_label_by_hand_that_omi_wrote_over_before_it_merged_the_conversation_is_told_again() -> None:
    with one_talk() as both:
        line = first_line(both)
        read = both.omi.begin_processing()
        both.talk.correct(kind="segment_is", segment_id=line, person_id="o-A")
        assert both.talk.send()
        both.omi.end_processing(read)
        both.report_again()
        move(both, line, "merged")
        both.omi.say(next(one for one in both.omi.lines if one != line), "o-B")
        both.report_again()
        assert both.talk.send()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("o-A", "o-A")


def test_what_was_corrected_here_stays_where_omi_reports_its_older_label_in_a_merged_conversation() -> None:
    with one_talk() as both:
        line = first_line(both)
        both.omi.say(line, "o-A")
        both.report_again()
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-B")
        move(both, line, "merged")
        both.report_again()
        assert both.talk.persons[line] == "p-B"
        both.omi.say(line, "o-C")
        both.report_again()
        assert both.talk.persons[line] == "o-C"


@pytest.mark.parametrize("way", ["new id", "cut"])
def test_a_label_by_hand_that_omi_was_not_told_yet_goes_along_too(way: str) -> None:
    with one_talk() as both:
        line = first_line(both)
        both.talk.correct(kind="voice_is", speaker_id=0, person_id="o-B")
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        line = move(both, line, way)
        check_it_stays(both, line)
        both.clock.now_s += LATER_S
        check_it_can_be_taken_away(both, line)


def test_a_line_that_comes_to_lie_in_one_that_stays_gets_nothing_of_it() -> None:
    with one_talk() as both:
        line = name_a_voice(both, "o-A")[0]
        both.clock.now_s += LATER_S
        both.omi.say(line, None)
        both.report_again()
        both.omi.put_back(both.omi.lines[line].inside("listener"))
        both.report_again()
        name_a_voice(both, "o-B")
        assert (both.omi.lines[line].person, both.omi.lines["listener"].person) == (None, "o-B")


@pytest.mark.parametrize("way", ["same id", "new id", "merged", "cut"])
def test_what_was_said_here_after_people_took_a_label_away_in_omi_stays(way: str) -> None:
    with one_talk() as both:
        line = first_line(both)
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        assert both.talk.send()
        both.clock.now_s += LATER_S
        both.omi.say(line, None)
        both.report_again()
        assert both.talk.persons[line] != "p-A"
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-B")
        line = move(both, line, way)
        both.talk.report(both.rows, 9)  # other bytes: one of the same bytes says nothing new
        assert both.talk.send()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-B", None)
        for said in ("o-C", None):
            both.omi.say(line, said)
            both.report_again()
            assert both.talk.store_person(line) == said


@pytest.mark.parametrize("said", [None, "o-A"])
def test_a_line_that_omi_puts_where_another_lay_gets_nothing_of_that_one(said: str | None) -> None:
    """OMI puts an earlier conversation in front: all lines move, and another one lies where one of them lay."""
    with one_talk() as both:
        line = name_a_voice(both, "o-A")[0]
        both.clock.now_s += LATER_S
        both.omi.people["o-C"] = "C"
        both.omi.say(line, "o-B")
        both.report_again()
        put_in_front(both, replace(both.omi.lines[line], id="new", text="quite other words", person=said))
        both.talk.correct(kind="segment_is", segment_id="new", person_id="o-C")
        assert both.talk.send()
        assert both.omi.lines["new"].person == (said or "o-C")


def test_whom_a_person_names_in_omi_where_a_line_of_ours_lay_is_her_word() -> None:
    with one_talk() as both:
        line = name_a_voice(both, "o-A")[0]
        both.clock.now_s += LATER_S
        put_in_front(both, replace(both.omi.lines[line], id="new", text="quite other words"))
        both.talk.correct(kind="segment_is", segment_id="new", person_id="o-B")
        assert both.talk.send()
        assert both.omi.lines["new"].person == "o-A"


def test_a_label_by_hand_stays_on_its_own_line_where_another_says_the_same_at_its_old_place() -> None:
    with one_talk() as both:
        line = first_line(both)
        both.omi.lines[line] = replace(both.omi.lines[line], text="Yes.")
        both.report_again()
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        put_in_front(both, replace(both.omi.lines[line], id="new"))
        assert both.talk.send()
        assert (both.talk.store_person("new"), both.omi.lines["new"].person) == (None, None)
        check_it_stays(both, line)


@pytest.mark.parametrize("by_s", [-8.0, 3.0, 200.0])
def test_what_omi_has_from_us_is_ours_where_all_lines_have_new_ids_and_have_moved(by_s: float) -> None:
    with one_talk() as both:
        both.omi.people["o-C"] = "C"
        both.move_all(20.0)
        both.report_again()
        for number, person in ((0, "o-A"), (1, "o-B")):
            both.talk.correct(kind="voice_is", speaker_id=number, person_id=person)
        line = first_line(both)
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-B")
        assert both.talk.send()
        both.clock.now_s += LATER_S
        line = both.omi.renumber("n")[line]
        both.move_all(by_s)
        both.report_again()
        for number in (0, 1):
            both.talk.correct(kind="voice_is", speaker_id=number, person_id="o-C")
        assert both.talk.send()
        assert {one.person for one in both.omi.lines.values() if one.id != line} == {"o-C"}
        assert both.omi.lines[line].person == "o-B"


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told yet"])
def test_a_label_by_hand_stays_on_what_somebody_said_while_another_spoke(is_told: bool) -> None:
    """The long line around it has the other voice's name."""
    with one_talk() as both:
        long, short = speak_at_once(both, "Mhm.")
        both.talk.correct(kind="voice_is", speaker_id=0, person_id="p-B")
        both.talk.correct(kind="segment_is", segment_id=short, person_id="p-A")
        assert not is_told or both.talk.send()
        new = both.omi.renumber("n")
        check_it_stays(both, new[short])
        assert both.omi.lines[new[long]].person == "o-B"


def test_what_somebody_said_while_another_spoke_gets_no_label_by_hand_of_that_line() -> None:
    with one_talk() as both:
        long, short = speak_at_once(both, "Yes.")
        both.talk.correct(kind="segment_is", segment_id=long, person_id="p-A")
        new = both.omi.renumber("n")
        both.report_again()
        assert [both.talk.store_person(new[one]) for one in (long, short)] == ["p-A", None]


def test_what_somebody_said_while_another_spoke_is_told_where_people_took_the_other_away() -> None:
    with one_talk() as both:
        long, short = speak_at_once(both, "Mhm.")
        for person in ("o-B", None):
            both.omi.say(long, person)
            both.report_again()
        new = both.omi.renumber("n")
        both.report_again()
        name_a_voice(both, "o-A")
        assert [both.omi.lines[new[one]].person for one in (long, short)] == [None, "o-A"]


def test_a_label_by_hand_goes_along_where_omi_transcribes_with_other_punctuation() -> None:
    with one_talk() as both:
        line = first_line(both)
        both.omi.lines[line] = replace(both.omi.lines[line], text="yes, i know that")
        both.report_again()
        both.talk.correct(kind="segment_is", segment_id=line, person_id="p-A")
        line = both.omi.renumber("n")[line]
        both.omi.lines[line] = replace(both.omi.lines[line], text="Yes. I know that!")
        check_it_stays(both, line)


def test_what_omi_has_from_us_is_ours_where_it_leaves_out_a_silence_in_the_middle() -> None:
    with one_talk() as both:
        both.omi.people["o-C"] = "C"
        move_later_half(both, 100.0)
        both.report_again()
        for number, person in ((0, "o-A"), (1, "o-B")):
            both.talk.correct(kind="voice_is", speaker_id=number, person_id=person)
        assert both.talk.send()
        both.clock.now_s += LATER_S
        both.omi.renumber("n")
        move_later_half(both, -100.0)
        both.report_again()
        for number in (0, 1):
            both.talk.correct(kind="voice_is", speaker_id=number, person_id="o-C")
        assert both.talk.send()
        assert {one.person for one in both.omi.lines.values()} == {"o-C"}


def speak_at_once(both: BothSides, words: str) -> tuple[str, str]:
    """Have somebody say something while the first line is spoken; return both."""
    line = first_line(both)
    both.omi.lines[line] = replace(both.omi.lines[line], text="Yes. Yes, I know that.")
    both.omi.put_back(replace(both.omi.lines[line].inside("l-short"), text=words))
    both.report_again()
    return line, "l-short"


def move_later_half(both: BothSides, by_s: float) -> None:
    """Have the later half of the lines come so much later."""
    lines = sorted(both.omi.lines.values(), key=lambda one: one.start_s)
    moved = [replace(one, start_s=one.start_s + by_s, end_s=one.end_s + by_s) for one in lines[len(lines) // 2 :]]
    both.omi.lines |= {one.id: one for one in moved}


def put_in_front(both: BothSides, line: OmiLine) -> None:
    """Have all lines come later, and this one before them."""
    both.move_all(200.0)
    both.omi.put_back(line)
    both.report_again()


def check_it_stays(both: BothSides, line: str, every_s: float = 0.0) -> None:
    """See that a line is Anna's here and in OMI, also when it is reported again."""
    for _ in range(2):
        both.clock.now_s += every_s
        both.report_again()
        assert both.talk.send()
        assert (both.talk.persons[line], both.omi.lines[line].person) == ("p-A", "o-A")


def check_it_can_be_taken_away(both: BothSides, line: str) -> None:
    """See that nobody is told for a line again once a person took that away in OMI."""
    both.omi.say(line, None)
    both.report_again()
    assert both.talk.send()
    assert both.omi.lines[line].person is None


def first_line(both: BothSides) -> str:
    return next(one for one, number in both.talk.numbers.items() if number == 0)


def move(both: BothSides, line: str, way: str) -> str:
    """Have OMI do this to the talk, and report it; return the line's id then."""
    if way == "new id":
        line = both.omi.renumber("n")[line]
    elif way == "cut":
        both.omi.cut(line, f"{line}-half")
        line = f"{line}-half"
    elif way == "merged":
        both.omi.name = "merged"
        both.names["merged"] = 0.0
    both.report_again()
    return line
