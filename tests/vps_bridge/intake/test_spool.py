"""Audio on disk: private, whole, and nothing that nobody answers for."""

import hashlib
import itertools
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.session import Incoming
from schemas.failure import FailureCode
from tests.vps_bridge.live_bridge import part_payload
from vps_bridge.errors import Refusal
from vps_bridge.intake.parts import MAX_PARTIALS, PARTIAL_LIFE_S, PartialChunks
from vps_bridge.intake.spool import Spool
from vps_bridge.mailbox import Mailbox

AUDIO = bytes(range(256)) * 40


def test_a_chunk_is_private_and_read_back_in_ranges(tmp_path):
    spool = Spool(tmp_path / "spool")
    name = spool.write(AUDIO)
    assert stat.S_IMODE(spool.path(name).stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    assert spool.read(name, 100, 300) == AUDIO[100:300]
    assert spool.read(name, 10_000, 99_999) == AUDIO[10_000:]
    spool.remove(name)
    spool.remove(name)
    assert list(spool.directory.iterdir()) == []


def test_a_chunk_that_cannot_be_made_durable_leaves_no_file(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "spool")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        spool.write(AUDIO)
    assert list(spool.directory.iterdir()) == []


def test_a_sweep_unlinks_what_is_not_known_and_nothing_else(tmp_path):
    spool = Spool(tmp_path / "spool")
    kept, stray = spool.write(AUDIO), spool.write(AUDIO)
    assert spool.sweep({kept, "gone-long-ago"}) == 1
    assert [path.name for path in spool.directory.iterdir()] == [kept]
    assert stray != kept


def parts_of(cuts, **fields):
    edges = sorted({0, len(AUDIO), *cuts})
    return [part_payload("c", AUDIO, a, b, chunk_id="x", **fields) for a, b in itertools.pairwise(edges)]


@given(cuts=st.lists(st.integers(1, len(AUDIO) - 1), max_size=8), order=st.randoms(), repeats=st.integers(1, 3))
def test_parts_make_the_chunk_in_any_order_and_number(tmp_path_factory, cuts, order, repeats):
    arrivals = PartialChunks(tmp_path_factory.getbasetemp() / "arrivals")
    parts = parts_of(cuts) * repeats
    order.shuffle(parts)
    for part in parts:
        chunk = arrivals.add("c", "x", part, 0.0)
        if chunk is not None:
            break
    assert chunk is not None
    assert chunk.path.read_bytes() == AUDIO
    assert arrivals.reserved_bytes == 0
    chunk.discard()


def test_a_corrupt_part_is_passed_over(tmp_path):
    arrivals = PartialChunks(tmp_path)
    first, second = parts_of([5_000])
    assert arrivals.add("c", "x", first.model_copy(update={"part_sha256": "0" * 64}), 0.0) is None
    assert arrivals.add("c", "x", second, 0.0) is None
    chunk = arrivals.add("c", "x", first, 0.0)
    assert chunk is not None
    assert chunk.sha256() == hashlib.sha256(AUDIO).hexdigest()


def test_arrivals_are_bounded_and_forgotten_when_their_parts_stop(tmp_path):
    arrivals = PartialChunks(tmp_path)
    first, _ = parts_of([5_000])
    for place in range(MAX_PARTIALS):
        arrivals.add("c", f"x{place}", first, float(place))
    with pytest.raises(Refusal) as refused:
        arrivals.add("c", "one-more", first, 0.0)
    assert (refused.value.code, refused.value.retryable) == (FailureCode.INGEST_FULL, True)
    assert arrivals.reserved_bytes == MAX_PARTIALS * len(AUDIO)
    arrivals.drop_stale(PARTIAL_LIFE_S + 10.5)
    assert len(list(tmp_path.iterdir())) == MAX_PARTIALS - 11
    arrivals.discard("c")
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_total_is_refused(tmp_path):
    arrivals = PartialChunks(tmp_path)
    first, second = parts_of([5_000])
    arrivals.add("c", "x", first, 0.0)
    with pytest.raises(Refusal) as refused:
        arrivals.add("c", "x", second.model_copy(update={"total_bytes": 10**6}), 0.0)
    assert refused.value.code == FailureCode.CHUNK_ID_CONFLICT


def letter(size):
    return Incoming(topic="t", payload=bytes(size), retain=False, qos=1, content_type=None)


def test_a_mailbox_is_bounded_by_bytes_and_still_takes_small_messages():
    mailbox = Mailbox(max_messages=10, max_bytes=1_000_000)
    for size in (900_000, 200_000, 100, 300_000):
        mailbox.put(letter(size))
    assert mailbox.dropped == 2
    assert [mailbox.take(0.1) for _ in range(2)] == [letter(900_000), letter(100)]
    assert mailbox.take(0.01) is None
    mailbox.put(letter(5_000_000))
    assert mailbox.take(0.1) == letter(5_000_000), "one of any size finds an empty box"


def test_silence_is_judged_at_the_moment_up_to_which_the_mail_is_read():
    now_s = 1.0
    mailbox = Mailbox(clock=lambda: now_s)
    mailbox.put(letter(1))
    now_s = 20.0
    mailbox.put(letter(2))
    now_s = 60.0
    assert mailbox.read_until_s() == 1.0
    mailbox.take(0.1)
    assert (mailbox.taken_s, mailbox.read_until_s()) == (1.0, 20.0)
    mailbox.take(0.1)
    assert (mailbox.taken_s, mailbox.read_until_s()) == (20.0, 60.0)


def test_a_mailbox_is_bounded_by_messages_and_wakes_who_waits():
    mailbox = Mailbox(max_messages=2)
    for _ in range(3):
        mailbox.put(letter(1))
    assert mailbox.dropped == 1
    assert mailbox.take(0)
    assert mailbox.take(0)
    threading.Timer(0.05, mailbox.put, [letter(7)]).start()
    assert mailbox.take(10.0) == letter(7)
