"""New transcriptions of talks in which the same is said several times, by anybody, or nothing is told but times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.test_corrections import ALL
from tests.vps_bridge.labelling.test_relabel import diarize
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

Line = tuple[str, float, float, str]
MIXED = {"A": "A", "B": "A", "C": "C"}
APART = {"A": "A", "B": "B", "C": "C"}
TALK: list[Line] = [
    ("A", 0.5, 6.5, "good morning to all"),
    ("C", 7.0, 10.0, "hello you"),
    ("B", 10.5, 11.5, "Yeah."),
    ("B", 12.0, 17.0, "I was at the shop"),
    ("A", 17.6, 18.6, "Yeah."),
    ("C", 19.0, 24.0, "what did you buy"),
    ("B", 24.5, 29.5, "bread and some milk"),
    ("A", 30.0, 37.0, "we have enough milk"),
    ("C", 37.5, 41.0, "never enough"),
    ("B", 41.5, 45.0, "that is right"),
    ("A", 45.5, 52.0, "well then good bye"),
]


@contextmanager
def talk(
    lines: Sequence[Line], heard_as: dict[str, str], spoken: Sequence[Line] = TALK
) -> Iterator[CorrectedConversation]:
    """A talk whose jobs take each person for another as told."""
    plans = plan_jobs(ALL[0], closing=True, idle_s=0.0, rules=AssemblyRules())
    heard = [(heard_as[who], start_s, end_s) for who, start_s, end_s, _ in spoken]
    with open_conversation(numbered(lines, "s")) as call:
        call.hear(ALL[0], tuple(diarize(ALL[0], plan, heard) for plan in plans))
        yield call


def numbered(lines: Sequence[Line], letter: str, moved_s: float = 0.0) -> tuple[TranscriptSegment, ...]:
    return tuple(
        TranscriptSegment(id=f"{letter}{n}", start_s=start_s + moved_s, end_s=end_s + moved_s, text=text)
        for n, (_, start_s, end_s, text) in enumerate(lines)
    )


def ids_of(who: str, lines: Sequence[Line], letter: str) -> list[str]:
    return [f"{letter}{n}" for n, line in enumerate(lines) if line[0] == who]


def number_of(call: CorrectedConversation, name: str) -> int:
    return int(str(call.speakers[name])[-2:])


def named(call: CorrectedConversation, person: str) -> list[str]:
    return [name for name, called in call.persons.items() if called == person]


@pytest.mark.parametrize("says", ["before and after", "only after"])
def test_a_short_line_that_is_gone_is_not_what_somebody_else_says_in_the_same_words(says: str):
    before = TALK if says == "before and after" else [line for line in TALK if line[:2] != ("A", 17.6)]
    with talk(before, MIXED) as call:
        call.correct(kind="other_voice", segment_ids=ids_of("B", before, "s"))
        call.correct(kind="voice_is", speaker_id=number_of(call, ids_of("B", before, "s")[1]), person_id="ben")
        after = [line for line in TALK if line[1] not in (10.5, 12.0)]
        after.insert(2, ("B", 10.5, 17.0, "Yeah, I was at the shop"))
        call.transcribe_anew(numbered(after, "n"))
        assert sorted(named(call, "ben")) == sorted(ids_of("B", after, "n"))


@pytest.mark.parametrize("text", ["Yeah.", ""], ids=["the same words", "no words"])
@pytest.mark.parametrize("said", [{"person_id": "zoe"}, {"speaker_id": 1}], ids=["person", "number"])
def test_a_label_is_void_where_its_id_is_that_of_another_line_of_the_same_words(text: str, said: dict[str, Any]):
    lines = [(who, start_s, end_s, text) for who, start_s, end_s, _ in TALK]
    with talk(lines[1:], APART) as call:
        call.correct(kind="segment_is", segment_id="s3", **said)
        call.transcribe_anew(numbered(lines, "s"))
        assert [outcome for _, outcome, _ in call.outcomes] == ["void"]
        assert named(call, "zoe") == []
        assert len({call.speakers[name] for name in ids_of("B", lines, "s")}) == 1


def test_a_label_is_void_where_its_id_is_that_of_another_line_that_lies_where_it_lay_on_a_clock_that_began_later():
    with talk(TALK, APART) as call:
        lines = [(who, 5.0 * n, 5.0 * n + 4.5, text) for n, (who, *_, text) in enumerate(TALK)]
        call.store.upsert_segments("c1", 2, numbered(lines[1:], "s", moved_s=-5.0), removed=["s10"])
        call.relabel()
        call.correct(kind="segment_is", segment_id="s2", person_id="zoe")
        call.transcribe_anew(numbered(lines, "s"))
        assert [outcome for _, outcome, _ in call.outcomes] == ["void"]
        assert named(call, "zoe") == []


def test_a_listener_s_line_in_the_middle_of_a_line_that_was_split_off_stays_the_listener_s():
    spoken = [line for line in TALK if line[1] > 12.0]
    spoken += [("A", 0.5, 5.0, "it was very long"), ("B", 5.0, 6.2, "Mhm."), ("A", 6.2, 11.0, "then we went home")]
    spoken.sort(key=lambda line: line[1])
    before = [("A", 0.5, 11.0, "it was very long then we went home"), *spoken[3:]]
    with talk(before, {"A": "A", "C": "A", "B": "B"}, spoken) as call:
        call.correct(kind="other_voice", segment_ids=ids_of("A", before, "s"))
        call.correct(kind="voice_is", speaker_id=number_of(call, "s0"), person_id="anna")
        call.transcribe_anew(numbered(spoken, "n"))
        assert sorted(named(call, "anna")) == sorted(ids_of("A", spoken, "n"))
        assert len({call.speakers[name] for name in ids_of("B", spoken, "n")}) == 1


@pytest.mark.parametrize("moved_s", [12.0, -4.0])
def test_a_split_goes_with_its_lines_where_they_are_cut_and_the_transcript_begins_elsewhere(moved_s: float):
    with talk(TALK, MIXED) as call:
        call.correct(kind="other_voice", segment_ids=ids_of("B", TALK, "s"))
        call.correct(kind="voice_is", speaker_id=number_of(call, ids_of("B", TALK, "s")[0]), person_id="ben")
        cut: list[Line] = []
        for who, start_s, end_s, text in TALK:
            middle_s = (start_s + end_s) / 2
            is_long = end_s - start_s > 4.0 and who == "B"
            halves = [(who, start_s, middle_s, f"{text} a"), (who, middle_s, end_s, f"{text} b")]
            cut += halves if is_long else [(who, start_s, end_s, text)]
        call.transcribe_anew(numbered(cut, "s", moved_s))
        assert sorted(named(call, "ben")) == sorted(ids_of("B", cut, "s"))


@pytest.mark.parametrize("text", ["Mhm.", "Mm-hmm.", ""], ids=["the same words", "other words", "no words"])
@pytest.mark.parametrize("said", ["all that the listener says", "the one line"])
def test_a_split_stays_with_a_listener_s_line_whose_id_is_that_of_the_line_around_it_now(said: str, text: str):
    spoken = [line for line in TALK if line[1] > 12.0]
    long, within = ("A", 0.5, 11.0, "it was very long then we went home"), ("B", 5.0, 6.2, "Mhm." if text else "")
    before = [long, within, *spoken]
    spoken += [("A", 0.5, 5.0, "it was very long"), within, ("A", 6.2, 11.0, "then we went home")]
    spoken.sort(key=lambda line: line[1])
    with talk(before, MIXED, spoken) as call:
        named_are = ids_of("B", before, "s") if said == "all that the listener says" else ["s1"]
        call.correct(kind="other_voice", segment_ids=named_are)
        call.correct(kind="voice_is", speaker_id=number_of(call, "s1"), person_id="ben")
        call.transcribe_anew(numbered([("", 0.0, 0.3, "Hm."), long, (*within[:3], text), *before[2:]], "s"))
        assert named(call, "ben") == [f"s{int(name[1:]) + 1}" for name in named_are]


@pytest.mark.parametrize("text", ["Mhm.", "Mm-hmm."], ids=["the same words", "other words"])
def test_a_label_of_a_listener_s_line_does_not_go_to_the_line_around_it_that_has_its_id_now(text: str):
    long, within = ("A", 0.5, 11.0, "it was very long then we went home"), ("B", 5.0, 6.2, "Mhm.")
    rest = [line for line in TALK if line[1] > 12.0]
    with talk([long, within, *rest], APART, [long, *rest]) as call:
        call.correct(kind="segment_is", segment_id="s1", person_id="zoe")
        call.transcribe_anew(numbered([("", 0.0, 0.3, "Hm."), long, (*within[:3], text), *rest], "s"))
        assert named(call, "zoe") == []
        assert [outcome for _, outcome, _ in call.outcomes] == ["void"]


def half_and_half() -> list[Line]:
    """Two people who say about the same, and one job more than half of each."""
    spoken: list[Line] = []
    for n in range(36):
        start_s = spoken[-1][2] + 0.6 if spoken else 0.5
        spoken.append(
            ("AB"[n % 2], start_s, start_s + (5.0 + n % 3 if n % 5 else 1.2), f"line {n}" if n % 5 else "Yeah.")
        )
    return spoken


@pytest.mark.parametrize("is_named", [True, False], ids=["with names", "without names"])
@pytest.mark.parametrize("gone", [3, 31, 33, 34])
def test_a_line_that_is_gone_takes_nobody_along_with_a_split_of_just_half_of_what_was_heard_as_one(
    gone: int, is_named: bool
):
    spoken = half_and_half()
    with talk(spoken, MIXED, spoken) as call:
        call.correct(kind="other_voice", segment_ids=ids_of("B", spoken, "s"))
        if is_named:
            call.correct(kind="voice_is", speaker_id=number_of(call, ids_of("A", spoken, "s")[0]), person_id="anna")
            call.correct(kind="voice_is", speaker_id=number_of(call, ids_of("B", spoken, "s")[0]), person_id="ben")
        after = [line for n, line in enumerate(spoken) if n != gone]
        call.transcribe_anew(numbered(after, "n"))
        own, others = ({call.speakers[name] for name in ids_of(who, after, "n")} for who in "AB")
        assert (len(own), len(others), len(own | others)) == (1, 1, 2)
        assert sorted(named(call, "anna")) == (sorted(ids_of("A", after, "n")) if is_named else [])
