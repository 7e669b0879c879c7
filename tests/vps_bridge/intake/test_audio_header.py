"""What a chunk's header says; whatever the bytes, reading it ends and raises nothing."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.intake.audio_header import claimed_duration_s, is_raw, raw_duration_s

HEADS = (
    b"RIFF\x24\x00\x00\x00WAVEfmt ",
    b"fLaC\x00\x00\x00\x22",
    b"OggS\x00\x02",
    b"ID3\x04\x00\x00",
    b"\x1aE\xdf\xa3\x9f",
)


def test_a_wav_header_tells_its_length(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(make_wav(2.5))
    assert claimed_duration_s(path) == pytest.approx(2.5)


@pytest.mark.parametrize("claimed_bytes", [0, 2_000_000_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_as_long_as_its_samples(tmp_path, claimed_bytes):
    audio = bytearray(make_wav(5.0))
    struct.pack_into("<I", audio, 40, claimed_bytes)
    path = tmp_path / "a"
    path.write_bytes(audio)
    assert claimed_duration_s(path) == pytest.approx(5.0)


@pytest.mark.shared
def test_the_recorded_file_with_a_placeholder_is_as_long_as_its_samples(shared_dir):
    path = shared_dir / "cases" / "wav_data_size_2e9" / "a.wav"
    claimed = claimed_duration_s(path)
    assert claimed is not None
    assert claimed < path.stat().st_size / 8_000


def test_a_length_that_the_size_makes_impossible_is_not_believed(tmp_path):
    audio = bytearray(make_wav(0.1))
    struct.pack_into("<I", audio, 28, 1)  # bytes a second
    struct.pack_into("<I", audio, 40, 0xFFFFFFF0)
    path = tmp_path / "a"
    path.write_bytes(audio)
    claimed = claimed_duration_s(path)
    assert claimed is None or claimed < len(audio)


@settings(max_examples=300, deadline=None)
@given(head=st.sampled_from(HEADS), rest=st.binary(max_size=400))
def test_no_bytes_break_the_header_reader(tmp_path_factory, head, rest):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(head + rest)
    claimed = claimed_duration_s(path)
    assert claimed is None or claimed > 0


@given(seconds=st.integers(1, 50), rate=st.sampled_from([8_000, 16_000, 44_100]), channels=st.integers(1, 8))
def test_raw_samples_are_measured_by_their_bytes(seconds, rate, channels):
    assert is_raw("pcm_s16le")
    assert not is_raw("flac")
    assert raw_duration_s("pcm_s16le", seconds * rate * channels * 2, rate, channels) == seconds
