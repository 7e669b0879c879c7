"""When what was not taken is tried again: an hour of a receiver that is down, by a clock moved by hand."""

from collections.abc import Set as AbstractSet
from functools import partial

import pytest

from tests.hand_clock import HandClock
from vps_bridge.webhook.rests import WebhookRests

MIN_S, MAX_S = 15.0, 300.0
HOUR_S = 3_600


def test_one_conversation_that_fails_rests_alone() -> None:
    rests = WebhookRests(MIN_S, MAX_S)
    for now_s in (0.0, 15.0, 45.0):
        rests.note_failed("poison", now_s)
        assert rests.resting(now_s) == {"poison"}
        assert not rests.is_down(now_s)
    rests.note_delivered("other")
    assert rests.resting(104.0) == {"poison"}, "60 s after the third"
    assert rests.resting(105.0) == set()


def test_a_receiver_that_is_down_for_an_hour_is_asked_rarely_and_told_all_at_once_when_it_is_back() -> None:
    rests, clock, tried = WebhookRests(MIN_S, MAX_S), HandClock(0.0), 0
    names = [f"c{number}" for number in range(1_000)]
    for clock.now_s in range(HOUR_S):
        while not rests.is_down(clock.now_s):
            resting = rests.resting(clock.now_s)
            name = next(name for name in names if name not in resting)
            rests.note_failed(name, clock.now_s)
            tried += 1
    assert tried <= 20
    rests.note_delivered("c0")
    assert rests.resting(HOUR_S) == set()
    assert not rests.is_down(HOUR_S)


def test_pauses_begin_again_after_a_delivery() -> None:
    rests = WebhookRests(MIN_S, MAX_S)
    for now_s in (0.0, 15.0, 45.0):
        rests.note_failed("c", now_s)
    rests.note_delivered("c")
    rests.note_failed("c", 200.0)
    assert rests.resting(214.0) == {"c"}
    assert rests.resting(215.0) == set()


def find_among(due: list[str], but: AbstractSet[str], is_newest: bool) -> str | None:
    return next((name for name in (reversed(due) if is_newest else due) if name not in but), None)


def send_for_hours(
    waiting: dict[str, int], poison: set[str], *, hours: int = 1, down_s: int = 0, refusal_s: int = 0
) -> dict[str, int]:
    """Send what waits since so many seconds, as the sender does, to a receiver that comes after `down_s`.

    Each refusal takes so long. Return when each was taken.
    """
    rests, taken, now_s = WebhookRests(MIN_S, MAX_S), dict[str, int](), 0
    while now_s < hours * HOUR_S:
        due = [name for name, since_s in waiting.items() if since_s <= now_s and name not in taken]
        name = None if rests.is_down(now_s) else rests.choose(now_s, partial(find_among, due))
        if name is None:
            now_s += 1
            continue
        if now_s < down_s or name in poison:
            now_s += refusal_s
            rests.note_failed(name, now_s)
        else:
            rests.note_delivered(name)
            taken[name] = now_s
    return taken


@pytest.mark.parametrize("number", [3, 40])
def test_conversations_that_are_never_taken_hold_up_the_others_for_one_pause_and_no_more(number: int) -> None:
    poison, others = [f"p{place}" for place in range(number)], [f"c{place}" for place in range(100)]
    taken = send_for_hours(dict.fromkeys([*poison, *others], 0), set(poison))
    assert taken.keys() == set(others)
    assert max(taken.values()) <= 3 * MIN_S


@pytest.mark.parametrize("waiting", [["p", "c1", "c2"], ["c1", "c2", "p"], ["p1", "p2", "c1", "p3", "p4"]])
def test_after_an_hour_away_one_that_is_never_taken_is_not_the_only_one_that_is_tried(waiting: list[str]) -> None:
    poison = {name for name in waiting if name.startswith("p")}
    taken = send_for_hours(dict.fromkeys(waiting, 0), poison, hours=3, down_s=HOUR_S)
    assert taken.keys() == set(waiting) - poison
    assert max(taken.values()) <= HOUR_S + len(waiting) * MAX_S


def test_many_that_the_receiver_is_slow_to_refuse_do_not_take_all_its_time() -> None:
    poison = {f"p{place}": 0 for place in range(60)}
    others = {f"c{place}": 60 * place for place in range(170)}
    taken = send_for_hours(poison | others, set(poison), hours=3, refusal_s=10)
    waited = {name: taken[name] - since_s for name, since_s in others.items()}
    assert max(waited.values()) <= MAX_S + 20
    assert max(waited[f"c{place}"] for place in range(60, 170)) <= 20, "once those that fail are known"


def test_who_never_failed_before_tells_that_the_receiver_is_down() -> None:
    rests = WebhookRests(MIN_S, MAX_S)
    for name in ("p1", "p2"):
        rests.note_failed(name, 0.0)
    rests.note_delivered("c")
    for name in ("p1", "p2", "another"):
        rests.note_failed(name, 20.0)
    assert not rests.is_down(20.0)
    rests.note_failed("and-another", 20.0)
    assert rests.is_down(20.0)
