"""What FFmpeg would decode to noise, or at a wrong pace, is refused with what to send instead."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from mac_agent.audio import decode
from mac_agent.errors import AudioError
from schemas.failure import FailureCode
from tests.mac_agent.sounds import as_wav, encode_file, tone


def refusal_of(body: bytes) -> str:
    with pytest.raises(AudioError) as refused:
        decode(io.BytesIO(body), max_s=60.0)
    assert refused.value.code is FailureCode.AUDIO_UNDECODABLE
    return str(refused.value)


def with_format_before(wav: bytes, rate_hz: int) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return wav[:12] + form + wav[12:]


def test_a_wav_that_names_two_formats_is_refused():
    said = refusal_of(with_format_before(as_wav(tone(440, 2)), 8_000))
    assert "two `fmt ` chunks that contradict each other" in said


def test_a_wav_that_says_its_format_twice_is_decoded():
    chunk = decode(io.BytesIO(with_format_before(as_wav(tone(440, 2)), 16_000)), max_s=60.0)
    assert (chunk.duration_s, chunk.warnings) == (2.0, ())


def test_an_aiff_that_names_two_formats_is_refused():
    aiff = encode_file(tone(440, 2, rate_hz=44_100), "aiff", "pcm_s16be", rate_hz=44_100)
    at = aiff.index(b"COMM")
    form = bytearray(aiff[at : at + 26])
    form[8:10] = b"\0\2"
    assert "two `COMM` chunks" in refusal_of(aiff[:at] + bytes(form) + aiff[at:])


def test_g721_in_a_wav_is_refused_and_named():
    file = io.BytesIO()
    soundfile.write(file, tone(440, 2, rate_hz=8_000), 8_000, format="WAV", subtype="G721_32")
    said = refusal_of(file.getvalue())
    assert "G.721 ADPCM" in said
    assert "Publish another format, such as FLAC" in said


def in_wav(tag: int, samples: bytes) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, 16_000, 4_000, 1, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples


@pytest.mark.parametrize("tag", [0xFF, 0x1600, 0x1610, 0x706D], ids=hex)
def test_aac_without_frame_headers_in_a_wav_is_refused_and_named(tag: int):
    wav = encode_file(tone(440, 5), "wav", "aac")
    frames = wav[wav.index(b"data") + 8 :]
    assert "AAC without frame headers (ADTS)" in refusal_of(in_wav(tag, frames))


@pytest.mark.parametrize("tag", [0x566F, 0x674F], ids=hex)
def test_vorbis_in_a_wav_is_refused_and_named(tag: int):
    assert "Vorbis" in refusal_of(in_wav(tag, bytes(range(256)) * 200))


def test_aac_with_frame_headers_in_a_wav_is_decoded():
    chunk = decode(io.BytesIO(in_wav(0xFF, encode_file(tone(440, 5), "adts", "aac"))), max_s=60.0)
    assert chunk.duration_s == pytest.approx(5.0, abs=0.15)
    assert chunk.warnings == ()


def as_amr(samples: np.ndarray, container: str) -> bytes:
    """A file of a telephone, which sends nothing of pauses but a frame of quiet noise now and then (DTX)."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream("libopencore_amrnb", rate=8_000, options={"dtx": "1"})
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.bit_rate = "mono", 12_200
        frame = av.AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8_000, 0, Fraction(1, 8_000)
        for piece in [*av.AudioResampler("s16", "mono", 8_000, 160).resample(frame), None]:
            out.mux(stream.encode(piece))
    return file.getvalue()


@pytest.mark.parametrize("container", ["wav", "3gp", "caf"])
def test_the_pauses_of_a_telephone_are_quiet_and_not_damage(container: str):
    rate_hz, pause_s = 8_000, 25.0  # more frames than a file may have damaged ones
    loud = np.random.default_rng(1).normal(size=2 * rate_hz).clip(-3, 3) / 6
    pause = np.zeros(round(pause_s * rate_hz))
    chunk = decode(io.BytesIO(as_amr(np.concatenate([loud, pause, loud]), container)), max_s=60.0)
    levels = np.sqrt(np.mean(chunk.waveform[: 28 * 16_000].reshape(28, 16_000) ** 2, axis=1))
    assert chunk.duration_s == pytest.approx(29.0, abs=0.1)
    assert chunk.warnings == ()
    assert (levels[:2] > 0.05).all()
    assert (levels[4:26] < 0.01).all()
    assert levels[27] > 0.05
