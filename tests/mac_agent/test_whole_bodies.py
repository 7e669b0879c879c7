"""Nothing of a body is left out without a word: files one after another, bytes left over, bytes missing, tracks."""

from __future__ import annotations

import io
import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mac_agent.audio import decode
from mac_agent.errors import AudioError
from schemas.failure import FailureCode
from tests.encoded_audio import BEYOND_EVERY_FILE
from tests.mac_agent.sounds import as_pcm16, as_wav, encode_file, tone

KINDS = {
    "wav": ("wav", "pcm_s16le", 16_000),
    "wav adpcm": ("wav", "adpcm_ima_wav", 16_000),
    "aiff": ("aiff", "pcm_s16be", 22_050),
    "caf": ("caf", "pcm_s16le", 16_000),
    "flac": ("flac", "flac", 44_100),
    "m4a": ("ipod", "aac", 44_100),
    "mov pcm": ("mov", "pcm_s16le", 16_000),
    "opus": ("ogg", "libopus", 48_000),
    "ogg flac": ("ogg", "flac", 48_000),
    "webm": ("webm", "libopus", 48_000),
    "adts": ("adts", "aac", 16_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
}


def file_of(kind: str, pitch_hz: float, seconds: float) -> bytes:
    container, codec, rate_hz = KINDS[kind]
    return encode_file(tone(pitch_hz, seconds, rate_hz=rate_hz), container, codec, rate_hz=rate_hz)


def decoded(body: bytes, **options):
    return decode(io.BytesIO(body), max_s=600.0, **options)


def pitches_hz(waveform: np.ndarray, *ranges_s: tuple[float, float]) -> list[int]:
    """The strongest frequency of each range, to the nearest 20 Hz."""
    found = []
    for start_s, end_s in ranges_s:
        piece = waveform[round(start_s * 16_000) : round(end_s * 16_000)]
        found.append(20 * round(float(np.argmax(np.abs(np.fft.rfft(piece))) * 16_000 / piece.size) / 20))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_files_one_after_another_are_all_decoded_in_order(kind):
    chunk = decoded(file_of(kind, 440, 2) + file_of(kind, 880, 3) + file_of(kind, 660, 2))
    slack_s = {"adts": 0.4, "wav adpcm": 0.3}.get(kind, 0.01)
    assert chunk.duration_s == pytest.approx(7.0, abs=slack_s)
    assert pitches_hz(chunk.waveform, (0.4, 1.6), (2.8, 4.4), (5.8, 6.6)) == [440, 880, 660]
    assert chunk.warnings == (("audio.low_quality: adpcm_ima_wav, 4.0 bits a sample",) if kind == "wav adpcm" else ())


def vbr_mp3(samples: np.ndarray, **options: str) -> bytes:
    """An MP3 of changing bit rate: its length in bytes says nothing about its length in seconds."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options=options) as out:
        stream = out.add_stream("libmp3lame", rate=16_000, layout="mono", options={"flags": "+qscale"})
        stream.codec_context.options |= {"global_quality": "472"}
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    return file.getvalue()


APE_TAG = b"APETAGEX" + struct.pack("<IIII8x", 2_000, 4_032, 1, 1 << 31) + bytes(4_032)
ID3_TAG = b"ID3\4\0\0\0\0\1\0" + b"TIT2\0\0\0\6\0\0\3notes".ljust(128, b"\0")


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *(("wav", "pcm_s16le"), ("aiff", "pcm_s16be"), ("caf", "pcm_s16be"), ("mp3", "libmp3lame")),
        *((container, "flac") for container in ("flac", "ogg", "matroska")),
    ],
)
@pytest.mark.parametrize("padding", [b"", bytes(300)], ids=["tag", "tag and padding"])
def test_an_id3_tag_is_no_lost_audio(container: str, codec: str, padding: bytes):
    file = encode_file(tone(440, 3), container, codec)
    chunk = decode(io.BytesIO(ID3_TAG + padding + file), max_s=60.0)
    assert chunk.duration_s == pytest.approx(3.0, abs=0.01)
    assert chunk.warnings == ()


def test_what_stands_between_a_tag_and_its_file_is_counted():
    chunk = decode(io.BytesIO(ID3_TAG + b"not audio" + encode_file(tone(440, 3), "mp3", "libmp3lame")), max_s=60.0)
    assert any(warning.startswith("audio.bytes_ignored") for warning in chunk.warnings)


ID3V1_TAG = b"TAG" + bytes(125)


@pytest.mark.parametrize("tags", [b"", ID3V1_TAG, APE_TAG + ID3V1_TAG], ids=["plain", "id3v1", "ape and id3v1"])
def test_mp3s_of_changing_bit_rate_miss_nothing(tags):
    """A pause takes few bytes: what the second file would last at the rate of the first is no promise of anybody."""
    pause = vbr_mp3(np.zeros(10 * 16_000)) + tags
    speech = np.random.default_rng(1).normal(size=10 * 16_000) * 0.1
    chunk = decoded(pause + vbr_mp3(speech) + tags + pause)
    assert chunk.duration_s == pytest.approx(30.0, abs=0.01)
    assert chunk.warnings == ()
    cut = decoded(pause + vbr_mp3(speech)[:-20_000])
    assert any(warning.startswith("audio.truncated: ") for warning in cut.warnings), cut.warnings


def test_an_mp3_that_states_too_few_bytes_is_decoded_to_its_end():
    body = bytearray(file_of("mp3", 440, 5))
    at = body.find(b"Info") + 12
    body[at : at + 4] = (len(body) // 2).to_bytes(4, "big")
    chunk = decoded(bytes(body))
    assert chunk.duration_s == pytest.approx(5.0, abs=0.2)
    assert not any(warning.startswith("audio.truncated") for warning in chunk.warnings)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("wav", "flac"),
        ("wav", "opus"),
        ("wav", "m4a"),
        ("wav", "caf"),
        ("wav", "aiff"),
        ("wav", "webm"),
        ("aiff", "wav"),
        ("aiff", "opus"),
        ("caf", "webm"),
        ("caf", "opus"),
        ("m4a", "opus"),
        ("m4a", "wav"),
    ],
)
def test_files_of_different_kinds_are_all_decoded(first, second):
    chunk = decoded(file_of(first, 440, 2) + file_of(second, 880, 2))
    assert chunk.duration_s == pytest.approx(4.0, abs=0.01)
    assert pitches_hz(chunk.waveform, (0.4, 1.6), (2.4, 3.6)) == [440, 880]
    assert chunk.warnings == ()


@pytest.mark.parametrize("second", ["wav", "flac", "opus", "m4a", "webm", "caf", "aiff"])
@pytest.mark.parametrize("first", ["mp3", "adts"])
def test_frames_that_state_no_length_end_where_another_file_begins(first, second):
    frames = file_of("adts", 440, 2) if first == "adts" else vbr_mp3(tone(440, 2), write_xing="0")
    chunk = decoded(frames + file_of(second, 880, 2))
    assert chunk.duration_s == pytest.approx(4.0, abs=0.2)
    assert pitches_hz(chunk.waveform, (0.4, 1.6), (2.6, 3.6)) == [440, 880]
    assert chunk.warnings == ()


def test_what_follows_an_mp3_and_is_no_file_is_counted():
    frames, noise = vbr_mp3(tone(440, 2), write_xing="0"), np.random.default_rng(5).bytes(20_000)
    chunk = decoded(frames + noise)
    assert chunk.duration_s == pytest.approx(2.1, abs=0.2)
    (warning,) = chunk.warnings
    assert re.fullmatch(r"audio\.damaged: \d+ packets or blocks, 20000 bytes", warning)


@pytest.mark.parametrize("claimed", [0, 0x7FFFFFFF, 2_000_000_000, 0xFFFFFFFF])
def test_streamed_wavs_without_a_length_are_told_apart(claimed):
    body = b"".join(as_wav(tone(pitch, 2), data_bytes=claimed) for pitch in (440, 880))
    chunk = decoded(body)
    assert chunk.waveform.size == 4 * 16_000
    assert pitches_hz(chunk.waveform, (0.4, 1.6), (2.4, 3.6)) == [440, 880]
    assert chunk.warnings == ()


def test_files_of_different_rates_keep_their_pace():
    chunk = decoded(as_wav(tone(440, 2)) + as_wav(tone(440, 2, rate_hz=48_000), rate_hz=48_000))
    assert chunk.duration_s == pytest.approx(4.0, abs=0.01)
    assert pitches_hz(chunk.waveform, (0.4, 1.6), (2.4, 3.6)) == [440, 440]


def test_six_thousand_small_files_are_one_recording():
    chunk = decoded(as_wav(tone(500, 0.05)) * 6_000)
    assert chunk.duration_s == pytest.approx(300.0, abs=0.01)


def test_chunks_behind_the_samples_are_no_audio_and_no_loss():
    listed = b"LIST" + struct.pack("<I", 5) + b"INFO!\0"
    chunk = decoded(as_wav(tone(440, 2)) + listed + as_wav(tone(880, 2)) + listed)
    assert chunk.waveform.size == 4 * 16_000
    assert chunk.warnings == ()


def test_samples_behind_a_header_that_tells_of_the_first_blob_only_are_counted():
    chunk = decoded(as_wav(tone(440, 2)) + as_pcm16(tone(880, 3)))
    assert chunk.waveform.size == 2 * 16_000
    assert chunk.warnings == ("audio.bytes_ignored: 96000 bytes",)


@pytest.mark.parametrize("kind", ["wav", "aiff", "caf", "m4a", "mov pcm", "opus", "ogg flac", "adts", "webm"])
def test_bytes_that_belong_to_nothing_are_counted(kind):
    chunk = decoded(file_of(kind, 440, 2) + b"\x13junk" * 5_000)
    assert pitches_hz(chunk.waveform, (0.4, 1.6)) == [440]
    assert chunk.warnings == ("audio.bytes_ignored: 25000 bytes",)


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_bytes_that_a_parser_swallows_are_noticed(kind):
    chunk = decoded(file_of(kind, 440, 2) + b"\x13junk" * 5_000)
    assert any(warning.startswith(("audio.bytes_ignored", "audio.damaged")) for warning in chunk.warnings)


def test_bytes_between_two_files_are_counted_and_both_decoded():
    chunk = decoded(as_wav(tone(440, 2)) + b"\x13junk" * 200 + as_wav(tone(880, 2)))
    assert chunk.waveform.size == 4 * 16_000
    assert chunk.warnings == ("audio.bytes_ignored: 1000 bytes",)


def test_a_file_that_cannot_be_decoded_behind_one_that_can_is_counted():
    broken = b"fLaC\x00\x00\x00\x22" + bytes(1_000)
    chunk = decoded(as_wav(tone(440, 2)) + broken)
    assert chunk.warnings == (f"audio.bytes_ignored: {len(broken)} bytes",)


@pytest.mark.parametrize("magic", [b"RIFF", b"RIFX", b"RF64"])
@pytest.mark.parametrize("missing", [1_000, 48_000])
def test_a_wav_cut_off_says_how_many_bytes_are_missing(magic, missing):
    order = ">" if magic == b"RIFX" else "<"
    samples = as_pcm16(tone(440, 3))
    head = struct.pack(order + "4sI4s", magic, 36 + len(samples), b"WAVE")
    if magic == b"RF64":
        head += struct.pack("<4sIQQQI", b"ds64", 28, 0, len(samples), 0, 0)
    head += struct.pack(order + "4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    head += struct.pack(order + "4sI", b"data", 2**32 - 1 if magic == b"RF64" else len(samples))
    body = head + (np.frombuffer(samples, "<i2").astype(">i2").tobytes() if order == ">" else samples)
    whole = decoded(body)
    assert (whole.waveform.size, whole.warnings) == (48_000, ())
    assert pitches_hz(whole.waveform, (0.4, 2.6)) == [440]
    cut = decoded(body[:-missing])
    assert cut.waveform.size == 48_000 - missing // 2
    assert cut.warnings == (f"audio.truncated: {missing} bytes are missing",)


@pytest.mark.parametrize("kind", ["wav adpcm", "aiff", "caf", "opus", "ogg flac", "flac", "mp3", "webm"])
def test_every_file_cut_off_says_how_much_is_missing(kind):
    body = file_of(kind, 440, 10)
    cut = decoded(body[: len(body) * 9 // 10])
    assert 8.0 < cut.duration_s < 9.8
    assert any(warning.startswith("audio.truncated: ") for warning in cut.warnings), cut.warnings


def test_an_m4a_with_its_index_in_front_cut_off_says_how_many_bytes_are_missing(tmp_path):
    with av.open(tmp_path / "a.m4a", "w", format="mp4", options={"movflags": "faststart"}) as out:
        _add_tracks(out, [tone(440, 6)])
    body = (tmp_path / "a.m4a").read_bytes()
    cut = decoded(body[:-10_000])
    assert 2.0 < cut.duration_s < 5.9
    assert "audio.truncated: 10000 bytes are missing" in cut.warnings


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_second_track_is_reported(container):
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        _add_tracks(out, [tone(440, 3), tone(880, 3)])
    chunk = decoded(file.getvalue())
    assert pitches_hz(chunk.waveform, (0.4, 2.6)) == [440]
    assert chunk.warnings == ("audio.tracks_ignored: 1",)


def _add_tracks(out: av.container.OutputContainer, sounds: list[np.ndarray]) -> None:
    streams = [out.add_stream("aac", rate=16_000, layout="mono") for _ in sounds]
    for stream, samples in zip(streams, sounds, strict=True):
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)


@pytest.mark.parametrize("kind", ["opus", "ogg flac"])
@pytest.mark.parametrize("damaged_at", [0.3, 0.6, 0.97])
def test_an_ogg_page_with_a_wrong_checksum_is_missed(kind, damaged_at):
    body = bytearray(file_of(kind, 440, 6))
    at = round(len(body) * damaged_at)
    body[at : at + 4] = bytes(byte ^ 0xFF for byte in body[at : at + 4])
    chunk = decoded(bytes(body))
    assert chunk.warnings, chunk.duration_s
    assert chunk.warnings[0].startswith(("audio.truncated: ", "audio.holes_filled: ", "audio.damaged"))


def test_a_broadcast_that_began_long_before_misses_nothing():
    """Its pages count from then on."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(440, 5, rate_hz=48_000)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 3_600 * 48_000, Fraction(1, 48_000)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    chunk = decoded(file.getvalue())
    assert chunk.duration_s == pytest.approx(5.0, abs=0.05)
    assert chunk.warnings == ()


def test_a_pause_within_a_webm_is_silence_and_its_length_is_said():
    chunk = decoded(_webm_with_a_pause(pause_s=12.0, seconds=4.0))
    assert chunk.duration_s == pytest.approx(16.0, abs=0.1)
    assert not chunk.waveform[round(2.5 * 16_000) : round(13.5 * 16_000)].any()
    assert pitches_hz(chunk.waveform, (0.4, 1.6), (14.4, 15.6)) == [440, 440]
    assert chunk.warnings == ("audio.holes_filled: 12.0 s",)


def test_a_pause_of_hours_in_a_second_of_sound_is_a_damaged_clock():
    body = _webm_with_a_pause(pause_s=14_000.0, seconds=1.0)
    chunk = decode(io.BytesIO(body), max_s=4 * 3600.0)
    assert chunk.duration_s == pytest.approx(1.0, abs=0.1)
    assert chunk.warnings == ("audio.holes_left_out: 14000.0 s",)


def test_many_recordings_share_what_may_be_filled():
    body = _webm_with_a_pause(pause_s=59.0, seconds=0.1) * 100
    chunk = decode(io.BytesIO(body), max_s=4 * 3600.0)
    assert chunk.duration_s < 60 + 101 * 11
    assert any(warning.startswith("audio.holes_left_out: ") for warning in chunk.warnings)


def test_a_pause_that_makes_the_audio_too_long_is_refused():
    with pytest.raises(AudioError) as caught:
        decoded(_webm_with_a_pause(pause_s=700.0, seconds=8.0))
    assert caught.value.code is FailureCode.AUDIO_TOO_LONG


def _webm_with_a_pause(*, pause_s: float, seconds: float) -> bytes:
    """Opus whose time stamps jump in the middle, as when nothing is sent while a track is muted."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(440, seconds, rate_hz=48_000)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        middle_s = seconds / 2
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            if packet.pts is not None and packet.pts * packet.time_base >= middle_s:
                jump = round(pause_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + jump, packet.pts + jump
            out.mux(packet)
    return file.getvalue()


def test_tags_that_are_not_utf8_cost_no_audio():
    """Older programs write their names in Latin-1."""
    info = b"INFOINAM" + (6).to_bytes(4, "little") + b"Caf\xe9\0\0"
    body = as_wav(tone(440, 2)) + b"LIST" + len(info).to_bytes(4, "little") + info
    body = body[:4] + (len(body) - 8).to_bytes(4, "little") + body[8:]
    chunk = decode(io.BytesIO(body), max_s=60.0)
    assert chunk.duration_s == pytest.approx(2.0, abs=0.01)
    assert chunk.warnings == ()


@pytest.mark.parametrize("name", BEYOND_EVERY_FILE)
def test_a_length_beyond_every_file_is_bad_audio_and_no_error_of_the_system(name: str, tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(BEYOND_EVERY_FILE[name])
    with path.open("rb") as file, pytest.raises(AudioError):
        decode(file, max_s=60.0)
