"""How long a chunk is, by its bytes: whatever its header claims; and no bytes break the reader."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.audio_container import find_container
from tests.encoded_audio import BEYOND_EVERY_FILE, encoded
from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.intake.audio_length import is_raw, measure_length, raw_duration_s, recognise

HEADS = (
    b"RIFF\x24\x00\x00\x00WAVEfmt ",
    b"RIFX\x00\x00\x00\x24WAVEfmt \x00\x00\x00\x10",
    b"FORM\x00\x00\x00\x24AIFFCOMM\x00\x00\x00\x12",
    b"caff\x00\x01\x00\x00desc\x00\x00\x00\x00\x00\x00\x00\x20",
    b"fLaC\x80\x00\x00\x22",
    b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead",
    b"\x1aE\xdf\xa3\x80\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x08ftyp\x00\x00\x01\x00moov\x00\x00\x00\xf0trak\x00\x00\x00\x80mdhd",
    (b"\xff\xfb\x90\x44" + bytes(413)) * 2,
    (b"\xff\xf1\x4c\x40\x06\x40\x00" + bytes(43)) * 2,
)


def length_of(tmp_path, audio, stated_s=None):
    path = tmp_path / "audio"
    path.write_bytes(audio)
    found = recognise(path)
    assert found is not None
    return measure_length(path, found, stated_s)


STREAMED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav": ("wav", "pcm_s16le", {}),
    "mu-law wav": ("wav", "pcm_mulaw", {}),
    "aiff": ("aiff", "pcm_s16be", {}),
    "caf": ("caf", "pcm_s16le", {}),
    "flac": ("flac", "flac", {}),
    "flac in short frames": ("flac", "flac", {"frame_size": "192"}),
    "aac": ("adts", "aac", {}),
    "mp3": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    "mp3 behind a tag": ("mp3", "libmp3lame", {"write_xing": "0"}),
    "mp2": ("mp2", "mp2", {}),
    "opus in ogg": ("ogg", "libopus", {}),
    "opus in webm": ("webm", "libopus", {"live": "1"}),
    "aac in matroska": ("matroska", "aac", {}),
    "aac in fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "opus in fragments": ("mp4", "libopus", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
}


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("seconds", [0.5, 5.0, 31.0])
def test_audio_written_to_a_pipe_is_as_long_as_its_bytes(tmp_path, name, seconds):
    container, codec, options = STREAMED[name]
    length = length_of(tmp_path, encoded(container, codec, seconds, **options))
    assert length.duration_s == pytest.approx(seconds, abs=0.1)
    assert not length.is_estimated


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s24le"),
        ("aiff", "pcm_s16be"),
        ("caf", "alac"),
        ("flac", "flac"),
        ("ipod", "aac"),
        ("mp3", "libmp3lame"),
    ],
)
def test_audio_with_an_honest_header_is_as_long_as_it_says(tmp_path, container, codec):
    audio = encoded(container, codec, 7.0, piped=False)
    assert length_of(tmp_path, audio).duration_s == pytest.approx(7.0, abs=0.1)


@pytest.mark.parametrize(
    ("container", "codec", "least"),
    [
        ("wav", "pcm_s16le", 3),
        ("ipod", "aac", 3),
        ("adts", "aac", 3),
        ("ogg", "libopus", 3),
        ("webm", "libopus", 3),
        ("mp3", "libmp3lame", 3),
        ("flac", "flac", 2),
    ],
)
def test_several_files_in_one_body_are_not_as_short_as_the_first(tmp_path, container, codec, least):
    audio = encoded(container, codec, 5.0, piped=False)
    length = length_of(tmp_path, audio * 3)
    assert least * 5.0 - 0.1 <= length.duration_s <= 15.2
    if container != "flac":
        assert not length.is_estimated


@pytest.mark.parametrize("claimed_bytes", [0, 2_000_000_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_of_any_claimed_size_is_as_long_as_its_samples(tmp_path, claimed_bytes):
    audio = bytearray(make_wav(5.0))
    struct.pack_into("<I", audio, 40, claimed_bytes)
    assert length_of(tmp_path, bytes(audio)).duration_s == pytest.approx(5.0)


def test_a_long_stream_of_frames_is_extrapolated(tmp_path):
    audio = encoded("adts", "aac", 3.0, rate=48_000) * 160
    length = length_of(tmp_path, audio)
    assert length.is_estimated
    assert length.duration_s == pytest.approx(160 * 3.03, rel=0.05)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "file", "seconds"),
    [
        ("wav_data_size_2e9", "a.wav", 10.0),
        ("wavs_back_to_back", "a08_concatenated_wavs.wav", 30.0),
        ("wav_extensible_24_in_32", "first10s.wav", 10.0),
        ("qta_unknown_track_first", "b13_qta_unknown_first.mov", 30.0),
        *(("streamed_chunks_webm", f"chunk{n}.webm", 5.0) for n in range(6)),
    ],
)
def test_the_recorded_cases_are_as_long_as_their_samples(shared_dir, case, file, seconds):
    path = shared_dir / "cases" / case / file
    found = recognise(path)
    assert found is not None
    assert measure_length(path, found, None).duration_s == pytest.approx(seconds, abs=0.1)


def test_what_was_counted_is_not_overruled_and_what_was_not_is(tmp_path):
    assert length_of(tmp_path, make_wav(2.5), stated_s=5_000.0).duration_s == pytest.approx(2.5)
    unknown = b"caff\x00\x01\x00\x00" + bytes(60_000)
    stated = length_of(tmp_path, unknown, stated_s=4.0)
    assert (stated.duration_s, stated.is_estimated) == (4.0, False)


@pytest.mark.parametrize("stated_s", [None, 5_000.0, 1e6, 1e-6, 0.0])
def test_a_stated_length_that_the_bytes_cannot_hold_is_ignored(tmp_path, stated_s):
    length = length_of(tmp_path, b"caff\x00\x01\x00\x00" + bytes(60_000), stated_s=stated_s)
    assert length.is_estimated
    assert length.duration_s == pytest.approx(7.5, rel=0.01)


def test_a_jump_in_a_small_file_is_no_hours_of_audio(tmp_path):
    audio = bytearray(encoded("ogg", "libopus", 1.0))
    struct.pack_into("<Q", audio, audio.rindex(b"OggS") + 6, 14_003 * 48_000)
    length = length_of(tmp_path, bytes(audio))
    assert length.is_estimated
    assert length.duration_s < 5.0


@pytest.mark.parametrize("name", ["wav", "flac", "opus in ogg", "opus in webm", "mp3", "aac"])
def test_a_file_that_was_cut_off_is_as_long_as_what_is_there(tmp_path, name):
    container, codec, options = STREAMED[name]
    audio = encoded(container, codec, 20.0, **options)
    length = length_of(tmp_path, audio[: len(audio) // 4])
    assert length.duration_s == pytest.approx(5.0, abs=0.8)


def test_an_m4a_that_was_cut_off_is_estimated(tmp_path):
    audio = encoded("ipod", "aac", 20.0, piped=False)
    head, index = audio[:28], audio.rindex(b"moov") - 4
    audio = head + audio[index:] + audio[28:index]  # the index in front, as for the web
    length = length_of(tmp_path, audio[: len(audio) // 4])
    assert length.is_estimated
    assert length.duration_s == pytest.approx(5.0, abs=0.8)


def test_a_header_that_contradicts_itself_is_no_length(tmp_path):
    audio = bytearray(make_wav(0.1))
    struct.pack_into("<I", audio, 24, 1)  # samples a second
    assert length_of(tmp_path, bytes(audio)).is_estimated


@pytest.mark.parametrize("name", BEYOND_EVERY_FILE)
def test_a_length_beyond_every_file_is_as_long_as_what_is_there(tmp_path, name):
    """The system refuses to go to such places in a file."""
    data = BEYOND_EVERY_FILE[name]
    assert 0 < length_of(tmp_path, data).duration_s <= len(data)


@settings(max_examples=500, deadline=None)
@given(head=st.sampled_from(HEADS), rest=st.binary(max_size=400))
def test_no_bytes_break_the_reader(tmp_path_factory, head, rest):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(head + rest)
    found = find_container(head + rest)
    assert found is not None
    assert 0 < measure_length(path, found, None).duration_s <= len(head + rest)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(STREAMED)),
    places=st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 255)), max_size=8),
)
def test_no_damage_breaks_the_reader(tmp_path_factory, name, places):
    container, codec, options = STREAMED[name]
    audio = bytearray(_ENCODED.get(name) or _ENCODED.setdefault(name, encoded(container, codec, 0.5, **options)))
    for place, value in places:
        audio[place % len(audio)] = value
    found = find_container(bytes(audio))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(audio)
    if found is not None:
        assert 0 < measure_length(path, found, None).duration_s <= len(audio)


_ENCODED: dict[str, bytes] = {}


@given(seconds=st.integers(1, 50), rate=st.sampled_from([8_000, 16_000, 44_100]), channels=st.integers(1, 8))
def test_raw_samples_are_measured_by_their_bytes(seconds, rate, channels):
    assert is_raw("pcm_s16le")
    assert not is_raw("flac")
    assert raw_duration_s("pcm_s16le", seconds * rate * channels * 2, rate, channels) == seconds
