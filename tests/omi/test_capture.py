"""The capture log: what was appended is there after a crash, once, and for its time only."""

import errno
import os
from pathlib import Path

import pytest

from vps_bridge.omi.capture import Arrival, CaptureLog
from vps_bridge.omi.records import AUDIO, NO_KEY, SEGMENTS, hash_name

AT = 1_780_000_000.0
KEEP_S = 600.0
ANNA, BERT = hash_name("anna"), hash_name("bert")


def audio(body: bytes, *, key: str = "", at: float = AT, user: bytes = ANNA) -> Arrival:
    return Arrival(AUDIO, user, hash_name(key) if key else NO_KEY, 16_000, at, body)


def stream_of(log: CaptureLog, user: bytes = ANNA) -> bytes:
    return b"".join(record.read() for record in log.records_of(user) if record.header.kind == AUDIO)


def test_what_was_appended_is_there_in_order_and_each_key_once(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path, KEEP_S, AT)
    assert log.append([audio(b"one", key="k1"), audio(b"x", user=BERT), audio(b"again", key="k1"), audio(b"two")]) == 3
    assert log.append([audio(b"again", key="k1"), audio(b"three", key="k2")]) == 1
    assert stream_of(log) == b"onetwothree"
    positions = [(record.header.position, record.header.end) for record in log.records_of(ANNA)]
    assert [end for _, end in positions[:-1]] == [start for start, _ in positions[1:]]
    assert stream_of(log, BERT) == b"x"


@pytest.mark.parametrize("cut", range(1, 90, 7))
def test_a_torn_end_is_cut_at_the_last_whole_record_and_the_stream_goes_on(tmp_path: Path, cut: int) -> None:
    log = CaptureLog(tmp_path, KEEP_S, AT)
    log.append([audio(b"one", key="k1")])
    log.append([audio(b"torn" * 10, key="k2")])
    file = next(tmp_path.glob("*.log"))
    os.truncate(file, file.stat().st_size - cut)
    after = CaptureLog(tmp_path, KEEP_S, AT + 5)
    assert stream_of(after) == b"one"
    assert after.append([audio(b"again", key="k1", at=AT + 5), audio(b"two", key="k2", at=AT + 5)]) == 1
    assert stream_of(after) == b"onetwo"
    first, second = after.records_of(ANNA)
    assert first.header.end == second.header.position


def test_a_damaged_end_is_no_audio(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path, KEEP_S, AT)
    log.append([audio(b"one")])
    log.append([audio(b"damaged")])
    file = next(tmp_path.glob("*.log"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 0xFF
    file.write_bytes(data)
    assert stream_of(CaptureLog(tmp_path, KEEP_S, AT)) == b"one"


def test_an_erasure_that_was_cut_off_costs_no_other_record(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path, KEEP_S, AT)
    log.append([audio(b"one"), audio(b"half erased", user=BERT), audio(b"two")])
    file = next(tmp_path.glob("*.log"))
    file.write_bytes(file.read_bytes().replace(b"half", bytes(4)))
    after = CaptureLog(tmp_path, KEEP_S, AT)
    assert (stream_of(after), stream_of(after, BERT)) == (b"onetwo", b"")
    assert b"erased" not in file.read_bytes()


def test_what_an_earlier_run_wrote_is_counted_and_erased_too(tmp_path: Path) -> None:
    for start in range(3):
        earlier = CaptureLog(tmp_path, 10**6, AT + start * 10_000)
        earlier.append([audio(b"four", at=AT + start * 10_000)])
    for path in tmp_path.glob("*.log"):
        os.utime(path, (AT, AT))
    log = CaptureLog(tmp_path, 10**6, AT + 30_000)
    log.load()
    assert (log.bytes_of(ANNA), log.users()) == (12, {ANNA})
    assert log.erase(ANNA) == 3


def test_a_disk_that_refuses_leaves_nothing_of_what_was_not_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CaptureLog(tmp_path, KEEP_S, AT)
    log.append([audio(b"one")])

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="no space"):
            log.append([audio(b"lost", key="k1")])
    assert log.append([audio(b"two", key="k1")]) == 1
    assert stream_of(log) == b"onetwo"
    assert stream_of(CaptureLog(tmp_path, KEEP_S, AT)) == b"onetwo"


def test_nothing_is_kept_longer_than_its_time_even_where_the_clock_is_set_back(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path, KEEP_S, AT)
    for place in range(20):
        log.append([audio(f"{place:02}".encode(), at=AT + place * 10)])
    log.expire(AT + KEEP_S + 50)
    kept = [record.header.arrived_at for record in log.records_of(ANNA)]
    assert kept
    assert min(kept) > AT + 50
    log.expire(AT - 1_000)
    log.expire(AT - 1_000 + KEEP_S)
    assert list(tmp_path.glob("*.log")) == []
    assert log.append([audio(b"new", at=AT)]) == 1


def test_what_a_user_sent_is_overwritten_and_nothing_of_others(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path, KEEP_S, AT)
    log.append([audio(b"her secret"), audio(b"his own", user=BERT), Arrival(SEGMENTS, ANNA, NO_KEY, 0, AT, b"words")])
    assert log.erase(ANNA) == 2
    content = next(tmp_path.glob("*.log")).read_bytes()
    assert b"secret" not in content
    assert b"words" not in content
    after = CaptureLog(tmp_path, KEEP_S, AT)
    assert (stream_of(after), stream_of(after, BERT)) == (b"", b"his own")
    assert after.users() == {BERT}


def test_the_log_is_private(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path / "capture", KEEP_S, AT)
    log.append([audio(b"one")])
    assert (tmp_path / "capture").stat().st_mode & 0o077 == 0
    assert next((tmp_path / "capture").glob("*.log")).stat().st_mode & 0o077 == 0
