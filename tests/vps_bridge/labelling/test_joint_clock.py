"""Stretches that are too short to find their place alone are placed together, as far apart as captured_at says."""

import random
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import pytest

from vps_bridge.labelling.align import AlignmentRules, Stretch, StretchClock, confirm_clock, find_clock
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.joint_clock import FindClock, find_joint_clocks, find_lost_clocks

LENGTH_S, GAP_S, COUNT = 18.0, 5.0, 6
STARTED_AT = 1_000_000.0
BEGINS = [(place, place * (LENGTH_S + GAP_S)) for place in range(COUNT)]
LATE_S = 2.4
"""All of the audio is said to be so much later than it was."""


def talk(seed: int) -> list[Span]:
    """Speech within every stretch, in seconds of the transcript."""
    draw, spans = random.Random(seed), []
    for place in range(COUNT):
        at_s, end_s = place * (LENGTH_S + GAP_S) + draw.uniform(0.2, 1.5), place * (LENGTH_S + GAP_S) + LENGTH_S
        while at_s < end_s - 1:
            spans.append((at_s, min(end_s, at_s + draw.uniform(0.5, 4.0))))
            at_s = spans[-1][1] + draw.uniform(0.2, 1.5)
    return spans


def stretches(error_s: float) -> list[Stretch]:
    starts_s = [place * (LENGTH_S + GAP_S) + LATE_S for place in range(COUNT)]
    return [
        Stretch(place, LENGTH_S, start_s, is_timed=True, captured_s=STARTED_AT + start_s, error_s=error_s)
        for place, start_s in enumerate(starts_s)
    ]


def find(said: list[Span], written: list[Span], error_s: float) -> dict[int, StretchClock]:
    def begin_s(place: int) -> float:
        return place * (LENGTH_S + GAP_S)

    speech = {
        place: [(a - begin_s(place), b - begin_s(place)) for a, b in said if begin_s(place) <= a < begin_s(place + 1)]
        for place in range(COUNT)
    }
    heard = {place: [(0.0, LENGTH_S)] for place in range(COUNT)}

    def find_one(stretch: Stretch, spoken: Sequence[Span], audible: Sequence[Span]) -> StretchClock:
        return find_clock(stretch, spoken, audible, written, AlignmentRules())

    return find_joint_clocks(stretches(error_s), speech, heard, find_one)


