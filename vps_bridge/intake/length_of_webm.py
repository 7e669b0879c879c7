"""How long a WebM or Matroska file is: the times of its audio blocks. A browser writes no duration.

Formats: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from vps_bridge.intake.measured_length import MAX_STEPS, AudioLength, extrapolate

_HEADER, _SEGMENT, _INFO, _SCALE, _CLUSTER, _TIME = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x2AD7B1, 0x1F43B675, 0xE7
_TRACKS, _TRACK, _NUMBER, _TYPE, _GROUP, _BLOCK, _SIMPLE_BLOCK = 0x1654AE6B, 0xAE, 0xD7, 0x83, 0xA0, 0xA1, 0xA3
_PARENTS = {_HEADER, _SEGMENT, _INFO, _CLUSTER, _TRACKS, _TRACK, _GROUP}
_AUDIO_TYPE = 2
DEFAULT_SCALE_NS = 1_000_000


@dataclass
class _WebmTrack:
    number: int = 0
    is_audio: bool = False
    blocks: int = 0
    first: int = 0
    last: int = 0

    def note(self, time: int) -> None:
        self.first = time if self.blocks == 0 else self.first
        self.last, self.blocks = max(self.last, time), self.blocks + 1

    @property
    def units(self) -> float:
        """From the first block's begin to the last one's end; the last lasts as long as the others on the mean."""
        return (self.last - self.first) * self.blocks / (self.blocks - 1) if self.blocks > 1 else 0.0


@dataclass
class _WebmReading:
    scale_ns: int = DEFAULT_SCALE_NS
    cluster_time: int = 0
    ended_s: float = 0.0
    described: _WebmTrack = field(default_factory=_WebmTrack)
    tracks: dict[int, _WebmTrack] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Of the files so far: of each the longest audio track."""
        units = max((track.units for track in self.tracks.values()), default=0.0)
        return self.ended_s + units * self.scale_ns / 1e9

    def end_file(self) -> None:
        """Take note that what follows is another file."""
        self.ended_s, self.tracks, self.scale_ns = self.seconds, {}, DEFAULT_SCALE_NS

    def read(self, name: int, content: bytes) -> None:
        """Take note of an element that holds no others."""
        if name in (_BLOCK, _SIMPLE_BLOCK) and len(content) > 3:  # noqa: PLR2004 - track, time relative to the cluster's
            number, width = _read_number(content)
            track = self.tracks.get(number)
            if track is not None:
                track.note(self.cluster_time + int.from_bytes(content[width : width + 2], "big", signed=True))
        elif name == _SCALE:
            self.scale_ns = int.from_bytes(content, "big") or DEFAULT_SCALE_NS
        elif name == _TIME:
            self.cluster_time = int.from_bytes(content, "big")
        elif name == _NUMBER:
            self.described.number = int.from_bytes(content, "big")
        elif name == _TYPE:
            self.described.is_audio = int.from_bytes(content, "big") == _AUDIO_TYPE
        if name in (_NUMBER, _TYPE) and self.described.is_audio:
            self.tracks[self.described.number] = self.described


def measure_webm(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of the longest audio track, of several files in one body the sum; None without blocks."""
    reading, position = _WebmReading(), start
    for _ in range(MAX_STEPS):
        file.seek(min(position, size))
        head = file.read(12)
        name, name_width = _read_number(head, keep_marker=True)
        length, width = _read_number(head[name_width:])
        if not name_width or not width or position >= size:
            break
        if name == _HEADER:
            reading.end_file()
        position += name_width + width
        if name in _PARENTS:  # its content is read next, so an unknown length does not matter
            reading.described = _WebmTrack() if name == _TRACK else reading.described
            continue
        if length == (1 << 7 * width) - 1:
            break
        file.seek(min(position, size))
        reading.read(name, file.read(min(length, 10)))
        position += length
    return extrapolate(reading.seconds, position - start, size - start) if reading.seconds else None


def _read_number(data: bytes, *, keep_marker: bool = False) -> tuple[int, int]:
    """Return a number of variable width and its width; 0, 0 where none begins here."""
    width = 9 - data[0].bit_length() if data else 9
    if width > 8 or len(data) < width:  # noqa: PLR2004 - bytes
        return 0, 0
    value = int.from_bytes(data[:width], "big")
    return value if keep_marker else value & (1 << 7 * width) - 1, width
