"""One rule names a container by its bytes: magic numbers, frames that follow each other, what stands behind a tag."""

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.audio_container import AudioContainer, find_container
from schemas.audio_frames import read_frame_header

MAGICS = {
    b"RIFF\x24\x00\x00\x00WAVEfmt ": "wav",
    b"RF64\xff\xff\xff\xffWAVEds64": "wav",
    b"RIFX\x00\x00\x00\x24WAVEfmt ": "wav",
    b"BW64\xff\xff\xff\xffWAVEds64": "wav",
    b"FORM\x00\x00\x00\x24AIFFCOMM": "aiff",
    b"FORM\x00\x00\x00\x24AIFCFVER": "aiff",
    b"caff\x00\x01\x00\x00desc": "caf",
    b"fLaC\x00\x00\x00\x22": "flac",
    b"OggS\x00\x02": "ogg",
    b"\x00\x00\x00\x20ftypM4A ": "mp4",
    b"\x00\x00\x00\x08wide": "mp4",
    b"\x1aE\xdf\xa3\x9f": "webm",
}
MP3_FRAME = b"\xff\xfb\x90\x44" + bytes(413)  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes
ADTS_FRAME = b"\xff\xf1\x4c\x40\x06\x40\x00" + bytes(43)  # 48 kHz, one channel: 50 bytes
TAG = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
TAG_WITH_FOOTER = b"ID3\x04\x00\x10\x00\x00\x01\x00" + bytes(128) + b"3DI\x04\x00\x10\x00\x00\x01\x00"


def name(audio):
    found = find_container(audio)
    return found and found.name


@pytest.mark.parametrize("head", MAGICS)
def test_a_container_is_known_by_its_magic_number(head):
    assert name(head) == MAGICS[head]
    assert name(io.BytesIO(head)) == MAGICS[head]


@pytest.mark.parametrize(
    "head",
    [b"", b"\xff", b"RIFF", b"RIFF\x00\x00\x00\x00AVI ", b"\x81\xa6schema", b"{}", b"\x00" * 64, TAG, TAG + b"text"],
)
def test_anything_else_is_none(head):
    assert find_container(head) is None


@pytest.mark.parametrize(("frame", "expected"), [(MP3_FRAME, "mp3"), (ADTS_FRAME, "aac")])
def test_a_stream_of_frames_is_known_by_two_that_follow_each_other(frame, expected):
    assert name(frame * 3) == expected
    assert name(frame + frame[:8]) == expected  # cut off
    assert name(frame) == expected  # the only one, and the file ends with it
    assert find_container(frame[:-1]) is None
    assert find_container(frame + b"\x00" + frame) is None


def test_frames_of_two_streams_are_none():
    assert find_container(MP3_FRAME + ADTS_FRAME) is None
    assert find_container(MP3_FRAME + b"\xff\xf3\x90\x44" + bytes(413)) is None  # MPEG-2 behind MPEG-1


def test_a_free_bit_rate_and_reserved_values_are_no_frame():
    for head in (
        b"\xff\xfb\x00\x44",
        b"\xff\xfb\xf0\x44",
        b"\xff\xfb\x9c\x44",
        b"\xff\xeb\x90\x44",
        b"\xff\xf1\x7c\x40",
    ):
        assert read_frame_header(head + bytes(3)) is None


@pytest.mark.parametrize("tags", [TAG, TAG * 2, TAG_WITH_FOOTER, TAG_WITH_FOOTER + TAG, TAG + bytes(300)])
@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        (MP3_FRAME * 3, "mp3"),
        (ADTS_FRAME * 3, "aac"),
        *((magic, kind) for magic, kind in MAGICS.items() if kind in ("flac", "wav", "ogg", "aiff")),
    ],
)
def test_behind_a_tag_what_follows_is_named(tags, audio, expected):
    found = find_container(tags + audio)
    assert found is not None
    assert (found.name, found.start_byte) == (expected, len(tags))


def test_a_tag_of_a_wrong_size_hides_no_frames():
    assert name(TAG[:-20] + MP3_FRAME * 30) == "mp3"


@pytest.mark.parametrize("second", range(0xE0, 0x100))
def test_random_bytes_behind_a_sync_word_are_none(second):
    noise = random.Random(second)
    for _ in range(200):
        assert find_container(bytes([0xFF, second]) + noise.randbytes(3_000)) is None


@given(
    head=st.sampled_from([b"", TAG, b"\xff\xfb", b"\xff\xf1", b"ID3\x04\x00\x00", *MAGICS]),
    rest=st.binary(max_size=400),
)
def test_any_bytes_are_named_or_none(head, rest):
    found = find_container(head + rest)
    assert found is None or found.name in set(AudioContainer)


def test_every_mpeg_frame_lasts_as_long_as_its_bits():
    for version, layer, samples in ((3, 1, 1_152), (2, 1, 576), (0, 1, 576), (3, 2, 1_152), (2, 2, 1_152), (3, 3, 384)):
        for rate in range(3):
            for bit_rate in range(1, 15):
                header = read_frame_header(
                    bytes([0xFF, 0xE1 | version << 3 | layer << 1, bit_rate << 4 | rate << 2, 0])
                )
                assert header is not None
                assert header.samples == samples
                assert 8 * header.bytes / header.duration_s * 1.05 >= 8_000
