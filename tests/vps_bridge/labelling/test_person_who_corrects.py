"""Whoever corrects what is wrong comes to an end, and it stays right when more audio is heard, after mistakes too.

Two voices that sound more alike than linking can tell are left out where people make mistakes: there a split frees
lines for the voice that they sound like.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from schemas.corrections import CorrectionOutcome
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from tests.vps_bridge.labelling.new_transcription import (
    MORE_WAYS,
    ODD_WAYS,
    WAYS,
    Transcription,
    transcribe_anew,
    with_common_words,
)
from tests.vps_bridge.labelling.person_who_corrects import (
    PersonWhoCorrects,
    SeenLine,
    check_outcome,
    draw_mistake,
    look,
)
from vps_bridge.conversations.store import StoreError
from vps_bridge.errors import Refusal

FEW, MANY = range(8), range(1_000)
SHARE_OF_TRANSCRIPTIONS, SHARE_TAKEN_BACK = 0.4, 0.3
FAILED_ONCE = {
    "two voices with two names became one when more was heard": (0, 119),
    "half of what a speaker says was split off, and nothing changed": (1, 32),
    "a later job took a line that was split off back": (1, 252),
    "a split line was merged with others, labelled, and then went with another voice": (1, 1),
    "merging again what a split had parted did nothing": (1, 174),
    "a line with a number by hand was given a person, and that was told as void": (1, 275),
    "whoever said the line that was left was not kept from the others": (1, 406),
    "one label made one of two voices of which one had another name": (1, 469),
    "a later job's part of a line stayed where the line had been": (1, 20387),
    "a name moved the line of another voice": (1, 832),
    "a name that a merge had taken away joined a third voice": (3, 1017),
    "a split in an event of several did nothing": (3, 1183),
}
"""By what was wrong: how many statements an event has (0: no mistakes are made), and the seed."""
LOST_IN_SILENCE = {
    "a line that nobody had placed had the name of the voice whose number speech-to-text gave it": 126,
    "half of the lines of a split, whose ids others had": 361,
    "a number that a line had by itself counted as the one that a person gave to the line before": 569,
}
"""By what was wrong: the seed."""
WRONG_AMONG_ODD_LINES = {
    "a line of two people kept the number of a merge that was taken back": 14,
    "the same, where a name had joined the voices": 739,
}
"""By what was wrong: the seed."""
LEFT_AMONG_ODD_LINES = {534, 1233}
"""What these are: docs/adr/0042-a-person-who-corrects.md."""
LEFT = {(3, 208), (3, 831)}
"""Long contradictory histories that are not put right yet: docs/adr/0042-a-person-who-corrects.md."""
LEFT_WITH_COMMON_WORDS = {112}
"""So is this one, with short lines that say the same: the same page."""


@pytest.mark.parametrize(("at_most", "seed"), FAILED_ONCE.values(), ids=FAILED_ONCE)
def test_what_went_wrong_once_goes_right(at_most: int, seed: int) -> None:
    check(at_most, seed)


@pytest.mark.parametrize("at_most", [0, 1, 3], ids=["the truth", "mistakes one by one", "several mistakes in an event"])
def test_whoever_corrects_comes_to_an_end_and_it_stays_so(at_most: int) -> None:
    for seed in FEW:
        check(at_most, seed)


@pytest.mark.slow
@pytest.mark.parametrize("at_most", [0, 1, 3], ids=["the truth", "mistakes one by one", "several mistakes in an event"])
def test_many_who_correct_come_to_an_end(at_most: int) -> None:
    for seed in MANY:
        if (at_most, seed) not in LEFT:
            check(at_most, seed)


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_whoever_corrects_a_new_transcription_comes_to_an_end_and_only_what_is_void_is_lost(seeds: range) -> None:
    for seed in seeds:
        if not DrawnConversation(seed).alike:
            correct_a_new_transcription(seed)
            correct_after_mistakes_and_new_transcriptions(seed)


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_lines_that_say_the_same_and_a_clock_that_begins_later_lose_no_correction_in_silence(seeds: range) -> None:
    for seed in seeds:
        if not DrawnConversation(seed).alike and seed not in LEFT_WITH_COMMON_WORDS:
            correct_a_new_transcription(seed, common=True)
            correct_after_mistakes_and_new_transcriptions(seed, common=True)


def test_a_name_that_was_mended_does_not_come_back_where_its_voice_is_two_by_now() -> None:
    correct_after_mistakes_and_new_transcriptions(305, common=True)


@pytest.mark.parametrize(
    "seeds",
    [FEW, pytest.param(MANY, marks=pytest.mark.slow), *([seed] for seed in WRONG_AMONG_ODD_LINES.values())],
    ids=["few", "many", *WRONG_AMONG_ODD_LINES],
)
def test_lines_in_each_other_and_transcripts_that_come_back_lose_no_correction_in_silence(seeds: Iterable[int]) -> None:
    for seed in seeds:
        if not DrawnConversation(seed, overlaps=True).alike and seed not in LEFT_AMONG_ODD_LINES:
            correct_among_odd_lines(seed)


@pytest.mark.parametrize("seed", LOST_IN_SILENCE.values(), ids=LOST_IN_SILENCE)
def test_what_a_new_transcription_once_lost_in_silence_is_kept_or_told(seed: int) -> None:
    correct_a_new_transcription(seed)


def check(at_most: int, seed: int) -> None:
    if at_most == 0:
        correct_what_is_wrong(seed)
    elif not DrawnConversation(seed).alike:
        correct_after_mistakes(seed, at_most)


def hear_the_rest(
    found: CorrectedConversation, drawn: DrawnConversation, first: int, heard: list[str], draw: random.Random
) -> None:
    """Take the other jobs' results in a drawn order; no line that was right gets another person or another voice."""
    right, have = look(found), list(drawn.jobs[:first])
    rest = list(drawn.jobs[first:])
    draw.shuffle(rest)
    lines = [line for line in heard if right[line].number is not None and not right[line].is_by_hand]
    for job in rest:
        have.append(job)
        found.hear(drawn.chunks, tuple(have))
        now = look(found)
        for line in heard:
            assert right[line].person is None or now[line].person in (None, right[line].person)
        assert voices_of(right, lines) == voices_of(now, lines)


