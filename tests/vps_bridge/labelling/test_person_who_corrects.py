"""Whoever corrects what is wrong comes to an end, and it stays right when more audio is heard, after mistakes too.

Two voices that sound more alike than linking can tell are left out where people make mistakes: there a split frees
lines for the voice that they sound like.
"""

from __future__ import annotations

import random

import pytest

from schemas.corrections import CorrectionOutcome
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from tests.vps_bridge.labelling.person_who_corrects import (
    PersonWhoCorrects,
    SeenLine,
    check_outcome,
    draw_mistake,
    look,
)
from vps_bridge.conversations.store import StoreError
from vps_bridge.errors import Refusal

FEW, MANY = range(20), range(1_000)


def test_whoever_says_what_is_true_comes_to_an_end_and_it_stays_so() -> None:
    for seed in FEW:
        correct_what_is_wrong(seed)


@pytest.mark.slow
def test_many_who_say_what_is_true_come_to_an_end() -> None:
    for seed in MANY:
        correct_what_is_wrong(seed)


@pytest.mark.parametrize("at_most", [1, 3], ids=["one by one", "several in an event"])
def test_mistakes_can_be_put_right_and_do_what_they_are_told_to_have_done(at_most: int) -> None:
    for seed in FEW:
        correct_after_mistakes(seed, at_most)


@pytest.mark.slow
@pytest.mark.parametrize("at_most", [1, 3], ids=["one by one", "several in an event"])
def test_many_mistakes_can_be_put_right(at_most: int) -> None:
    for seed in MANY:
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


def make_a_mistake(
    found: CorrectedConversation,
    drawn: DrawnConversation,
    heard: list[str],
    writes: list[int],
    draw: random.Random,
    at_most: int,
) -> list[int]:
    """Say something that may be wrong, or take back or bring back what was said; return the new write."""
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
    return [write]
