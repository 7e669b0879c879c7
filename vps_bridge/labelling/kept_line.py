"""Which line of a transcript a segment was: a new transcription may give its id to another one."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vps_bridge.conversations.store import SAME_EXTENT_S, SHORT_S, StoredSegment, is_same_extent, is_same_place


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

    def moved(self, by_s: float) -> KeptLine:
        """Return it as it lies in a transcript that begins elsewhere."""
        return KeptLine((self.span[0] + by_s, self.span[1] + by_s), self.text_sum)

    @property
    def is_short(self) -> bool:
        """Whether somebody else may say the same."""
        return self.span[1] - self.span[0] < SHORT_S


def other_lines(lines: Mapping[str, KeptLine], segments: Iterable[StoredSegment]) -> set[str]:
    """Return the ids of the segments that are other lines now."""
    now = LinesNow(segments)
    lines, _ = now.place(lines)
    return {name for name, line in lines.items() if name in now.segments and not now.is_still(name, line)}


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

    def is_still(self, name: str, line: KeptLine) -> bool:
        """Whether the segment of an id is this line: it lies where that lay, or it is what says the same now."""
        same = self.segments.get(name)
        if same is None:
            return False
        if is_same_place(line.span, (same.start_s, same.end_s)):
            return True
        return bool(same.text) and line.text_sum == KeptLine.of(same).text_sum and not self._find_there(line)

    def find(self, names: Iterable[str], lines: Mapping[str, KeptLine]) -> tuple[str, ...]:
        """Return the ids that these lines have now; what is not kept of is as it was.

        A line is that of its own id while it says the same or lies in the same place, else one that says the same: in
        the same place, or anywhere what was said once and is said once; but nothing short where others have stayed.
        Where it is known where lines lie now, whatever else lies with most of its length there is cut out of them, or
        joined of them.
        """
        found, recut = list[str](), list[tuple[float, float]]()
        lines, is_placed = self.place(lines)
        once = _said_once(lines)
        for name in names:
            line = lines.get(name)
            now = (name,) if line is None else self._find_whole(name, line, once, is_placed=is_placed)
            found += now
            if line is not None and not any(is_same_extent(line.span, self._span(one)) for one in now):
                recut.append(line.span)
        if recut and is_placed:
            found += self._find_parts(recut)
        return tuple(dict.fromkeys(found))

    def place(self, lines: Mapping[str, KeptLine]) -> tuple[Mapping[str, KeptLine], bool]:
        """Return lines where they lie now, and whether that is known.

        It is where all that is said once, and of any length, lies as far from where it lay: a new transcription may
        begin elsewhere.
        """
        alike = [(line, self._by_text.get(text_sum, [])) for text_sum, line in _said_once(lines).items()]
        found = [(line, same[0]) for line, same in alike if len(same) == 1]
        telling = [pair for pair in found if not pair[0].is_short] or found
        moved_s = [now.start_s - line.span[0] for line, now in telling]
        if not moved_s or all(is_same_place(line.span, self._span(now.id)) for line, now in telling):
            return lines, bool(moved_s)
        if len(moved_s) == 1 or max(moved_s) - min(moved_s) > SAME_EXTENT_S:
            return lines, False
        return {name: line.moved(moved_s[0]) for name, line in lines.items()}, True

    def _span(self, name: str) -> tuple[float, float]:
        return self.segments[name].start_s, self.segments[name].end_s

    def _find_whole(
        self, name: str, line: KeptLine, once: Mapping[int, KeptLine], *, is_placed: bool
    ) -> tuple[str, ...]:
        if self.is_still(name, line):
            return (name,)
        if there := self._find_there(line):
            return tuple(one.id for one in there)
        alike = self._by_text.get(line.text_sum, [])
        is_it = len(alike) == 1 and line.text_sum in once and not (is_placed and line.is_short)
        return (alike[0].id,) if is_it else ()

    def _find_there(self, line: KeptLine) -> list[StoredSegment]:
        """Return the segments that say what a line said, and lie where it lay."""
        alike = self._by_text.get(line.text_sum, [])
        return [one for one in alike if is_same_place(line.span, (one.start_s, one.end_s))]

    def _find_parts(self, spans: Iterable[tuple[float, float]]) -> list[str]:
        shared_s: dict[str, float] = {}
        for start_s, end_s in spans:
            first, last = bisect_left(self._starts, start_s - self._longest_s), bisect_left(self._starts, end_s)
            for one in self._in_order[first:last]:
                part_s = min(end_s, one.end_s) - max(start_s, one.start_s)
                shared_s[one.id] = shared_s.get(one.id, 0.0) + max(0.0, part_s)
        return [name for name, part_s in shared_s.items() if part_s > (self._span(name)[1] - self._span(name)[0]) / 2]


def _said_once(lines: Mapping[str, KeptLine]) -> dict[int, KeptLine]:
    """Return the lines by what they say, without what several of them say."""
    times = Counter(line.text_sum for line in lines.values())
    return {line.text_sum: line for line in lines.values() if times[line.text_sum] == 1}


def lines_to_json(lines: Mapping[str, KeptLine]) -> dict[str, tuple[float, float, int]]:
    """Return lines as JSON has them."""
    return {name: (*line.span, line.text_sum) for name, line in lines.items()}


def lines_from_json(kept: Mapping[str, tuple[float, float, int]]) -> dict[str, KeptLine]:
    """Read what `lines_to_json` returned."""
    return {name: KeptLine((start_s, end_s), text_sum) for name, (start_s, end_s, text_sum) in kept.items()}
