"""The mailbox: a turn for each sender, bounds for each and for all, and how far in time it has been read."""

import threading

import pytest

from broker.session import Incoming
from vps_bridge.mailbox import MAX_REQUESTS, BridgeBusy, Mailbox, Quota

LARGE = Quota("g", 10, 1_000_000, 10, 1_000_000)
SMALL = Quota("g", 2, 1_000_000, 3, 1_000_000)


def message(size, topic="t"):
    return Incoming(topic=topic, payload=bytes(size), retain=False, qos=1, content_type=None)


def take_all(mailbox):
    items = []
    while (item := mailbox.take(0)) is not None:
        items.append(item)
    return items


def test_a_mailbox_is_bounded_by_bytes_and_still_takes_small_messages():
    mailbox = Mailbox()
    taken = [
        mailbox.put(message(size), sender, LARGE)
        for sender, size in (("a", 900_000), ("b", 200_000), ("a", 100), ("b", 300_000), ("b", 100))
    ]
    assert taken == [True, False, True, False, True]
    assert len(take_all(mailbox)) == 3
    assert mailbox.put(message(5_000_000), "a", LARGE), "one of any size finds an empty box"
    assert take_all(mailbox) == [message(5_000_000)]


def test_who_sends_much_waits_for_himself():
    mailbox = Mailbox()
    for _ in range(5):
        mailbox.put(message(1, "flood"), "flood", LARGE)
    mailbox.put(message(1, "honest"), "honest", LARGE)
    mailbox.put(message(1, "other"), "other", LARGE)
    mailbox.put(message(1, "agent"), "agent", Quota("agents", 10, 100, 10, 100))
    answered = mailbox.ask(lambda: 7)
    order = [getattr(item, "topic", "http") for item in take_all(mailbox)]
    assert order == ["flood", "agent", "http", "honest", "other", "flood", "flood", "flood", "flood"]
    assert not answered.done()


def test_messages_of_one_sender_stay_in_order():
    mailbox = Mailbox()
    for number in range(6):
        mailbox.put(message(number), "ab"[number % 2], LARGE)
    sizes = [len(item.payload) for item in take_all(mailbox)]
    assert sizes == [0, 1, 2, 3, 4, 5]


def test_one_sender_and_one_group_leave_room_for_others():
    mailbox = Mailbox()
    assert [mailbox.put(message(1), "a", SMALL) for _ in range(3)] == [True, True, False]
    assert [mailbox.put(message(1), name, SMALL) for name in "bc"] == [True, False]
    assert mailbox.put(message(1), "a", Quota("other", 1, 10, 1, 10))
    for _ in range(MAX_REQUESTS):
        mailbox.ask(lambda: None)
    with pytest.raises(BridgeBusy):
        mailbox.ask(lambda: None)


def test_silence_is_judged_at_the_moment_up_to_which_the_mail_is_read():
    now_s = 1.0
    mailbox = Mailbox(clock=lambda: now_s)
    mailbox.put(message(1), "a", LARGE)
    now_s = 20.0
    mailbox.put(message(2), "b", LARGE)
    now_s = 60.0
    assert mailbox.read_until_s() == 1.0
    mailbox.take(0.1)
    assert (mailbox.taken_s, mailbox.read_until_s()) == (1.0, 20.0)
    mailbox.take(0.1)
    assert (mailbox.taken_s, mailbox.read_until_s()) == (20.0, 60.0)


def test_a_message_wakes_who_waits():
    mailbox = Mailbox()
    threading.Timer(0.05, mailbox.put, [message(7), "a", LARGE]).start()
    assert mailbox.take(10.0) == message(7)
