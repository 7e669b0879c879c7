"""Who a voice is: what a match needs, what is only suggested and why, and what must hold whatever comes in."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vps_bridge.people.match import HeardVoice, Match, MatchRules, Print, is_odd_print, match_people, rules_for
from vps_bridge.people.telephone import BEYOND_TELEPHONE, similarity_by_telephone

SPACE = "3d-speaker/campplus@92f29b94e694/4"
OTHER_SPACE = "resemblyzer/ge2e@39373b86598f/4"
UNKNOWN_SPACE = "somebody/new@1/4"
RULES = {SPACE: MatchRules(threshold=0.6, margin=0.1, min_clean_s=5.0, suggest_from=0.4)}


def at(cosine: float, axis: int = 1) -> np.ndarray:
    """Return a vector of 4 numbers whose cosine to the first axis is this."""
    vector = np.zeros(4, dtype=np.float32)
    vector[0], vector[axis] = cosine, np.sqrt(1 - cosine**2)
    return 7 * vector


def known(person_id: str, vector: np.ndarray, clean_s: float = 30.0, space: str = SPACE) -> Print:
    return Print(person_id, space, vector, clean_s)


def heard(voice: int, vector: np.ndarray, clean_s: float = 30.0, space: str = SPACE) -> HeardVoice:
    return HeardVoice(voice, space, vector, clean_s)


def match(voices: list[HeardVoice], prints: list[Print]) -> tuple[Match, ...]:
    return match_people(voices, prints, calibrated=RULES)


def test_a_voice_like_a_person_and_like_nobody_else_is_that_person():
    [found] = match([heard(3, at(0.8))], [known("anna", at(1.0)), known("ben", at(0.0, axis=2))])
    assert (found.voice, found.person_id, found.identity, found.reason) == (3, "anna", "matched", None)
    assert found.similarity == pytest.approx(0.8)
    assert found.needed == 0.6
    assert found.runner_up == "ben"
    assert found.runner_up_similarity == pytest.approx(0.0, abs=1e-6)


def test_the_only_person_has_no_runner_up():
    [found] = match([heard(0, at(0.8))], [known("anna", at(1.0))])
    assert (found.identity, found.runner_up, found.runner_up_similarity) == ("matched", None, None)


@pytest.mark.parametrize(
    ("voice", "prints", "reason"),
    [
        (heard(0, at(0.55)), [known("anna", at(1.0))], "below_threshold"),
        (heard(0, at(0.9)), [known("anna", at(1.0)), known("ben", at(0.92))], "margin"),
        (heard(0, at(0.8), clean_s=4.0), [known("anna", at(1.0))], "little_speech"),
        (heard(0, at(0.8)), [known("anna", at(1.0), clean_s=4.0)], "little_speech"),
    ],
)
def test_what_falls_short_is_a_suggestion_that_says_why(voice, prints, reason):
    [found] = match([voice], prints)
    assert (found.identity, found.reason) == ("suggested", reason)


def test_a_stranger_is_nobody():
    assert match([heard(0, at(0.3))], [known("anna", at(1.0))]) == ()


def test_several_short_prints_of_a_person_count_together():
    [found] = match([heard(0, at(0.8))], [known("anna", at(1.0), clean_s=3.0), known("anna", at(0.99), clean_s=3.0)])
    assert found.identity == "matched"


def test_a_second_voice_like_one_person_gets_the_next_one_as_a_suggestion_or_nobody():
    anna, ben = known("anna", at(1.0)), known("ben", at(0.5, axis=2))
    one, two = heard(0, at(0.95)), heard(1, at(0.9, axis=2))
    assert [(found.person_id, found.identity) for found in match([one, two], [anna])] == [("anna", "matched")]
    first, second = match([one, two], [anna, ben])
    assert (first.person_id, first.identity) == ("anna", "matched")
    assert (second.person_id, second.identity, second.reason) == ("ben", "suggested", "not_mutual")
    assert second.runner_up == "anna"


def test_a_voice_of_a_second_of_speech_takes_no_name_from_one_of_a_minute():
    [found] = match([heard(0, at(0.99), clean_s=1.0), heard(1, at(0.8), clean_s=60.0)], [known("anna", at(1.0))])
    assert (found.voice, found.identity) == (1, "matched")


def test_models_are_never_compared():
    assert match([heard(0, at(1.0), space=OTHER_SPACE)], [known("anna", at(1.0))]) == ()
    assert match([heard(0, at(1.0)[:3])], [known("anna", at(1.0))]) == ()


def test_a_voice_that_was_heard_by_two_models_is_one_person():
    voices = [heard(0, at(0.99), space=OTHER_SPACE), heard(0, at(0.7))]
    prints = [known("anna", at(1.0), space=OTHER_SPACE), known("ben", at(1.0)), known("anna", at(0.5))]
    [found] = match(voices, prints)
    assert found.voice == 0


def test_a_model_that_nobody_calibrated_gives_suggestions_only():
    assert rules_for(UNKNOWN_SPACE) is None
    [found] = match([heard(0, at(1.0), space=UNKNOWN_SPACE)], [known("anna", at(1.0), space=UNKNOWN_SPACE)])
    assert (found.identity, found.reason) == ("suggested", "not_calibrated")


def test_own_rules_go_before_the_shipped_ones():
    own = MatchRules(threshold=0.99, margin=0.0, min_clean_s=0.0, suggest_from=0.98)
    assert rules_for(SPACE) is not None
    assert rules_for(SPACE, {SPACE: own}) is own
    assert rules_for(SPACE, {"campplus": own}) is own
    assert rules_for(SPACE, {"wespeaker": own}) == rules_for(SPACE)
    assert match_people([heard(0, at(0.9))], [known("anna", at(1.0))], calibrated={"campplus": own}) == ()


@pytest.mark.parametrize("bad", [np.zeros(4), np.full(4, np.nan), np.array([1, np.inf, 0, 0]), np.array([])])
def test_vectors_that_say_nothing_are_left_out(bad):
    bad = bad.astype(np.float32)
    assert match([heard(0, bad)], [known("anna", at(1.0))]) == ()
    assert match([heard(0, at(1.0))], [known("anna", bad)]) == ()
    [found] = match([heard(0, at(0.9)), heard(0, bad)], [known("anna", at(1.0)), known("anna", bad)])
    assert found.similarity == pytest.approx(0.9)
    assert is_odd_print(known("anna", bad), [known("anna", at(1.0))]) is None


def test_prints_that_cancel_out_are_nobodys():
    assert match([heard(0, at(1.0))], [known("anna", at(1.0)), known("anna", -at(1.0))]) == ()


def test_an_odd_print_says_how_similar_it_is():
    prints = [known("anna", at(1.0)), known("ben", at(0.1))]
    odd = is_odd_print(known("anna", at(0.1)), prints, calibrated=RULES)
    assert odd == pytest.approx(0.1)
    assert is_odd_print(known("anna", at(0.8)), prints, calibrated=RULES) is None
    assert is_odd_print(known("cleo", at(0.1)), prints, calibrated=RULES) is None
    assert is_odd_print(known("anna", at(0.1), space=OTHER_SPACE), prints, calibrated=RULES) is None


numbers = st.floats(-1.0, 1.0, width=32) | st.sampled_from([0.0, float("nan"), float("inf"), 3e38, 1e-40])
vectors = st.lists(numbers, min_size=4, max_size=4).map(lambda row: np.array(row, dtype=np.float32))
close = st.tuples(st.floats(0.5, 1.0), st.integers(1, 3)).map(lambda pair: at(*pair))
spaces = st.sampled_from([SPACE, OTHER_SPACE, UNKNOWN_SPACE])
seconds = st.floats(0.0, 100.0)
all_voices = st.lists(st.builds(HeardVoice, st.integers(0, 4), spaces, vectors | close, seconds), max_size=6)
all_prints = st.lists(st.builds(Print, st.sampled_from("abcd"), spaces, vectors | close, seconds), max_size=8)


@given(all_voices, all_prints, st.randoms(use_true_random=False))
def test_whatever_comes_in_no_name_is_given_twice_and_the_order_does_not_matter(
    voices: list[HeardVoice], prints: list[Print], draw: random.Random
):
    found = match(voices, prints)
    assert len({each.voice for each in found}) == len({each.person_id for each in found}) == len(found)
    assert found == match(draw.sample(voices, len(voices)), draw.sample(prints, len(prints)))
    for each in found:
        assert (each.identity == "matched") == (each.reason is None)
        assert -1.0 <= each.similarity <= 1.0
        if each.identity == "matched":
            assert each.similarity >= each.needed
            assert each.runner_up != each.person_id


def test_what_the_telephone_alone_makes_similar_is_no_match():
    """Two strangers by telephone: most of both is the telephone. The same similarity of two voices in a room is one."""
    space = "3d-speaker/campplus@92f29b94e694/192"
    rules = rules_for(space)
    assert rules is not None
    axes = np.eye(192)
    explained = similarity_by_telephone(space, axes, axes)
    assert explained is not None
    telephone = explained[:, 0] / np.sqrt(explained[0, 0])
    assert np.linalg.norm(telephone) == pytest.approx(1.0)
    one, two, three = (np.eye(192)[axis] - telephone[axis] * telephone for axis in range(3))
    anna, stranger = 0.75 * telephone + 0.66 * one, 0.75 * telephone + 0.66 * two
    [found] = match_people([heard(0, stranger, space=space)], [known("anna", anna, space=space)])
    assert (found.identity, found.reason) == ("suggested", "below_threshold")
    assert found.similarity > rules.threshold
    assert found.needed == pytest.approx(found.similarity + BEYOND_TELEPHONE, abs=0.02)
    [again] = match_people([heard(0, anna + 0.2 * three, space=space)], [known("anna", anna, space=space)])
    assert again.identity == "matched"
    [found] = match_people([heard(0, 0.56 * one + 0.83 * two, space=space)], [known("anna", one, space=space)])
    assert (found.identity, found.needed) == ("matched", rules.threshold)


def test_of_other_models_nothing_is_known_about_the_telephone():
    assert similarity_by_telephone(OTHER_SPACE, np.eye(4), np.eye(4)) is None
    low = {OTHER_SPACE: MatchRules(threshold=0.1, margin=0.0, min_clean_s=0.0, suggest_from=0.0)}
    [found] = match_people(
        [heard(0, at(0.2), space=OTHER_SPACE)], [known("anna", at(1.0), space=OTHER_SPACE)], calibrated=low
    )
    assert (found.identity, found.needed) == ("matched", 0.1)
    by_name = rules_for("3d-speaker/campplus@another/192")
    exact = rules_for("3d-speaker/campplus@92f29b94e694/192")
    assert by_name is not None
    assert exact is not None
    assert by_name.threshold > exact.threshold, "without it, strangers by telephone ask for a higher one"
