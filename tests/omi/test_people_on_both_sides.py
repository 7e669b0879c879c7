"""Whatever people say in OMI and here, in whatever order: OMI ends with what was said last, and it stays so."""

from __future__ import annotations

import random
import time
from unittest.mock import patch

import pytest

from schemas.people import PersonEventType
from tests.hand_clock import HandClock
from tests.omi.labelled_talk import open_talk
from tests.omi.people_on_both_sides import BothSides, WatchedOmi
from tests.omi.simulated_omi import OmiLine
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from vps_bridge.omi.api import OWNER

FEW, MANY = range(15), range(1_000)


@pytest.mark.parametrize("seeds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_omi_has_in_the_end_what_was_said_last(seeds: range) -> None:
    for seed in seeds:
        go_through(seed)


def go_through(seed: int) -> None:
    drawn, draw, clock = DrawnConversation(seed), random.Random(seed + 17), HandClock(1_800_000_000.0)
    texts = {one.id: one for one in drawn.segments}
    lines = {f"l-{one}": OmiLine(f"l-{one}", line.start_s, line.end_s, line.text) for one, line in texts.items()}
    people = {f"o-{one}": one for one in drawn.people if draw.random() < 0.7}
    omi = WatchedOmi(lines, people, draw, clock=clock)
    with patch.object(time, "time", clock), open_talk(omi, drawn) as talk:
        both = BothSides(talk, omi, drawn, draw, clock, names_source=draw.random() < 0.6)
        for one in drawn.people:
            if draw.random() < 0.8:
                talk.know(f"p-{one}", PersonEventType.NAMED, name=one)
        both.report_again()
        for _ in range(draw.randint(0, len(drawn.jobs))):
            both.hear()
        for _ in range(draw.randint(3, 30)):
            both.step()
        check(both)


def check(both: BothSides) -> None:
    both.settle()
    has = {one: line.person for one, line in both.omi.lines.items()}
    wanted, words = both.wanted(), both.words
    log = "\n".join(both.log)
    wrong = {
        one: (person, words.get(one, "nobody said"), wanted.get(one))
        for one, person in has.items()
        if one not in both.unsure
        and not (one in both.left_there and one not in words and wanted.get(one) is None)
        and person != (words[one] if one in words else wanted.get(one))
    }
    assert not wrong, f"{wrong}\n{log}"
    labels = {label.id: label.person_id for label in both.talk.found.segments}
    there = {one: words[one] for one in both.reported - both.unsure if words.get(one) not in (None, OWNER)}
    heard = {one: said for one, said in (there | both.by_hand).items() if one in labels}
    here = {one: (labels[one], said) for one, said in heard.items() if labels[one] != said}
    assert not here, f"here: {here}\n{log}"
    before = (has, both.talk.persons)
    both.report_again()
    assert both.talk.send()
    assert ({one: line.person for one, line in both.omi.lines.items()}, both.talk.persons) == before, log