def voices_of(seen: dict[str, SeenLine], lines: list[str]) -> set[frozenset[str]]:
    """Return the lines by voice, whatever number it has."""
    numbers = {seen[line].number for line in lines}
    return {frozenset(line for line in lines if seen[line].number == number) for number in numbers}


def correct_what_is_wrong(seed: int) -> None:
    drawn, draw = DrawnConversation(seed), random.Random(seed + 1)
    first = draw.randint(1, len(drawn.jobs))
    with open_conversation(drawn.segments) as found:
        found.hear(drawn.chunks, drawn.jobs[:first])
        heard = drawn.heard(drawn.jobs[:first])
        assert PersonWhoCorrects(found, drawn.truth, heard, draw).correct_all()
        hear_the_rest(found, drawn, first, heard, draw)


def correct_after_mistakes(seed: int, at_most: int) -> None:
    """`at_most`: how many statements an event has."""
    drawn, draw = DrawnConversation(seed), random.Random(seed + 7)
    first = draw.randint(1, len(drawn.jobs))
    with open_conversation(drawn.segments) as found:
        found.hear(drawn.chunks, drawn.jobs[:first])
        heard, writes = drawn.heard(drawn.jobs[:first]), list[int]()
        for _ in range(draw.randint(1, 6)):
            writes += make_a_mistake(found, drawn, heard, writes, draw, at_most)
        assert PersonWhoCorrects(found, drawn.truth, heard, draw).correct_all()
        hear_the_rest(found, drawn, first, heard, draw)


def correct_a_new_transcription(seed: int, *, common: bool = False) -> None:
    """Correct all, have the talk transcribed anew, see that only what is told as void is lost, and correct that."""
    drawn, draw = DrawnConversation(seed), random.Random(seed + 11)
    first = draw.randint(1, len(drawn.jobs))
    before, ways = first_lines(drawn, draw, common=common)
    with open_conversation(before.segments) as found:
        found.hear(drawn.chunks, drawn.jobs[:first])
        assert PersonWhoCorrects(found, drawn.truth, drawn.heard(drawn.jobs[:first]), draw).correct_all()
        new = transcribe_anew(before, draw, ways)
        found.transcribe_anew(new.segments)
        heard = placed(found, drawn.heard(drawn.jobs[:first], new))
        seen, is_told = look(found), any(outcome == "void" for _, outcome, _ in found.outcomes)
        clear = [name for name in heard if new.is_clear(name)]
        assert is_told or all(seen[name].person in (None, f"p-{new.truth[name]}") for name in clear)
        left = [name for name in new.lines if name in new.silent or seen[name].is_of_speech_to_text]
        assert all(seen[name].person in (None, f"p-{new.truth.get(name)}") for name in left)
        assert PersonWhoCorrects(found, new.truth, heard, draw).correct_all()
        hear_the_rest(found, drawn, first, heard, draw)


def first_lines(
    drawn: DrawnConversation, draw: random.Random, *, common: bool
) -> tuple[Transcription, tuple[str, ...]]:
    """Return what is transcribed first, and the ways in which it may be transcribed anew.

    `common`: short lines say the same, and the clock of the transcript may be another later.
    """
    if common:
        return with_common_words(drawn.transcription, draw), MORE_WAYS
    return drawn.transcription, WAYS


def correct_after_mistakes_and_new_transcriptions(seed: int, *, common: bool = False) -> None:
    """Mistakes, ways back, and the talk transcribed anew, in a drawn order; then all is corrected."""
    drawn, draw = DrawnConversation(seed), random.Random(seed + 13)
    first = draw.randint(1, len(drawn.jobs))
    now, ways = first_lines(drawn, draw, common=common)
    with open_conversation(now.segments) as found:
        found.hear(drawn.chunks, drawn.jobs[:first])
        writes = list[int]()
        for _ in range(draw.randint(2, 6)):
            if draw.random() < SHARE_OF_TRANSCRIPTIONS:
                now = transcribe_anew(now, draw, ways)
                found.transcribe_anew(now.segments)
            writes += make_a_mistake(found, drawn, placed(found, drawn.heard(drawn.jobs[:first], now)), writes, draw, 1)
        heard = placed(found, drawn.heard(drawn.jobs[:first], now))
        assert PersonWhoCorrects(found, now.truth, heard, draw).correct_all()
        hear_the_rest(found, drawn, first, heard, draw)


