from __future__ import annotations

import io

import av
import numpy as np
import pytest
from scipy.signal import correlate, resample_poly

from mac_agent.audio import decode, join_chunks, measure_quality
from mac_agent.errors import AudioError
from schemas.failure import FailureCode
from tests.encoded_audio import encoded
from tests.mac_agent.sounds import as_float_wav, as_pcm16, as_wav, encode_file, tone, warnings_of


def pitch_hz(waveform: np.ndarray) -> float:
    """The strongest frequency of what was decoded."""
    middle = waveform[waveform.size // 4 : 3 * waveform.size // 4]
    return float(np.argmax(np.abs(np.fft.rfft(middle))) * 16_000 / middle.size)


def decoded(data: bytes, *, max_s: float = 100.0, **options):
    return decode(io.BytesIO(data), max_s=max_s, **options)


FILES = [
    ("wav", "libmp3lame", 8_000),
    ("wav", "libmp3lame", 44_100),
    ("wav", "pcm_s16le", 16_000),
    ("wav", "pcm_u8", 16_000),
    ("wav", "pcm_s24le", 44_100),
    ("wav", "pcm_f32le", 48_000),
    ("wav", "pcm_alaw", 8_000),
    ("wav", "pcm_mulaw", 8_000),
    ("flac", "flac", 44_100),
    ("ogg", "libopus", 48_000),
    ("webm", "libopus", 48_000),
    ("mp3", "libmp3lame", 44_100),
    ("ipod", "aac", 44_100),
    ("mp4", "aac", 48_000),
    ("adts", "aac", 16_000),
    ("aiff", "pcm_s16be", 22_050),
    ("caf", "pcm_s16le", 16_000),
]


@pytest.mark.parametrize(("container", "codec", "rate_hz"), FILES)
def test_every_common_file_becomes_the_same_sound(container, codec, rate_hz):
    chunk = decoded(encode_file(tone(440, 6, rate_hz=rate_hz), container, codec, rate_hz=rate_hz))
    assert chunk.waveform.dtype == np.float32
    assert chunk.waveform.ndim == 1
    assert chunk.duration_s == pytest.approx(6.0, abs=0.1)
    assert pitch_hz(chunk.waveform) == pytest.approx(440, abs=2)
    assert measure_quality(chunk.waveform).rms_dbfs == pytest.approx(-9.0, abs=0.7)
    assert chunk.warnings == ()


@pytest.mark.parametrize(("container", "codec", "rate_hz"), FILES)
def test_no_codec_moves_the_sound(container, codec, rate_hz):
    random = np.random.default_rng(7)
    at_8_khz = np.concatenate([np.zeros(8_000), 0.2 * random.standard_normal(16_000), np.zeros(8_000)])
    original, sound = (resample_poly(at_8_khz, to_hz, 8_000) for to_hz in (16_000, rate_hz))
    chunk = decoded(encode_file(sound, container, codec, rate_hz=rate_hz))
    likeness = correlate(chunk.waveform, original, method="fft")
    late_s = (int(np.argmax(likeness)) - (original.size - 1)) / 16_000
    if container == "adts":  # has no place to write the delay: a frame of 1024 samples, and what fills the last one
        assert late_s == pytest.approx(1024 / rate_hz, abs=0.002)
        assert chunk.duration_s == pytest.approx(4.0, abs=0.15)
    else:
        assert late_s == pytest.approx(0.0, abs=0.002)
        is_filled_up = (container, codec) == ("wav", "libmp3lame")  # its last frame: a WAV cannot say how far
        assert chunk.duration_s == pytest.approx(4.0, abs=0.1 if is_filled_up else 0.002)


@pytest.mark.parametrize(
    ("encoding", "to_bytes"),
    [
        ("pcm_s16le", as_pcm16),
        ("pcm_u8", lambda samples: np.round(samples * 127 + 128).astype(np.uint8).tobytes()),
        ("pcm_f32le", lambda samples: samples.astype("<f4").tobytes()),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_raw_samples_are_read_as_declared(encoding, to_bytes, channels):
    samples = np.repeat(tone(440, 3, rate_hz=8_000), channels)
    chunk = decoded(to_bytes(samples), encoding=encoding, sample_rate=8_000, channels=channels)
    assert chunk.duration_s == pytest.approx(3.0, abs=0.01)
    assert pitch_hz(chunk.waveform) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("law", ["pcm_mulaw", "pcm_alaw"])
def test_telephone_companding_is_undone(law):
    file = encode_file(tone(440, 3, rate_hz=8_000), "wav", law, rate_hz=8_000)
    start = file.index(b"data") + 8
    chunk = decoded(file[start:], encoding=law, sample_rate=8_000, channels=1)
    assert chunk.duration_s == pytest.approx(3.0, abs=0.02)
    assert measure_quality(chunk.waveform).peak == pytest.approx(0.5, abs=0.05)


def test_the_bytes_decide_what_a_file_is_not_its_declared_encoding():
    chunk = decoded(as_wav(tone(440, 2)), encoding="mp3")
    assert pitch_hz(chunk.waveform) == pytest.approx(440, abs=2)


BAD = [
    ("no bytes", b"", FailureCode.AUDIO_EMPTY),
    ("a header without samples", as_wav(np.zeros(0)), FailureCode.AUDIO_EMPTY),
    ("half a header", as_wav(tone(440, 1))[:30], FailureCode.AUDIO_UNDECODABLE),
    ("text", b"dear diary, today " * 100, FailureCode.AUDIO_UNDECODABLE),
    ("zeros", bytes(10_000), FailureCode.AUDIO_UNDECODABLE),
    ("noise", np.random.default_rng(1).bytes(50_000), FailureCode.AUDIO_UNDECODABLE),
    ("noise that begins as MP3", b"\xff\xfb" + np.random.default_rng(2).bytes(50_000), FailureCode.AUDIO_UNDECODABLE),
    ("noise that begins as Ogg", b"OggS" + np.random.default_rng(3).bytes(50_000), FailureCode.AUDIO_UNDECODABLE),
    ("noise that begins as FLAC", b"fLaC" + np.random.default_rng(4).bytes(50_000), FailureCode.AUDIO_UNDECODABLE),
    ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(1000), FailureCode.AUDIO_UNDECODABLE),
    ("a playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", FailureCode.AUDIO_UNDECODABLE),
    ("one byte", b"R", FailureCode.AUDIO_UNDECODABLE),
]


@pytest.mark.parametrize(("data", "code"), [pytest.param(data, code, id=name) for name, data, code in BAD])
def test_what_is_no_audio_is_refused_with_its_code(data, code):
    with pytest.raises(AudioError) as caught:
        decoded(data)
    assert caught.value.code is code
    assert str(caught.value)


def test_a_fragment_of_a_stream_without_its_beginning_is_told_as_what_it_is():
    """Safari records such: one beginning, then fragments; each of them is a file only behind that beginning."""
    stream = encoded("mp4", "aac", movflags="frag_keyframe+empty_moov+default_base_moof", frag_duration="1000000")
    begin, *fragments = stream.split(b"moof")
    size, begin = begin[-4:], begin[:-4]
    fragment = size + b"moof" + fragments[0][:-4]
    assert decoded(begin + fragment).duration_s > 0.9
    with pytest.raises(AudioError, match="a fragment of an MP4 without its beginning, ftyp and moov"):
        decoded(fragment)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
    ("container", "codec"),
    [("flac", "flac"), ("ogg", "libopus"), ("ipod", "aac"), ("webm", "libopus"), ("mp3", "libmp3lame")],
)
def test_a_damaged_file_gives_samples_or_an_audio_error_and_nothing_else(container, codec, seed):
    file = bytearray(encode_file(tone(440, 2), container, codec, rate_hz=16_000))
    random = np.random.default_rng(seed)
    for position in random.integers(0, len(file), 20):
        file[position] = random.integers(0, 256)
    try:
        chunk = decoded(bytes(file[: random.integers(1, len(file))]), max_s=60)
    except AudioError:
        return
    assert 0 < chunk.duration_s <= 60
    assert np.isfinite(chunk.waveform).all()


def test_a_file_cut_off_is_used_and_reported():
    whole = as_wav(tone(440, 10))
    chunk = decoded(whole[: len(whole) // 2])
    assert chunk.duration_s == pytest.approx(5.0, abs=0.1)
    assert chunk.warnings == (f"audio.truncated: {len(whole) - len(whole) // 2} bytes are missing",)


@pytest.mark.parametrize("claimed", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_streamed_wav_whose_header_never_learnt_its_length_is_whole(claimed):
    chunk = decoded(as_wav(tone(440, 3), data_bytes=claimed))
    assert chunk.duration_s == pytest.approx(3.0, abs=0.01)
    assert chunk.warnings == ()


def test_a_small_file_cannot_become_long_audio():
    hour = encode_file(np.zeros(3600 * 16_000, dtype=np.float32), "flac", "flac")
    assert len(hour) < 1_000_000  # as samples: 115 MB
    with pytest.raises(AudioError) as caught:
        decoded(hour, max_s=600)
    assert caught.value.code is FailureCode.AUDIO_TOO_LONG


def test_a_sample_rate_that_would_stretch_a_file_without_end_is_refused():
    with pytest.raises(AudioError) as caught:
        decoded(as_wav(tone(440, 2), rate_hz=1))
    assert caught.value.code is FailureCode.AUDIO_UNDECODABLE


def test_channels_in_anti_phase_are_heard():
    left = tone(440, 3)
    chunk = decoded(as_wav(np.stack([left, -left], axis=1).ravel(), channels=2))
    assert measure_quality(chunk.waveform).peak == pytest.approx(0.5, abs=0.02)
    assert chunk.warnings == ("audio.antiphase",)


@pytest.mark.parametrize("channels", [2, 6, 8, 16])
def test_one_channel_in_use_is_no_anti_phase(channels):
    samples = np.zeros((16_000, channels), dtype=np.float32)
    samples[:, channels - 1] = tone(440, 1)
    chunk = decoded(as_pcm16(samples.ravel()), encoding="pcm_s16le", sample_rate=16_000, channels=channels)
    assert chunk.warnings == ()
    assert pitch_hz(chunk.waveform) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    ("container", "codec", "layout"),
    [("ogg", "libopus", "7.1"), ("mp4", "aac", "7.1")],
)
def test_eight_channels_of_a_codec_end_no_process(container, codec, layout):
    sound = np.zeros((8, 96_000), dtype=np.float32)
    sound[2] = tone(440, 2, rate_hz=48_000)
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48_000, layout=layout)
        interleaved = np.ascontiguousarray(sound.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = 48_000
        resampler = av.AudioResampler("fltp", layout, 48_000, frame_size=stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(piece))
    chunk = decoded(target.getvalue())
    assert chunk.duration_s == pytest.approx(2.0, abs=0.1)
    assert pitch_hz(chunk.waveform) == pytest.approx(440, abs=2)


def test_samples_that_are_no_numbers_are_silenced_and_reported():
    samples = tone(440, 3)
    samples[1000:1010], samples[2000] = np.nan, np.inf
    chunk = decoded(as_float_wav(samples))
    assert np.isfinite(chunk.waveform).all()
    assert "audio.not_finite" in chunk.warnings
    assert pitch_hz(chunk.waveform) == pytest.approx(440, abs=2)


def test_float_samples_never_scaled_are_scaled_and_reported():
    chunk = decoded(as_float_wav(tone(440, 3) * 32768))
    assert measure_quality(chunk.waveform).peak == pytest.approx(1.0, abs=0.01)
    assert "audio.rescaled" in chunk.warnings


@pytest.mark.parametrize("scale", [1.0, 32_768.0])
@pytest.mark.parametrize("stray", [20.0, -3e38])
def test_a_stray_sample_does_not_silence_all_others(scale, stray):
    samples = tone(440, 3) * scale
    samples[1000] = stray * scale if abs(stray * scale) < 3e38 else stray
    chunk = decoded(as_float_wav(samples))
    assert measure_quality(chunk.waveform).rms_dbfs > -10
    assert chunk.waveform[1000] == pytest.approx(np.sign(stray) * measure_quality(chunk.waveform).peak, abs=0.02)
    assert chunk.warnings[0].startswith("audio.strays_cut: 1, of up to ")


@pytest.mark.parametrize(("level", "warned"), [(3.0, True), (0.9, False)])
def test_flat_tops_are_reported(level, warned):
    chunk = decoded(as_wav(np.clip(tone(200, 2, level=level), -1, 1)))
    assert [warning.split(":")[0] for warning in warnings_of(chunk)] == (["audio.clipped"] if warned else [])


@pytest.mark.parametrize(("level", "warned"), [(0.002, True), (0.01, False)])
def test_a_recording_too_quiet_for_the_networks_is_reported(level, warned):
    chunk = decoded(as_float_wav(tone(200, 2, level=level)))
    assert warnings_of(chunk) == (("audio.quiet: peak of -54 dBFS",) if warned else ())


def test_clipping_is_measured():
    clean, clipped = tone(200, 2), np.clip(tone(200, 2, level=3.0), -1, 1)
    assert measure_quality(decoded(as_wav(clean)).waveform).clipped_ratio == 0
    assert measure_quality(decoded(as_wav(clipped)).waveform).clipped_ratio > 0.5


def test_silence_has_a_level_that_a_message_can_hold():
    quality = measure_quality(np.zeros(16_000, dtype=np.float32))
    assert (quality.peak, quality.clipped_ratio, quality.rms_dbfs) == (0.0, 0.0, -400.0)


class TestJoining:
    @staticmethod
    def seconds(count: float, level: float = 0.5) -> np.ndarray:
        return np.full(round(count * 16_000), level, dtype=np.float32)

    def test_chunks_without_a_start_follow_each_other(self):
        joined, placed, warnings = join_chunks([(self.seconds(2), None), (self.seconds(3), None)], max_s=60)
        assert joined.size == 5 * 16_000
        assert [(span.start_s, span.duration_s) for span in placed] == [(0, 2), (2, 3)]
        assert warnings == ()

    @pytest.mark.parametrize("start_s", [1.6, 1.99, 2.0, 2.3, 2.5])
    def test_a_small_gap_or_overlap_is_butted(self, start_s):
        joined, placed, _ = join_chunks([(self.seconds(2), 0.0), (self.seconds(3), start_s)], max_s=60)
        assert joined.size == 5 * 16_000
        assert placed[1].start_s == 2.0

    def test_a_longer_gap_is_silence(self):
        joined, placed, _ = join_chunks([(self.seconds(2), 0.0), (self.seconds(3), 4.0)], max_s=60)
        assert placed[1].start_s == 4.0
        assert not joined[2 * 16_000 : 4 * 16_000].any()
        assert joined[4 * 16_000 :].all()
        assert joined.size == 7 * 16_000

    def test_a_long_overlap_loses_no_audio_and_is_reported(self):
        joined, placed, warnings = join_chunks([(self.seconds(5), 0.0), (self.seconds(5), 1.0)], max_s=60)
        assert joined.size == 10 * 16_000
        assert placed[1].start_s == 5.0
        assert warnings == ("audio.chunks_overlap",)

    def test_a_timeline_past_the_limit_is_refused_before_it_is_built(self):
        with pytest.raises(AudioError) as caught:
            join_chunks([(self.seconds(1), 0.0), (self.seconds(1), 1e6)], max_s=3600)
        assert caught.value.code is FailureCode.AUDIO_TOO_LONG


@pytest.mark.shared
def test_a_placeholder_for_an_unknown_length_is_no_truncated_file(shared_dir):
    data = (shared_dir / "cases" / "wav_data_size_2e9" / "a.wav").read_bytes()
    decoded = decode(io.BytesIO(data), max_s=600.0)
    assert decoded.duration_s > 1.0
    assert decoded.warnings == ()


def test_part_of_a_sample_at_the_end_of_raw_samples_is_counted():
    raw = as_pcm16(tone(440, 1)) + b"\x01"
    chunk = decode(io.BytesIO(raw), encoding="pcm_s16le", sample_rate=16_000, channels=1, max_s=60.0)
    assert chunk.waveform.size == 16_000
    assert chunk.warnings == ("audio.cut_in_sample: 1 bytes; what goes on there in the next chunk is misread",)
