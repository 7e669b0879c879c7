"""Cutting a stretch out of kept audio: samples get a WAV header. Nothing is decoded; a file of any other kind stays."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from schemas.audio import RAW_SAMPLE_BYTES

MAX_CUT_S = 600.0
_WAV_HEAD_BYTES, _CHUNK_HEAD_BYTES, _FORMAT_BYTES = 12, 8, 16
_MAX_WAV_CHUNKS = 50  # before the samples
_KINDS = {"pcm_s16le": 1, "pcm_u8": 1, "pcm_f32le": 3, "pcm_alaw": 6, "pcm_mulaw": 7}
"""As WAV numbers them: PCM, IEEE float, A-law, mu-law (Microsoft and IBM, "Multimedia Programming Interface 1.0")."""
_PLAIN = (1, 3, 6, 7)
_MAX_SAMPLE_BYTES, _MAX_BYTES_PER_S = 8, 2**32 - 1  # more does not fit a header


@dataclass(frozen=True)
class Samples:
    """Where samples lie in a file, and what they are."""

    kind: int
    channels: int
    rate_hz: int
    frame_bytes: int
    """Of one sample of all channels."""
    first_byte: int
    end_byte: int


def find_samples(path: Path, encoding: str, rate_hz: int | None, channels: int | None) -> Samples | None:
    """Return where a chunk's samples lie; None where it is no raw encoding and no plain WAV file."""
    size = path.stat().st_size
    if encoding in RAW_SAMPLE_BYTES and rate_hz and channels:
        return Samples(_KINDS[encoding], channels, rate_hz, RAW_SAMPLE_BYTES[encoding] * channels, 0, size)
    with path.open("rb") as file:
        return _find_in_wav(file, size)


def _find_in_wav(file: BinaryIO, size: int) -> Samples | None:
    head = file.read(_WAV_HEAD_BYTES)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    described: tuple[int, int, int, int] | None = None
    position = _WAV_HEAD_BYTES
    for _ in range(_MAX_WAV_CHUNKS):
        file.seek(position)
        chunk = file.read(_CHUNK_HEAD_BYTES)
        if len(chunk) < _CHUNK_HEAD_BYTES:
            return None
        name, length, body = chunk[:4], int.from_bytes(chunk[4:], "little"), position + _CHUNK_HEAD_BYTES
        if name == b"fmt ":
            kind, channels, rate_hz, _, frame_bytes, _ = struct.unpack("<HHIIHH", file.read(_FORMAT_BYTES).ljust(16))
            described = (kind, channels, rate_hz, frame_bytes)
        elif name == b"data" and described is not None:
            samples = Samples(*described, body, min(size, body + length) if length else size)
            return samples if _is_plain(samples) else None
        position = body + length + length % 2
    return None


def _is_plain(samples: Samples) -> bool:
    """Whether samples can be cut, and a header can be written that says what they are."""
    if samples.kind not in _PLAIN or not samples.channels or not samples.rate_hz:
        return False
    sample_bytes, rest = divmod(samples.frame_bytes, samples.channels)
    is_whole = 0 < sample_bytes <= _MAX_SAMPLE_BYTES and rest == 0
    return is_whole and samples.rate_hz * samples.frame_bytes <= _MAX_BYTES_PER_S


def cut_wav(path: Path, samples: Samples, from_s: float, to_s: float) -> bytes:
    """Return a stretch of a file's samples as a WAV file, at most `MAX_CUT_S` of it."""
    first = _frame_at(samples, from_s)
    last = max(first, _frame_at(samples, min(to_s, from_s + MAX_CUT_S)))
    with path.open("rb") as file:
        file.seek(first)
        data = file.read(last - first)
    bits = samples.frame_bytes // samples.channels * 8
    rates = (samples.rate_hz, samples.rate_hz * samples.frame_bytes, samples.frame_bytes, bits)
    described = struct.pack("<4sIHHIIHH", b"fmt ", _FORMAT_BYTES, samples.kind, samples.channels, *rates)
    body = b"WAVE" + described + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def _frame_at(samples: Samples, moment_s: float) -> int:
    """Return the byte at which the frame of a moment begins, within the samples."""
    wanted = samples.first_byte + round(max(0.0, moment_s) * samples.rate_hz) * samples.frame_bytes
    whole = (samples.end_byte - samples.first_byte) // samples.frame_bytes * samples.frame_bytes
    return min(wanted, samples.first_byte + whole)
