"""Audio made on the spot: tones, and the files that hold them."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np

from mac_agent.audio import DecodedChunk, judge_quality, measure_quality

RATE_HZ = 16_000
MP3_BITS_PER_S = 64_000  # what recorders write at least; LAME alone would give a channel at 16 kHz a third of it


def warnings_of(chunk: DecodedChunk) -> tuple[str, ...]:
    """What an agent says of a job that has this chunk alone."""
    return (*chunk.warnings, *judge_quality(measure_quality(chunk.waveform), chunk.step))


def tone(pitch_hz: float, seconds: float, *, rate_hz: int = RATE_HZ, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def as_pcm16(samples: np.ndarray) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def as_wav(samples: np.ndarray, *, rate_hz: int = RATE_HZ, channels: int = 1, data_bytes: int | None = None) -> bytes:
    """A 16 bit WAV; `data_bytes` is what its header claims. `samples` are interleaved."""
    data = as_pcm16(samples)
    claimed = len(data) if data_bytes is None else data_bytes
    return _wav_header(1, channels, rate_hz, 16, claimed) + data


def as_float_wav(samples: np.ndarray, *, rate_hz: int = RATE_HZ) -> bytes:
    data = samples.astype("<f4").tobytes()
    return _wav_header(3, 1, rate_hz, 32, len(data)) + data


def _wav_header(sample_format: int, channels: int, rate_hz: int, bits: int, data_bytes: int) -> bytes:
    frame_bytes = channels * bits // 8
    head = struct.pack("<4sI4s", b"RIFF", min(36 + data_bytes, 2**32 - 1), b"WAVE")
    form = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, sample_format, channels, rate_hz, rate_hz * frame_bytes, frame_bytes, bits
    )
    return head + form + struct.pack("<4sI", b"data", data_bytes)


def encode_file(samples: np.ndarray, container: str, codec: str, *, rate_hz: int = RATE_HZ) -> bytes:
    """A file as FFmpeg writes it; `samples` of shape (samples,), or (channels, samples) for one or two channels."""
    planes = np.atleast_2d(samples).astype(np.float32)
    layout = {1: "mono", 2: "stereo"}[len(planes)]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        if codec == "libmp3lame":
            stream.bit_rate = MP3_BITS_PER_S
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format="fltp", layout=layout)
        # Without a time of its first sample no container can say how much of what it holds is the codec's delay.
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        resampler = av.AudioResampler(format=stream.format, rate=stream.rate, layout=layout)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(piece):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return file.getvalue()
