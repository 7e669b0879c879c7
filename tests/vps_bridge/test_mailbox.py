"""The mailbox: bounded by messages and by bytes, and how far in time it has been read."""

import threading

from broker.session import Incoming
from vps_bridge.mailbox import Mailbox


def message(size):
    return Incoming(topic="t", payload=bytes(size), retain=False, qos=1, content_type=None)


def test_a_mailbox_is_bounded_by_bytes_and_still_takes_small_messages():
    mailbox = Mailbox(max_messages=10, max_bytes=1_000_000)
    for size in (900_000, 200_000, 100, 300_000):
        mailbox.put(message(size))
    assert mailbox.dropped == 2
    assert [mailbox.take(0.1) for _ in range(2)] == [message(900_000), message(100)]
    assert mailbox.take(0.01) is None
    mailbox.put(message(5_000_000))
    assert mailbox.take(0.1) == message(5_000_000), "one of any size finds an empty box"


def test_silence_is_judged_at_the_moment_up_to_which_the_mail_is_read():
    now_s = 1.0
    mailbox = Mailbox(clock=lambda: now_s)
    mailbox.put(message(1))
    now_s = 20.0
    mailbox.put(message(2))
    now_s = 60.0
    assert mailbox.read_until_s() == 1.0
    mailbox.take(0.1)
    assert (mailbox.taken_s, mailbox.read_until_s()) == (1.0, 20.0)
    mailbox.take(0.1)
    assert (mailbox.taken_s, mailbox.read_until_s()) == (20.0, 60.0)


def test_a_mailbox_is_bounded_by_messages_and_wakes_who_waits():
    mailbox = Mailbox(max_messages=2)
    for _ in range(3):
        mailbox.put(message(1))
    assert mailbox.dropped == 1
    assert mailbox.take(0)
    assert mailbox.take(0)
    threading.Timer(0.05, mailbox.put, [message(7)]).start()
    assert mailbox.take(10.0) == message(7)
