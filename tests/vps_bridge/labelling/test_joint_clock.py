"""Stretches whose captured_at is an estimate are placed together: alone they are too short."""

import random
from collections.abc import Sequence

import pytest

from vps_bridge.labelling.align import AlignmentRules, Stretch, StretchClock, find_clock
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.joint_clock import find_joint_clocks

LENGTH_S, GAP_S, COUNT = 18.0, 5.0, 6
STARTED_AT = 1_000_000.0
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
