"""Samples of every width and byte order are as loud as they were written, wherever they lie in their words."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from mac_agent.audio import decode, measure_quality
from tests.mac_agent.sounds import encode_file, tone, warnings_of

RATE_HZ = 16_000
PCM_GUID, FLOAT_GUID = (bytes([tag]) + bytes.fromhex("00000000001000800000aa00389b71") for tag in (1, 3))
# A voice-like sound that uses every bit: a tone that swells, and noise.
SOUND = (
    tone(440, 3) * np.linspace(0.1, 1.4, 3 * RATE_HZ) + 0.01 * np.random.default_rng(5).standard_normal(3 * RATE_HZ)
).astype(np.float64)


def decoded(body: bytes):
    return decode(io.BytesIO(body), max_s=600.0)


def assert_is_the_sound(body: bytes, *, step: float = 2e-4, warnings: tuple[str, ...] = ()) -> None:
    chunk = decoded(body)
    assert chunk.waveform.size == SOUND.size
    assert float(np.abs(chunk.waveform - SOUND).max()) < step
    assert chunk.warnings == warnings


def words(valid_bits: int, word_bits: int, *, at: str = "left", order: str = "<") -> bytes:
    """The sound as integers; `at` is where they lie in their words: left, right, or right with zeros above."""
    numbers = np.round(SOUND * (2 ** (valid_bits - 1) - 1)).astype(np.int64)
    if at == "left":
        numbers <<= word_bits - valid_bits
    elif at == "zeros above":
        numbers &= (1 << valid_bits) - 1
    rows = numbers.astype("<i8")[:, None].view(np.uint8)[:, : word_bits // 8]
    return np.ascontiguousarray(rows[:, :: 1 if order == "<" else -1]).tobytes()


def wav(data: bytes, word_bits: int, *, said_bits: int, tag: int = 1, guid: bytes = b"", order: str = "<") -> bytes:
    """A WAV whose header says `said_bits`; with a `guid` in WAVEFORMATEXTENSIBLE, as bits that are valid."""
    block = word_bits // 8
    bits = word_bits if guid else said_bits
    form = struct.pack(order + "HHIIHH", 0xFFFE if guid else tag, 1, RATE_HZ, RATE_HZ * block, block, bits)
    if guid:
        form += struct.pack(order + "HHI", 22, said_bits, 4) + guid
    body = b"WAVE" + struct.pack(order + "4sI", b"fmt ", len(form)) + form
    body += struct.pack(order + "4sI", b"data", len(data)) + data
    return struct.pack(order + "4sI", b"RIFF" if order == "<" else b"RIFX", len(body)) + body


@pytest.mark.parametrize("at", ["left", "right", "zeros above"])
@pytest.mark.parametrize(("valid_bits", "word_bits"), [(24, 32), (20, 32), (20, 24), (16, 32), (16, 24), (12, 16)])
@pytest.mark.parametrize("guid", [PCM_GUID, b""], ids=["extensible", "plain"])
def test_fewer_bits_than_their_words_hold(valid_bits, word_bits, at, guid):
    body = wav(words(valid_bits, word_bits, at=at), word_bits, said_bits=valid_bits, guid=guid)
    assert_is_the_sound(body, step=2 ** (2 - valid_bits) + 2e-6)


@pytest.mark.parametrize("guid", [PCM_GUID, b""], ids=["extensible", "plain"])
@pytest.mark.parametrize("word_bits", [16, 24, 32])
def test_whole_words(word_bits, guid):
    assert_is_the_sound(wav(words(word_bits, word_bits), word_bits, said_bits=word_bits, guid=guid))


@pytest.mark.parametrize("said_bits", [16, 24, 32])
@pytest.mark.parametrize("at", ["left", "right"])
def test_words_of_the_other_byte_order(said_bits, at):
    data = words(said_bits, 32 if said_bits > 16 else 16, at=at, order=">")
    assert_is_the_sound(wav(data, 32 if said_bits > 16 else 16, said_bits=said_bits, order=">"))


def test_a_header_that_counts_too_few_valid_bits_takes_none_away():
    assert_is_the_sound(wav(words(32, 32), 32, said_bits=24, guid=PCM_GUID))


@pytest.mark.parametrize("guid", [FLOAT_GUID, b""], ids=["extensible", "plain"])
@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_floating_point(kind, guid):
    bits = 8 * np.dtype(kind).itemsize
    assert_is_the_sound(wav(SOUND.astype(kind).tobytes(), bits, said_bits=bits, tag=3, guid=guid))


@pytest.mark.parametrize("bits", [16, 24])
def test_samples_at_the_lower_end_of_whole_words_are_raised_and_reported(bits):
    body = wav(words(bits, 32, at="right"), 32, said_bits=32)
    assert_is_the_sound(body, warnings=("audio.rescaled",))


def test_a_quiet_recording_of_24_bits_is_left_as_it_is_and_reported():
    quiet = np.round(SOUND * 0.002 * 2**23).astype("<i4")
    chunk = decoded(wav((quiet << 8).tobytes(), 32, said_bits=24, guid=PCM_GUID))
    assert measure_quality(chunk.waveform).peak == pytest.approx(0.002 * np.abs(SOUND).max(), rel=0.01)
    assert warnings_of(chunk) == ("audio.quiet: peak of -57 dBFS",)


@pytest.mark.parametrize("order", ["<", ">"])
def test_floating_point_that_is_said_to_be_integers(order):
    body = wav(SOUND.astype(order + "f4").tobytes(), 32, said_bits=32, tag=1, order=order)
    assert_is_the_sound(body, warnings=("audio.header_wrong: it says integers, the samples are floating point",))


def test_integers_that_are_said_to_be_floating_point():
    body = wav(words(32, 32), 32, said_bits=32, tag=3)
    assert_is_the_sound(body, warnings=("audio.header_wrong: it says floating point, the samples are integers",))


def test_samples_of_two_bytes_that_are_said_to_take_four():
    data, form = words(16, 16), struct.pack("<HHIIHH", 1, 1, RATE_HZ, RATE_HZ * 4, 4, 16)
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(form)) + form + struct.pack("<4sI", b"data", len(data)) + data
    riff = struct.pack("<4sI", b"RIFF", len(body)) + body
    assert_is_the_sound(riff, warnings=("audio.header_wrong: it says 4 bytes a sample, the samples have 2",))


def test_the_words_of_silence_and_of_no_numbers_stay_what_the_header_says():
    for samples in (np.zeros(RATE_HZ, "<f4"), np.full(RATE_HZ, np.nan, "<f4"), np.full(RATE_HZ, 0.3, "<f4")):
        chunk = decoded(wav(samples.tobytes(), 32, said_bits=32, tag=3))
        assert not [warning for warning in chunk.warnings if warning.startswith("audio.header_wrong")]


SOUNDFILES = [
    ("WAV", "ULAW"), ("WAV", "ALAW"), ("WAV", "DOUBLE"), ("WAV", "PCM_32"), ("WAV", "PCM_U8"), ("WAVEX", "PCM_24"),
    ("WAVEX", "DOUBLE"), ("WAVEX", "ULAW"), ("RF64", "PCM_24"), ("RF64", "FLOAT"), ("AIFF", "PCM_S8"),
    ("AIFF", "PCM_16"), ("AIFF", "PCM_24"), ("AIFF", "PCM_32"), ("AIFF", "FLOAT"), ("AIFF", "DOUBLE"),
    ("AIFF", "ULAW"), ("AIFF", "ALAW"), ("CAF", "PCM_S8"), ("CAF", "PCM_16"), ("CAF", "PCM_24"), ("CAF", "PCM_32"),
    ("CAF", "FLOAT"), ("CAF", "DOUBLE"), ("CAF", "ALAW"), ("FLAC", "PCM_24"), ("FLAC", "PCM_S8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("container", "subtype", "endian"),
    [
        (*kind, endian)
        for kind in SOUNDFILES
        for endian in ("FILE", "LITTLE", "BIG")
        if soundfile.check_format(*kind, endian)
    ],
)
def test_what_libsndfile_writes(container, subtype, endian):
    file = io.BytesIO()
    soundfile.write(file, SOUND, RATE_HZ, format=container, subtype=subtype, endian=endian)
    assert_is_the_sound(file.getvalue(), step=0.05 if "LAW" in subtype else 0.02 if "8" in subtype else 2e-4)


@pytest.mark.parametrize("codec", ["pcm_s16be", "pcm_s24be", "pcm_s32be", "pcm_f32be", "pcm_f64be", "pcm_s24le",
                                   "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw"])  # fmt: skip
def test_what_quicktime_holds(codec):
    assert_is_the_sound(encode_file(SOUND, "mov", codec), step=0.05 if "law" in codec else 2e-4)


@pytest.mark.parametrize("at", ["left", "right"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("valid_bits", "word_bits"), [(24, 32), (20, 24), (12, 16)])
def test_fewer_bits_than_the_words_of_a_caf_hold(valid_bits, word_bits, order, at):
    data = words(valid_bits, word_bits, at=at, order=order)
    block = word_bits // 8
    form = struct.pack(">d4sIIIII", RATE_HZ, b"lpcm", 2 if order == "<" else 0, block, 1, 1, valid_bits)
    body = b"caff\0\1\0\0" + struct.pack(">4sq", b"desc", len(form)) + form
    body += struct.pack(">4sqI", b"data", len(data) + 4, 0) + data
    assert_is_the_sound(body, step=2 ** (2 - valid_bits) + 2e-6)


@pytest.mark.parametrize("at", ["left", "right"])
@pytest.mark.parametrize(("valid_bits", "word_bits"), [(12, 16), (20, 24)])
def test_fewer_bits_than_the_words_of_an_aiff_hold(valid_bits, word_bits, at):
    data = words(valid_bits, word_bits, at=at, order=">")
    rate = struct.pack(">HQ", 16383 + 13, RATE_HZ << 50)  # 80 bits: exponent and mantissa
    comm = struct.pack(">hIh", 1, SOUND.size, valid_bits) + rate
    body = b"AIFF" + struct.pack(">4sI", b"COMM", len(comm)) + comm
    body += struct.pack(">4sIII", b"SSND", len(data) + 8, 0, 0) + data
    assert_is_the_sound(struct.pack(">4sI", b"FORM", len(body)) + body, step=2 ** (2 - valid_bits) + 2e-6)
