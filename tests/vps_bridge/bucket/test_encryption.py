"""Audio that leaves for a bucket: what is in it, what it decrypts as, and with which keys."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import SettingsError
from vps_bridge.bucket.encryption import (
    HEAD_BYTES,
    OVERHEAD_BYTES,
    AudioDamaged,
    ChunkNames,
    KeyMissing,
    decrypt,
    encrypt,
)
from vps_bridge.bucket.keys import SpoolKey, SpoolKeys, drop_old_keys, make_key_file, read_keys, rotate_key_file

NAMES = ChunkNames("ledger", "call-1", "chunk-1", "a" * 32 + "-" + "b" * 32)
KEYS = SpoolKeys(Path("keys"), (SpoolKey(b"k" * 32),))
AUDIO = bytes(range(256)) * 40


def encrypted(audio: bytes = AUDIO, names: ChunkNames = NAMES, keys: SpoolKeys = KEYS) -> bytes:
    target = io.BytesIO()
    encrypt(io.BytesIO(audio), target, keys.newest, names)
    return target.getvalue()


def in_blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def decrypted(data: bytes, names: ChunkNames = NAMES, keys: SpoolKeys = KEYS, block_bytes: int = 1_000) -> bytes:
    target = io.BytesIO()
    sha256 = decrypt(in_blocks(data, block_bytes), target, keys, names)
    assert sha256 == hashlib.sha256(target.getvalue()).hexdigest()
    return target.getvalue()


@given(audio=st.binary(max_size=5_000), block_bytes=st.integers(1, 6_000))
def test_what_comes_back_is_what_left_however_it_is_cut(audio: bytes, block_bytes: int) -> None:
    data = encrypted(audio)
    assert len(data) == len(audio) + OVERHEAD_BYTES
    assert decrypted(data, block_bytes=block_bytes) == audio


def test_the_same_audio_never_looks_the_same_and_none_of_it_is_to_be_seen() -> None:
    assert len({encrypted() for _ in range(20)}) == 20
    assert AUDIO[:16] not in encrypted()


@given(place=st.integers(0, len(AUDIO) + OVERHEAD_BYTES - 1), bit=st.integers(0, 7))
def test_one_bit_that_changed_is_noticed(place: int, bit: int) -> None:
    data = bytearray(encrypted())
    data[place] ^= 1 << bit
    with pytest.raises((AudioDamaged, KeyMissing)):
        decrypted(bytes(data))


@given(length=st.integers(0, len(AUDIO) + OVERHEAD_BYTES - 1))
def test_what_was_cut_off_is_noticed(length: int) -> None:
    with pytest.raises(AudioDamaged):
        decrypted(encrypted()[:length])


@pytest.mark.parametrize("other", ["ledger_id", "conversation_id", "chunk_id", "name"])
def test_a_chunk_does_not_pass_for_another_one(other: str) -> None:
    with pytest.raises(AudioDamaged, match="another chunk"):
        decrypted(encrypted(), replace(NAMES, **{other: "another"}))


def test_a_key_that_is_not_there_is_named_with_what_to_do() -> None:
    others = SpoolKeys(Path("/etc/keys"), (SpoolKey(b"o" * 32),))
    with pytest.raises(KeyMissing, match=f"{KEYS.newest.key_id.hex()}.*/etc/keys.*add that key's line"):
        decrypted(encrypted(), keys=others)


def test_every_key_of_the_file_decrypts_and_the_first_encrypts(tmp_path: Path) -> None:
    file = tmp_path / "private" / "spool-keys"
    old = encrypted(keys=make_key_file(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    rotated = rotate_key_file(file)
    assert read_keys(file) == rotated
    new = encrypted(keys=rotated)
    assert old[8:16] != new[8:16] == rotated.newest.key_id
    assert (decrypted(old, keys=rotated), decrypted(new, keys=rotated)) == (AUDIO, AUDIO)
    left = drop_old_keys(file)
    assert decrypted(new, keys=left) == AUDIO
    with pytest.raises(KeyMissing):
        decrypted(old, keys=left)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_of_keys_is_never_overwritten_and_never_half_read(tmp_path: Path) -> None:
    file = tmp_path / "spool-keys"
    with pytest.raises(SettingsError, match="omi-bridge spool-key"):
        read_keys(None)
    with pytest.raises(SettingsError, match="omi-bridge spool-key makes one"):
        read_keys(file)
    made = make_key_file(file)
    with pytest.raises(SettingsError, match="--rotate"):
        make_key_file(file)
    assert read_keys(file) == made
    file.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_keys(file)
    file.chmod(0o600)
    for wrong in ("", "# nothing\n", "abc\n", f"{'a' * 64}\nnot a key\n", "g" * 64):
        file.write_text(wrong)
        with pytest.raises(SettingsError, match="64 hexadecimal digits"):
            read_keys(file)


def test_no_key_is_shown_by_accident() -> None:
    assert "6b6b" not in repr(KEYS)
    assert "kkkk" not in repr(KEYS)
    assert len(encrypted(b"")) == HEAD_BYTES + 16
