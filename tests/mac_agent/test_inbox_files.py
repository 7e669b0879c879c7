from __future__ import annotations

import hashlib
import stat
import sys

import pytest

from mac_agent.inbox import Inbox, InboxError, PartRefused
from tests.hand_clock import HandClock

DATA = bytes(range(256)) * 10
SHA256 = hashlib.sha256(DATA).hexdigest()


def put(inbox: Inbox, handle: int, start: int, end: int, data: bytes = DATA) -> bool:
    piece = data[start:end]
    return inbox.write_part(handle, start, piece, hashlib.sha256(piece).hexdigest())


def test_parts_in_any_order_and_overlapping_become_the_chunk(tmp_path):
    inbox = Inbox(tmp_path / "inbox")
    handle = inbox.open_file(len(DATA), SHA256)
    assert put(inbox, handle, 2000, 2560)
    assert put(inbox, handle, 0, 1000)
    assert not put(inbox, handle, 100, 900)
    assert inbox.file(handle).missing == [(1000, 2000)]
    assert put(inbox, handle, 900, 2100)
    assert inbox.file(handle).is_complete
    assert inbox.verify(handle)
    assert inbox.file(handle).path.read_bytes() == DATA


def test_a_part_with_another_sha256_is_refused_and_still_missing(tmp_path):
    inbox = Inbox(tmp_path / "inbox")
    handle = inbox.open_file(len(DATA), SHA256)
    with pytest.raises(PartRefused):
        inbox.write_part(handle, 0, DATA[:100], hashlib.sha256(b"other").hexdigest())
    assert inbox.file(handle).missing == [(0, len(DATA))]


def test_a_part_past_the_end_or_without_bytes_is_refused(tmp_path):
    inbox = Inbox(tmp_path / "inbox")
    handle = inbox.open_file(100, SHA256)
    with pytest.raises(PartRefused):
        put(inbox, handle, 50, 150)
    with pytest.raises(PartRefused):
        inbox.write_part(handle, 0, b"", hashlib.sha256(b"").hexdigest())
    assert inbox.file(handle).path.stat().st_size == 0


def test_right_parts_of_a_wrong_chunk_are_found_out_and_all_missing_again(tmp_path):
    inbox = Inbox(tmp_path / "inbox")
    handle = inbox.open_file(len(DATA), SHA256)
    put(inbox, handle, 0, len(DATA), data=bytes(len(DATA)))
    assert not inbox.verify(handle)
    assert inbox.file(handle).missing == [(0, len(DATA))]
    put(inbox, handle, 0, len(DATA))
    assert inbox.verify(handle)


def test_files_and_directory_are_private(tmp_path):
    inbox = Inbox(tmp_path / "inbox")
    handle = inbox.open_file(1, SHA256)
    assert stat.S_IMODE((tmp_path / "inbox").stat().st_mode) == 0o700
    assert stat.S_IMODE(inbox.file(handle).path.stat().st_mode) == 0o600


def test_what_a_dead_process_left_is_wiped_at_start(tmp_path):
    before = Inbox(tmp_path / "inbox")
    path = before.file(before.open_file(10, SHA256)).path
    path.write_bytes(b"audio")
    Inbox(tmp_path / "inbox")
    assert list((tmp_path / "inbox").glob("*.audio")) == []


def test_a_directory_that_is_no_inbox_is_never_wiped(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InboxError, match="OMI_INBOX_DIR"):
        Inbox(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_dropped_audio_is_unlinked_and_so_is_all_at_the_end(tmp_path):
    inbox = Inbox(tmp_path / "inbox")
    first, second = inbox.open_file(1, SHA256), inbox.open_file(1, SHA256)
    paths = [inbox.file(handle).path for handle in (first, second)]
    inbox.drop(first)
    inbox.drop(first)
    assert [path.exists() for path in paths] == [False, True]
    inbox.close()
    assert [path.exists() for path in paths] == [False, False]


def test_old_audio_is_told_by_the_machines_own_clock(tmp_path):
    clock = HandClock()
    inbox = Inbox(tmp_path / "inbox", clock=clock)
    old = inbox.open_file(1, SHA256)
    clock.now_s += 3600
    inbox.open_file(1, SHA256)
    assert inbox.expired(24 * 3600) == []
    clock.now_s += 23.5 * 3600
    assert inbox.expired(24 * 3600) == [old]


def test_audio_lies_in_the_cache_directory_that_no_backup_takes_unless_a_place_is_named(tmp_path, monkeypatch):
    from mac_agent.settings import AgentSettings

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("OMI_DATA_DIR", raising=False)
    caches = tmp_path / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    assert AgentSettings().inbox == caches / "omi-diarization" / "inbox"
    assert AgentSettings(data_dir=tmp_path / "own").inbox == tmp_path / "own" / "inbox"
    assert AgentSettings(inbox_dir=tmp_path / "mine").inbox == tmp_path / "mine"
