"""Choosing a threshold and a margin, on made-up similarities whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mac_agent.threshold import (
    MARGINS,
    NOBODY,
    Choice,
    Rate,
    Trials,
    choose,
    count_errors,
    cross_validate,
    suggest_from,
)
from vps_bridge.people.match import HeardVoice, MatchRules, Print, match_people


def made_up(people: int, *, own: float, others: float, spread: float = 0.03, voices: int = 20, seed: int = 0) -> Trials:
    """Return voices whose similarity to their speaker and to everybody else lies around these."""
    random = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(people), voices)
    similarity = random.normal(others, spread, (len(speaker), people))
    similarity[np.arange(len(speaker)), speaker] = random.normal(own, spread, len(speaker))
    return Trials(speaker, similarity)


def test_errors_are_counted_with_the_speaker_known_and_without():
    trials = Trials(np.array([0, 1, 1, NOBODY]), np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.4], [0.6, 0.1]]))
    found = count_errors(trials, Choice(0.5, 0.2))
    assert found.strangers_named == Rate(2, 4)  # the second, once its speaker is gone, and the fourth
    assert found.wrong_person == Rate(0, 3)
    assert found.false_rejects == Rate(2, 3)
    assert count_errors(trials, Choice(0.5, 0.05)).wrong_person == Rate(1, 3)


def test_the_interval_is_that_of_clopper_and_pearson():
    assert Rate(0, 100).interval == pytest.approx((0.0, 0.0362), abs=1e-4)
    assert Rate(5, 100).interval == pytest.approx((0.0164, 0.1128), abs=1e-4)
    assert Rate(100, 100).interval == pytest.approx((0.9638, 1.0), abs=1e-4)
    assert Rate(0, 0).interval == (0.0, 1.0)


def test_the_threshold_lies_halfway_between_strangers_and_speakers():
    assert choose([made_up(10, own=0.9, others=0.3, spread=0.001)]).threshold == pytest.approx(0.6, abs=0.01)


def test_the_threshold_suits_all_sets_at_once():
    trials = [made_up(10, own=0.85, others=0.3), made_up(10, own=0.8, others=0.5, seed=1)]
    choice = choose(trials)
    assert 0.55 < choice.threshold < 0.7
    assert choice.margin == max(MARGINS), "a margin that costs nobody is taken"
    for errors in cross_validate(trials):
        assert errors.strangers_named.share <= 0.01
        assert errors.false_rejects.share == 0.0
    assert 0.3 < suggest_from(trials) < choice.threshold


def test_where_voices_cannot_be_told_apart_people_are_rejected_and_strangers_not_named():
    trials = [made_up(10, own=0.5, others=0.5)]
    errors = count_errors(trials[0], choose(trials))
    assert errors.strangers_named.share <= 0.01
    assert errors.false_rejects.share > 0.9


def test_a_stranger_more_similar_than_all_others_raises_the_threshold():
    trials = made_up(8, own=0.9, others=0.2)
    alike = np.full((5, 8), 0.2)
    alike[:, 0] = 0.75
    rows = Trials(np.append(trials.speaker, [NOBODY] * 5), np.vstack([trials.similarity, alike]))
    assert choose([trials]).threshold < 0.6
    assert choose([rows]).threshold >= 0.75


def test_a_held_out_speaker_has_no_part_in_the_choice():
    """One pair of people who sound alike is only ever seen by a choice that was made without them."""
    trials = made_up(10, own=0.95, others=0.2, spread=0.01)
    trials.similarity[trials.speaker == 3, 7] = 0.8
    trials.similarity[trials.speaker == 7, 3] = 0.8
    [errors] = cross_validate([trials], folds=10)
    assert errors.strangers_named.count == 40
    assert count_errors(trials, choose([trials])).strangers_named.count == 0


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.1, 0.9),
    st.sampled_from(MARGINS),
)
def test_it_is_the_rule_by_which_the_bridge_matches(rows: list[list[float]], threshold: float, margin: float):
    """The voice is a mix of three people whose prints are the axes: its numbers are the similarities."""
    space, rules = "m@1/4", MatchRules(threshold, margin, min_clean_s=1.0, suggest_from=-1.0)
    prints = [Print(str(axis), space, np.eye(4, dtype=np.float32)[axis], 9.0) for axis in range(3)]
    for row in rows:
        vector = np.array([*row, 0.5])
        vector /= np.linalg.norm(vector)
        near = np.abs(np.append(vector[:3] - threshold, [np.diff(np.sort(vector[:3]))[-1] - margin])).min()
        if near < 1e-6:  # rounding decides there
            continue
        trials = Trials(np.array([0]), vector[None, :3])
        found = match_people([HeardVoice(0, space, vector.astype(np.float32), 9.0)], prints, calibrated={space: rules})
        named = [each.person_id for each in found if each.identity == "matched"]
        errors = count_errors(trials, Choice(threshold, margin))
        assert (named == []) == (errors.false_rejects.count == 1)
        assert (named not in ([], ["0"])) == (errors.wrong_person.count == 1)
