"""Which line of a transcript a segment was: a new transcription may give its id to another one."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vps_bridge.conversations.store import StoredSegment, is_same_place

SAME_EXTENT_S = 0.5


@dataclass(frozen=True)
class KeptLine:
    """Which line of the transcript a segment was when something was said or written about it."""

    span: tuple[float, float]
    text_sum: int
    """A checksum: the text itself is kept in one place only, the conversation store."""

    @classmethod
    def of(cls, segment: StoredSegment) -> KeptLine:
        """Return a segment's line."""
        return cls((segment.start_s, segment.end_s), zlib.crc32(segment.text.encode()))

    def is_still(self, segment: StoredSegment) -> bool:
        """Whether the segment is the same line: it lies where it lay, or says what it said."""
        now = KeptLine.of(segment)
        return is_same_place(self.span, now.span) or (bool(segment.text) and self.text_sum == now.text_sum)


def other_lines(lines: Mapping[str, KeptLine], segments: Iterable[StoredSegment]) -> set[str]:
    """Return the ids of the segments that are other lines now."""
    return {one.id for one in segments if one.id in lines and not lines[one.id].is_still(one)}


def is_same_extent(before: tuple[float, float], now: tuple[float, float]) -> bool:
    """Whether a line begins and ends where it did, as far as speech-to-text says that the same twice."""
    return all(abs(one - other) <= SAME_EXTENT_S for one, other in zip(before, now, strict=True))


class LinesNow:
    """The segments that there are now, and which of them a line is that was kept."""

    def __init__(self, segments: Iterable[StoredSegment]) -> None:
        """Look among these."""
        self.segments = {segment.id: segment for segment in segments}
        self._by_text: dict[int, list[StoredSegment]] = {}
        for segment in self.segments.values():
            if segment.text:
                self._by_text.setdefault(KeptLine.of(segment).text_sum, []).append(segment)
        self._in_order = sorted(self.segments.values(), key=lambda one: one.start_s)
        self._starts = [one.start_s for one in self._in_order]
        self._longest_s = max((one.end_s - one.start_s for one in self._in_order), default=0.0)

    def find(self, names: Iterable[str], lines: Mapping[str, KeptLine]) -> tuple[str, ...]:
        """Return the ids that these lines have now; what is not kept of is as it was.

        A line is that of its own id while it says the same or lies in the same place, else one that says the same.
        Where lines still lie where they lay, whatever else lies with most of its length where these did is cut out of
        them, or joined of them.
        """
        found, recut = list[str](), list[tuple[float, float]]()
        for name in names:
            line = lines.get(name)
            now = (name,) if line is None else self._find_whole(name, line)
            found += now
            if line is not None and not any(is_same_extent(line.span, self._span(one)) for one in now):
                recut.append(line.span)
        if recut and self._lie_where_they_lay(lines):
            found += self._find_parts(recut)
        return tuple(dict.fromkeys(found))

    def _span(self, name: str) -> tuple[float, float]:
        return self.segments[name].start_s, self.segments[name].end_s

    def _find_whole(self, name: str, line: KeptLine) -> tuple[str, ...]:
        same = self.segments.get(name)
        if same is not None and line.is_still(same):
            return (name,)
        alike = self._by_text.get(line.text_sum, [])
        there = [one for one in alike if is_same_place(line.span, (one.start_s, one.end_s))]
        return tuple(one.id for one in (there or (alike if len(alike) == 1 else [])))

    def _lie_where_they_lay(self, lines: Mapping[str, KeptLine]) -> bool:
        """Whether lines that say what they said are in the same place, and none is elsewhere alone."""
        alike = [(line, self._by_text.get(line.text_sum, [])) for line in lines.values()]
        there = [
            any(is_same_place(line.span, (one.start_s, one.end_s)) for one in found) for line, found in alike if found
        ]
        return bool(there) and all(there)

    def _find_parts(self, spans: Iterable[tuple[float, float]]) -> list[str]:
        shared_s: dict[str, float] = {}
        for start_s, end_s in spans:
            first, last = bisect_left(self._starts, start_s - self._longest_s), bisect_left(self._starts, end_s)
            for one in self._in_order[first:last]:
                part_s = min(end_s, one.end_s) - max(start_s, one.start_s)
                shared_s[one.id] = shared_s.get(one.id, 0.0) + max(0.0, part_s)
        return [name for name, part_s in shared_s.items() if part_s > (self._span(name)[1] - self._span(name)[0]) / 2]


def lines_to_json(lines: Mapping[str, KeptLine]) -> dict[str, tuple[float, float, int]]:
    """Return lines as JSON has them."""
    return {name: (*line.span, line.text_sum) for name, line in lines.items()}


def lines_from_json(kept: Mapping[str, tuple[float, float, int]]) -> dict[str, KeptLine]:
    """Read what `lines_to_json` returned."""
    return {name: KeptLine((start_s, end_s), text_sum) for name, (start_s, end_s, text_sum) in kept.items()}
