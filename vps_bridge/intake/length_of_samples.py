"""How long the samples are in a WAV, AIFF or CAF file: their bytes are counted, not what the header claims.

A program that writes to a pipe does not know the length and claims anything. Formats of the headers: Microsoft and IBM,
"Multimedia Programming Interface and Data Specifications 1.0" (RIFF); EBU Tech 3306 (RF64); Apple, "Audio Interchange
File Format AIFF-C" and "Core Audio Format Specification 1.0".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Literal

from vps_bridge.intake.measured_length import AudioLength, extrapolate

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 1_000, 768_000  # as in the contract
UNKNOWN_BYTES = 0xFFFFFFFF  # or the true size stands in a chunk `ds64`
MAX_CHUNKS = 100  # of one file
MAX_FILES = 200  # in one body
_PLAIN_WAV = (1, 3, 6, 7, 0xFFFE)  # PCM, IEEE float, A-law, mu-law, and any of them with an extension
_PLAIN_AIFF = (b"NONE", b"twos", b"sowt", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
_CAF_HEAD_BYTES, _CAF_EDIT_COUNT_BYTES = 8, 4
_RIFF_HEAD_BYTES = 12
_Order = Literal["little", "big"]


def measure_wav(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of a WAV file, or of several that follow each other; None where no header is whole."""
    seconds, is_estimated, position = 0.0, False, start
    for _ in range(MAX_FILES):
        found = _measure_one_wav(file, position, size)
        if found is None:
            break
        length, position = found
        seconds, is_estimated = seconds + length.duration_s, is_estimated or length.is_estimated
        file.seek(min(position, size))
        head = file.read(_RIFF_HEAD_BYTES)
        if head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or head[8:] != b"WAVE":
            break
    else:
        return extrapolate(seconds, position - start, size - start)
    return AudioLength(seconds, is_estimated) if seconds else None


def _measure_one_wav(file: BinaryIO, start: int, size: int) -> tuple[AudioLength, int] | None:
    """Return the length of the WAV file that begins at `start`, and where its samples end."""
    file.seek(start)
    order: _Order = "big" if file.read(4) == b"RIFX" else "little"
    bytes_per_s, is_estimated, long_size = 0, False, 0
    for name, body, length in _chunks(file, start + _RIFF_HEAD_BYTES, size, order):
        if name == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
        elif name == b"fmt ":
            bytes_per_s, is_estimated = _wav_byte_rate(file.read(16), order)
        elif name == b"data":
            claimed = long_size if length == UNKNOWN_BYTES and long_size else length
            there = max(0, size - body)
            data_bytes = claimed if 0 < claimed < there else there
            end = body + data_bytes + data_bytes % 2
            return (AudioLength(data_bytes / bytes_per_s, is_estimated), end) if bytes_per_s else None
    return None


def _wav_byte_rate(description: bytes, order: _Order) -> tuple[int, bool]:
    """Return the bytes a second, 0 where the header contradicts itself, and whether that is only their mean."""
    if len(description) < 16:  # noqa: PLR2004 - without extension
        return 0, False
    kind, channels, rate, mean, block, _ = struct.unpack("<HHIIHH" if order == "little" else ">HHIIHH", description)
    if not (channels and MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ):
        return 0, False
    return (rate * block, False) if kind in _PLAIN_WAV else (mean, True)


def measure_aiff(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of an AIFF or AIFF-C file of plain samples; None of others."""
    bytes_per_s = 0.0
    for name, body, length in _chunks(file, start + _RIFF_HEAD_BYTES, size, "big"):
        if name == b"COMM":
            bytes_per_s = _aiff_byte_rate(file.read(22))
        elif name == b"SSND" and bytes_per_s:
            there = max(0, size - body - 8)
            return AudioLength((length - 8 if 8 < length < there else there) / bytes_per_s)  # noqa: PLR2004 - offset, block size
    return None


def _aiff_byte_rate(description: bytes) -> float:
    if len(description) < 18 or (len(description) == 22 and description[18:] not in (*_PLAIN_AIFF, b"SSND")):  # noqa: PLR2004
        return 0.0
    channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", description[:18])
    rate = float(mantissa) * 2.0 ** (min(exponent & 0x7FFF, 16_383 + 63) - 16_383 - 63)  # an 80-bit float
    return channels * ((bits + 7) // 8) * rate if MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ else 0.0


def measure_caf(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of a CAF file: counted where all packets are alike, else as its packet table claims."""
    position, rate, packet_bytes, packet_frames = start + _CAF_HEAD_BYTES, 0.0, 0, 0
    claimed: AudioLength | None = None
    for _ in range(MAX_CHUNKS):
        file.seek(min(position, size))
        head = file.read(12)
        if len(head) < 12:  # noqa: PLR2004 - name and length
            break
        name, length, body = head[:4], int.from_bytes(head[4:], "big", signed=True), position + 12
        if name == b"desc":
            rate, packet_bytes, packet_frames = struct.unpack(">d8xII", file.read(24).ljust(24, b"\0"))
            if not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
                return None
        elif name == b"pakt" and rate:
            claimed = AudioLength(int.from_bytes(file.read(16)[8:], "big") / rate, is_estimated=True)
        elif name == b"data" and packet_bytes and rate:
            data_bytes = (length if 0 < length <= size - body else size - body) - _CAF_EDIT_COUNT_BYTES
            return AudioLength(max(0, data_bytes) / packet_bytes * packet_frames / rate)
        if length < 0:
            break
        position = body + length
    return claimed


def _chunks(file: BinaryIO, position: int, size: int, order: _Order) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, place and stated length of each chunk's content; the file stands at its beginning."""
    for _ in range(MAX_CHUNKS):
        file.seek(min(position, size))
        head = file.read(8)
        if len(head) < 8 or position >= size:  # noqa: PLR2004 - name and length
            return
        length = int.from_bytes(head[4:], order)
        yield head[:4], position + 8, length
        position += 8 + length + length % 2