@pytest.mark.parametrize("seed", range(3))
def test_short_stretches_find_their_place_together(seed: int) -> None:
    clocks = find(talk(seed), talk(seed), error_s=3.0)
    assert sorted(clocks) == list(range(COUNT))
    for place, clock in clocks.items():
        assert clock.offset_s == pytest.approx(place * (LENGTH_S + GAP_S), abs=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_speech_without_a_pause_at_either_end_has_the_place_of_the_rest(seed: int) -> None:
    def without_pauses(span: Span) -> bool:
        return span[0] < LENGTH_S or span[0] >= last_s

    last_s = (COUNT - 1) * (LENGTH_S + GAP_S)
    ends = [(0.3, LENGTH_S - 0.5), (last_s + 0.3, last_s + LENGTH_S - 0.5)]
    said = sorted([*ends, *(span for span in talk(seed) if not without_pauses(span))])
    blurred = [(start_s + 0.1, end_s - 0.2) for start_s, end_s in said]
    clocks = find(blurred, said, error_s=3.0)
    for place in (0, COUNT - 1):
        (moved,) = clocks[place].move(0.4, LENGTH_S - 0.7)
        assert moved[0] == pytest.approx(place * (LENGTH_S + GAP_S) + 0.4, abs=0.3)
        assert moved[1] - moved[0] == pytest.approx(LENGTH_S - 1.1, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_other_words_give_no_stretch_a_place(seed: int) -> None:
    clocks = find(talk(seed), talk(seed + 100), error_s=3.0)
    assert [clock.pieces for clock in clocks.values()] == [()] * COUNT
    assert {clock.reason for clock in clocks.values()} == {"clock.unverified"}


def test_times_that_are_known_are_left_to_themselves() -> None:
    assert find(talk(1), talk(1), error_s=0.0) == {}


@pytest.mark.parametrize("away_s", [200_000.0, STARTED_AT])
def test_one_of_a_clock_that_was_not_set_takes_no_place_from_the_others_and_no_memory(away_s: float) -> None:
    """All seconds up to it would be looked at: of 1970 more than any memory holds."""
    spans = talk(1)
    early = replace(stretches(3.0)[0], index=COUNT, captured_s=STARTED_AT - away_s, prior_s=None, is_timed=False)
    speech = {
        place: [(a - begin, b - begin) for a, b in spans if begin <= a < begin + LENGTH_S] for place, begin in BEGINS
    }
    heard = {place: [(0.0, LENGTH_S)] for place in range(COUNT + 1)}
    tracemalloc.start()
    clocks = find_joint_clocks([early, *stretches(3.0)], {**speech, COUNT: [(1.0, 3.0)]}, heard, finder(spans))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clocks[COUNT].pieces == ()
    for place, begin_s in BEGINS:
        assert clocks[place].offset_s == pytest.approx(begin_s, abs=0.2)
    assert peak < 50_000_000


Bursts = tuple[list[Stretch], dict[int, list[Span]], dict[int, list[Span]], list[Span]]


def bursts(seed: int, late_s: float = 0.0) -> Bursts:
    """A line in each stretch, with less than half a second around it; all of them captured so much later than said."""
    draw, at_s = random.Random(seed), 0.0
    found: Bursts = ([], {}, {}, [])
    for place in range(12):
        line_s, margin_s = draw.uniform(3.0, 9.0), draw.uniform(0.0, 0.5)
        begin_s, length_s = at_s - margin_s, line_s + 2 * margin_s
        stretch = Stretch(place, length_s, begin_s + late_s, is_timed=True, captured_s=STARTED_AT + begin_s)
        spoken = (margin_s + draw.uniform(0.0, 0.2), margin_s + line_s - draw.uniform(0.0, 0.3))
        found[0].append(stretch)
        found[1][place], found[2][place] = [spoken], [(0.0, length_s)]
        found[3].append((at_s, at_s + line_s))
        at_s += line_s + draw.uniform(2.2, 12.0)
    return found


def finder(written: list[Span]) -> FindClock:
    def find_one(stretch: Stretch, spoken: Sequence[Span], audible: Sequence[Span]) -> StretchClock:
        return find_clock(stretch, spoken, audible, written, AlignmentRules())

    return find_one


def find_lost(lost: Sequence[Stretch], found: Bursts, written: list[Span]) -> dict[int, StretchClock]:
    def confirm(stretch: Stretch, spoken: Sequence[Span], audible: Sequence[Span]) -> StretchClock:
        return confirm_clock(stretch, spoken, audible, written, AlignmentRules())

    return find_lost_clocks(lost, found[1], found[2], finder(written), confirm)


@pytest.mark.parametrize("seed", range(5))
def test_lines_between_silences_that_were_not_sent_are_placed_together_where_each_alone_is_lost(seed: int) -> None:
    drawn = bursts(seed)
    lines, speech, heard, written = drawn
    alone = finder(written)
    lost = [line for line in lines if not alone(line, speech[line.index], heard[line.index]).pieces]
    assert len(lost) > len(lines) / 2
    clocks = find_lost(lost, drawn, written)
    assert len(clocks) > len(lost) / 2
    for index, clock in clocks.items():
        assert clock.offset_s == pytest.approx(lines[index].prior_s, abs=0.3)


@pytest.mark.parametrize("late_s", [1.0, 2.0, 5.0, 21.0, 60.0])
@pytest.mark.parametrize("seed", range(3))
def test_lost_lines_take_no_wrong_place_from_wrong_times_or_other_words(seed: int, late_s: float) -> None:
    drawn = bursts(seed, late_s)
    for index, clock in find_lost(drawn[0], drawn, drawn[3]).items():
        assert clock.offset_s == pytest.approx((drawn[0][index].prior_s or 0.0) - late_s, abs=0.5), "of the speech"
    assert find_lost(drawn[0], drawn, bursts(seed + 100)[3]) == {}


@pytest.mark.parametrize("off_s", [-2.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_line_whose_own_time_is_wrong_is_not_placed_by_the_others(seed: int, off_s: float) -> None:
    drawn = bursts(seed)
    lines = [
        replace(line, captured_s=(line.captured_s or 0.0) + off_s, prior_s=(line.prior_s or 0.0) + off_s)
        if line.index == 5
        else line
        for line in drawn[0]
    ]
    clocks = find_lost(lines, drawn, drawn[3])
    assert clocks
    assert 5 not in clocks


def test_one_line_alone_and_those_of_estimated_times_are_left_as_they_are() -> None:
    drawn = bursts(1)
    assert find_lost(drawn[0][:1], drawn, drawn[3]) == {}
    assert find_lost([replace(line, error_s=1.0) for line in drawn[0]], drawn, drawn[3]) == {}
