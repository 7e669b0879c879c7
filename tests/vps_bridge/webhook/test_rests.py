"""When what was not taken is tried again: an hour of a receiver that is down, by a clock moved by hand."""

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


def test_conversations_that_are_never_taken_hold_up_the_others_for_one_pause_and_no_more() -> None:
    rests, poison, sent_at_s = WebhookRests(MIN_S, MAX_S), ["p1", "p2", "p3"], list[int]()
    waiting = [*poison, *(f"c{number}" for number in range(100))]
    for now_s in range(HOUR_S):
        while not rests.is_down(now_s):
            resting = rests.resting(now_s)
            fresh = (name for name in waiting if name not in resting | rests.failed)
            name = next(fresh, next((name for name in waiting if name not in resting), None))
            if name is None:
                break
            if name in poison:
                rests.note_failed(name, now_s)
            else:
                rests.note_delivered(name)
                waiting.remove(name)
                sent_at_s.append(now_s)
    assert waiting == poison
    assert sent_at_s[-1] <= 3 * MIN_S
    assert not rests.is_down(HOUR_S)
    rests.note_failed("another", HOUR_S)
    rests.note_failed("and-another", HOUR_S)
    assert rests.is_down(HOUR_S), "who never failed before tells that the receiver is down"
