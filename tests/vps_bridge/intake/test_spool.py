"""The spool on disk: private files, whole or not there, and nothing that the ledger does not know."""

import os
import stat

import pytest

from vps_bridge.intake.spool import Spool

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