def correct_among_odd_lines(seed: int) -> None:
    """Lines in each other, a clock that drifts, ids and whole transcriptions that come back, a backend that repeats.

    In half of the histories words have times; in a third the backend mends single lines instead.
    """
    drawn, draw = DrawnConversation(seed, overlaps=True), random.Random(seed + 19)
    first = draw.randint(1, len(drawn.jobs))
    now = replace(with_common_words(drawn.transcription, draw), has_words=seed % 2 == 1)
    with open_conversation(now.segments) as found:
        found.hear(drawn.chunks, drawn.jobs[:first])
        writes = list[int]()
        for _ in range(draw.randint(2, 8)):
            chance = draw.random()
            if chance < 0.35:
                now = transcribe_anew(now, draw, ODD_WAYS)
                found.transcribe_anew(now.segments)
            elif chance < 0.45:
                first = min(first + 1, len(drawn.jobs))
                found.hear(drawn.chunks, drawn.jobs[:first])
            elif chance < 0.55 and seed % 3 == 0:
                found.edit_a_line(draw)
            elif chance < 0.55:
                found.send_back()
            elif heard := placed(found, drawn.heard(drawn.jobs[:first], now)):
                writes += make_a_mistake(found, drawn, heard, writes, draw, draw.choice([1, 1, 3]), takes_back=True)
        heard = placed(found, drawn.heard(drawn.jobs[:first], now))
        assert PersonWhoCorrects(found, now.truth, heard, draw).correct_all()
        void, right = told_as_void(found), [name for name in heard if look(found)[name].person is not None]
        new = transcribe_anew(now, draw, ODD_WAYS)
        found.transcribe_anew(new.segments)
        now_void = told_as_void(found) - void
        heard, seen = placed(found, drawn.heard(drawn.jobs[:first], new)), look(found)
        wrong = {
            name: (seen[name], new.truth[name])
            for name in heard
            if new.is_clear(name) and seen[name].person not in (None, f"p-{new.truth[name]}")
            if any(is_part_of(new, name, now, one) for one in right)
        }
        assert now_void or not wrong, f"{wrong}"
        assert PersonWhoCorrects(found, new.truth, heard, draw).correct_all()
        hear_the_rest(found, drawn, first, heard, draw)


def is_part_of(new: Transcription, name: str, old: Transcription, other: str) -> bool:
    """Whether a line is a part of another's speech, or all of it."""
    start_s, end_s = new.heard_at(name)
    other_start_s, other_end_s = old.heard_at(other)
    return new.truth[name] == old.truth[other] and min(end_s, other_end_s) - max(start_s, other_start_s) > 0.5


def told_as_void(found: CorrectedConversation) -> set[tuple[int, int]]:
    """Return the statements that are told to have done nothing, by write and place."""
    return {(write, place) for place, (write, outcome, _) in enumerate(found.outcomes) if outcome == "void"}


def placed(found: CorrectedConversation, heard: list[str]) -> list[str]:
    """Return the lines whose labels say something of voices."""
    seen = look(found)
    return [name for name in heard if not seen[name].is_of_speech_to_text]


def make_a_mistake(
    found: CorrectedConversation,
    drawn: DrawnConversation,
    heard: list[str],
    writes: list[int],
    draw: random.Random,
    at_most: int,
    *,
    takes_back: bool = False,
) -> list[int]:
    """Say something that may be wrong, or take back or bring back what was said; return the new write.

    `takes_back`: some of it at once, and says it again.
    """
    before, chance = look(found), draw.random()
    try:
        if writes and chance < 0.25:
            way, target = draw.choice(["undo", "undo", "redo"]), draw.choice(writes)
            return [getattr(found, way)(target)]
        count = 1 if at_most == 1 or chance < 0.6 else draw.randint(2, at_most)
        said = [draw_mistake(found, drawn.people, heard, draw) for _ in range(count)]
        write = found.correct_at_once(*said)
    except (Refusal, StoreError):
        assert look(found) == before
        return []
    outcomes: list[CorrectionOutcome] = [one for one in found.found.corrections if one.write == write]
    after = look(found)
    if len(said) == 1:
        check_outcome(said[0], outcomes[0].outcome, before, after)
    found.relabel()
    assert look(found) == after, "the same again changes nothing"
    if takes_back and draw.random() < SHARE_TAKEN_BACK:
        found.redo(found.undo(write))
        assert look(found) == after, "what is taken back and done again is as it was"
        found.undo(write)
        assert look(found) == before, "what is taken back was never said"
        found.redo(write)
    return [write]
