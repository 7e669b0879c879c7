"""How long an M4A, MP4 or QuickTime file is: its tables of samples are summed, of fragments too.

Format: ISO/IEC 14496-12. The header's own duration tells nothing of fragments, nor of a second file behind the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from vps_bridge.intake.measured_length import MAX_STEPS, AudioLength

_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf"}
_TABLES = {b"tkhd", b"mdhd", b"hdlr", b"stts", b"trex", b"tfhd", b"trun"}
_MAX_TABLE_BYTES = 160_000  # 20,000 entries; all samples of a recording mostly last alike, and have one


@dataclass
class _Mp4Track:
    number: int = 0
    is_audio: bool = False
    units_per_s: int = 0
    units: int = 0
    default_units: int = 0


@dataclass
class _Mp4Reading:
    ended_s: float = 0.0
    tracks: list[_Mp4Track] = field(default_factory=list)
    fragment: _Mp4Track | None = None
    fragment_units: int = 0

    def end_file(self) -> None:
        """Take note that what follows is another file."""
        self.ended_s, self.tracks, self.fragment = self.seconds, [], None

    @property
    def seconds(self) -> float:
        """Of the files so far: of each the longest audio track."""
        found = (track.units / track.units_per_s for track in self.tracks if track.is_audio and track.units_per_s)
        return self.ended_s + max(found, default=0.0)

    def read(self, name: bytes, content: bytes) -> None:
        """Take note of a box that holds no others; a damaged one raises `struct.error` or `IndexError`."""
        track = self.tracks[-1] if self.tracks else _Mp4Track()
        if name == b"tkhd":
            track.number = _unsigned(content, 20 if content[0] else 12)
        elif name == b"mdhd":
            track.units_per_s = _unsigned(content, 20 if content[0] else 12)
        elif name == b"hdlr":
            track.is_audio = track.is_audio or content[8:12] == b"soun"
        elif name == b"stts":
            track.units += sum(count * units for count, units in _pairs(content))
        elif name == b"trex":
            self._find(_unsigned(content, 4)).default_units = _unsigned(content, 12)
        elif name == b"tfhd":
            self.fragment, flags = self._find(_unsigned(content, 4)), _unsigned(content, 0)
            place = 8 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0)
            self.fragment_units = _unsigned(content, place) if flags & 8 else self.fragment.default_units
        elif name == b"trun" and self.fragment is not None:
            self.fragment.units += _run_units(content, self.fragment_units)

    def _find(self, number: int) -> _Mp4Track:
        return next((track for track in self.tracks if track.number == number), _Mp4Track())


def measure_mp4(file: BinaryIO, start: int, size: int) -> AudioLength | None:
    """Return the length of the longest audio track; of several files in one body the sum. None where none is known."""
    reading = _Mp4Reading()
    has_movie = has_fragments = False
    kept_ratio = 1.0  # of the samples, where the file is cut off
    try:
        for name, content, kept in _boxes(file, start, size):
            if name == b"moov" and has_movie:
                reading.end_file()
            has_movie = has_movie or name == b"moov"
            has_fragments = has_fragments or name == b"moof"
            if name == b"mdat" and not has_fragments:
                kept_ratio = min(kept_ratio, kept)
            if name == b"trak":
                reading.tracks.append(_Mp4Track())
            reading.read(name, content)
    except (struct.error, IndexError):
        return AudioLength(reading.seconds, is_estimated=True) if reading.seconds else None
    return AudioLength(reading.seconds * kept_ratio, is_estimated=kept_ratio < 1.0) if reading.seconds else None


def _boxes(file: BinaryIO, position: int, size: int) -> Iterator[tuple[bytes, bytes, float]]:
    """Yield name, content (of tables only) and the share that is there of every box; parents before what they hold."""
    for _ in range(MAX_STEPS):
        file.seek(min(position, size))
        head = file.read(8)
        if len(head) < 8 or position >= size:  # noqa: PLR2004 - length and name
            return
        length, name, head_bytes = int.from_bytes(head[:4], "big"), head[4:], 8
        if length == 1:
            length, head_bytes = int.from_bytes(file.read(8), "big"), 16
        elif length == 0:  # up to the end of the file
            length = size - position
        if length < head_bytes:
            return
        content = file.read(min(length - head_bytes, _MAX_TABLE_BYTES)) if name in _TABLES else b""
        yield name, content, min(1.0, (size - position) / length)
        position += head_bytes if name in _PARENTS else length


def _unsigned(content: bytes, place: int) -> int:
    return int(struct.unpack_from(">I", content, place)[0])


def _pairs(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield how many samples last how long."""
    whole = (len(content) - 8) // 8 * 8
    yield from struct.iter_unpack(">II", content[8 : 8 + min(whole, 8 * _unsigned(content, 4))])


def _run_units(content: bytes, default_units: int) -> int:
    """Return how long the samples of a fragment's run are together."""
    flags, count = _unsigned(content, 0), _unsigned(content, 4)
    if not flags & 0x100:
        return count * default_units
    place = 8 + (4 if flags & 1 else 0) + (4 if flags & 4 else 0)
    width = 4 * ((flags >> 8 & 15).bit_count())
    whole = content[place : place + min(count, MAX_STEPS) * width]
    return sum(_unsigned(whole, offset) for offset in range(0, len(whole) - width + 1, width))
