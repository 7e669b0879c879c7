"""How long an Ogg file is: the positions that its pages state, of every stream in it.

Formats: RFC 3533 (Ogg), RFC 7845 (Opus in Ogg), the Vorbis I specification, RFC 9639 (FLAC in Ogg), the Speex manual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from vps_bridge.intake.measured_length import MAX_STEPS, AudioLength, extrapolate

_PAGE_HEAD_BYTES = 27
_NO_POSITION = 0xFFFFFFFFFFFFFFFF  # no packet ends on the page
_FIRST_PAGE = 2
OPUS_RATE_HZ = 48_000  # of positions, whatever the sample rate
MAX_FIRST_PAGE_S = 20.0  # 255 packets of 60 ms end on a page; a first position beyond that is cut out of a recording


@dataclass
class _OggStream:
    rate_hz: int
    first: int | None = None
    last: int = 0

    @property
    def seconds(self) -> float:
        """From its first sample, or from the first position where it begins in the midst of a recording."""
        first = self.first or 0
        return max(0, self.last - (first if first > MAX_FIRST_PAGE_S * self.rate_hz else 0)) / self.rate_hz


def measure_ogg(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of all audio streams of an Ogg file, one after another; None where none is known."""
    streams: dict[bytes, _OggStream] = {}
    ended_s, position = 0.0, start
    for _ in range(MAX_STEPS):
        file.seek(min(position, size))
        head = file.read(_PAGE_HEAD_BYTES)
        if len(head) < _PAGE_HEAD_BYTES or head[:4] != b"OggS":
            break
        sizes = file.read(head[26])
        serial, granule = head[14:18], int.from_bytes(head[6:14], "little")
        if head[5] & _FIRST_PAGE:
            if serial in streams:  # the same file twice in one body
                ended_s += streams.pop(serial).seconds
            rate_hz = _sample_rate(file.read(64))
            if rate_hz:
                streams[serial] = _OggStream(rate_hz)
        elif serial in streams and 0 < granule < _NO_POSITION:
            stream = streams[serial]
            stream.first = granule if stream.first is None else stream.first
            stream.last = granule
        position += _PAGE_HEAD_BYTES + len(sizes) + sum(sizes)
    seconds = ended_s + sum(stream.seconds for stream in streams.values())
    return extrapolate(seconds, position - start, size - start) if seconds else None


def _sample_rate(packet: bytes) -> int:
    """Return what positions of a stream with this first packet count in a second; 0 where it is no known audio."""
    if packet.startswith(b"OpusHead"):
        return OPUS_RATE_HZ
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little")
    if packet.startswith(b"\x7fFLAC"):
        return int.from_bytes(packet[27:30], "big") >> 4
    return int.from_bytes(packet[36:40], "little") if packet.startswith(b"Speex   ") else 0
