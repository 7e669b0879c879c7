"""What FFmpeg would decode to noise, or at a wrong pace, is refused with what to send instead."""

from __future__ import annotations

import io
import struct

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
