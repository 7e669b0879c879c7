"""Which line of a transcript a segment was: a new transcription may give its id to another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vps_bridge.conversations.near_in_time import NOTHING, NearInTime
from vps_bridge.conversations.store import (
    SAME_EXTENT_S,
    SHORT_S,
    StoredSegment,
    find_move,
    is_same_extent,
    is_same_place,
    is_same_span,
    shared_s,
    sum_text,
)
from vps_bridge.labelling.audio_clock import Span


@dataclass(frozen=True)
class KeptLine:
    """Which line of the transcript a segment was when something was said or written about it."""

    span: Span
    text_sum: int
    """A checksum: the text itself is kept in one place only, the conversation store."""

    @classmethod
    def of(cls, segment: StoredSegment) -> KeptLine:
        """Return a segment's line."""
        return cls(segment.span, sum_text(segment.text))

    def moved(self, by_s: float) -> KeptLine:
        """Return it as it lies in a transcript that begins elsewhere."""
        return KeptLine((self.span[0] + by_s, self.span[1] + by_s), self.text_sum)

    def is_whole_in(self, now: KeptLine) -> bool:
        """Whether nothing is cut off or joined: it begins and ends as now, or says the same for as long."""
        is_as_long = abs(self.length_s - now.length_s) <= SAME_EXTENT_S
        return is_same_extent(self.span, now.span) or (is_as_long and self.text_sum == now.text_sum)

    def is_cut_to(self, now: KeptLine) -> bool:
        """Whether something is cut off it now."""
        return now.length_s < self.length_s - SAME_EXTENT_S

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.span[1] - self.span[0]

    @property
    def is_short(self) -> bool:
        """Whether somebody else may say the same."""
        return self.length_s < SHORT_S


class LinesNow:
    """The segments that there are now, and which lines they are."""

    def __init__(self, segments: Iterable[StoredSegment]) -> None:
        """Look among these."""
        self.segments = {segment.id: segment for segment in segments}
        self.lines = {name: KeptLine.of(segment) for name, segment in self.segments.items()}
        by_text: dict[int, list[str]] = {}
        for name, line in self.lines.items():
            if self.segments[name].text:
                by_text.setdefault(line.text_sum, []).append(name)
        self._by_text = {text_sum: NearInTime(names, self._span) for text_sum, names in by_text.items()}
        self._all = NearInTime(self.lines, self._span)

    def _span(self, name: str) -> Span:
        return self.lines[name].span

    def saying(self, line: KeptLine) -> NearInTime[str]:
        """Return the ids of what says the same as a line, none where that says nothing."""
        return self._by_text.get(line.text_sum, NOTHING)

    def find_extent(self, line: KeptLine) -> list[str]:
        """Return the ids of what begins and ends where a line did, whatever it says."""
        return [name for name in self._all.find(line.span) if is_same_span(line.span, self._span(name))]

    def find_parts(self, spans: Iterable[Span]) -> list[str]:
        """Return the ids of what lies in these spans with most of its length."""
        shared: dict[str, float] = {}
        for span in spans:
            for name in self._all.find(span):
                shared[name] = shared.get(name, 0.0) + max(0.0, shared_s(span, self._span(name)))
        return [name for name, part_s in shared.items() if part_s > self.lines[name].length_s / 2]


class LineSearch:
    """Lines that were kept together, and which segments they are now."""

    def __init__(self, kept: Mapping[str, KeptLine], now: LinesNow) -> None:
        """Look for these lines, by id."""
        self._now = now
        self._by_text: dict[int, list[str]] = {}
        for name, line in kept.items():
            self._by_text.setdefault(line.text_sum, []).append(name)
        self._once = {text_sum for text_sum, names in self._by_text.items() if len(names) == 1}
        self._lines, self._is_placed = self._place(kept)
        self._in_time: dict[int, NearInTime[str]] = {}

    def _span(self, name: str) -> Span:
        return self._lines[name].span

    def other_lines(self) -> set[str]:
        """Return the ids of the segments that are other lines now."""
        return {
            name for name, line in self._lines.items() if name in self._now.lines and not self._is_still(name, line)
        }

    def find(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the ids that lines have now; what is not kept of is as it was.

        A line is that of its own id while it says the same or lies in the same place, else one that says the same: in
        the same place, or anywhere what was said once and is said once; but nothing short where others have stayed.
        Where it is known where lines lie now, whatever else lies with most of its length there is cut out of them, or
        joined of them, unless it is another line that had lain there too.
        """
        names = tuple(names)
        found, recut = list[str](), list[Span]()
        for name in names:
            line = self._lines.get(name)
            now = (name,) if line is None else self._find_whole(name, line)
            found += now
            if line is not None and not any(line.is_whole_in(self._now.lines[one]) for one in now):
                recut.append(line.span)
        if recut and self._is_placed:
            found += [one for one in self._now.find_parts(recut) if self._lines_like(one) <= set(names)]
        return tuple(dict.fromkeys(found))

    def find_cut_off(self, name: str) -> tuple[str, ...]:
        """Return the ids of what was a part of a line that is kept, and is not what has its id now."""
        if not self._is_placed:
            return ()
        found = self._now.find_parts([self._lines[name].span])
        is_labelled = {one for one in found if self._now.segments[one].is_human_labelled}
        return tuple(one for one in found if one != name and one not in is_labelled and not self._lines_like(one))

    def _place(self, kept: Mapping[str, KeptLine]) -> tuple[Mapping[str, KeptLine], bool]:
        """Return lines where they lie now, and whether that is known.

        It is where all that is said once, and of any length, lies as far from where it lay: a new transcription may
        begin elsewhere. Where nothing says what it said, it is where most lines begin and end as one does now.
        """
        alike = [(line, self._now.saying(line).items) for line in kept.values() if line.text_sum in self._once]
        found = [(line, self._now.lines[same[0]]) for line, same in alike if len(same) == 1]
        if not found:
            return kept, 2 * sum(bool(self._now.find_extent(line)) for line in kept.values()) > len(kept)
        telling = [pair for pair in found if not pair[0].is_short] or found
        moved_s = [now.span[0] - line.span[0] for line, now in telling]
        if by_s := find_move(moved_s):
            return {name: line.moved(by_s) for name, line in kept.items()}, True
        return kept, all(is_same_place(line.span, now.span) for line, now in telling)

    def _is_still(self, name: str, line: KeptLine) -> bool:
        """Whether the segment of an id is this line: it lies where that lay, or it is what says the same now."""
        same = self._now.lines.get(name)
        if same is None:
            return False
        says_it = bool(self._now.segments[name].text) and line.text_sum == same.text_sum
        if not says_it and self._lines_like(name) - {name}:
            return False
        if is_same_place(line.span, same.span):
            return says_it or is_same_extent(line.span, same.span) or not self._find_other(line)
        return says_it and not self._find_there(line)

    def _lines_like(self, name: str) -> set[str]:
        """Return the ids of the kept lines that said what a segment says, and lay just where it lies."""
        now = self._now.lines[name]
        if not self._now.segments[name].text:
            return set()
        if now.text_sum not in self._in_time:
            self._in_time[now.text_sum] = NearInTime(self._by_text.get(now.text_sum, ()), self._span)
        return {one for one in self._in_time[now.text_sum].find(now.span) if is_same_span(self._span(one), now.span)}

    def _find_other(self, line: KeptLine) -> list[str]:
        """Return the ids of what is a line rather than what lies around it, or in it, under its own id.

        Lines lie in each other where a listener has one while somebody speaks.
        """
        return [one for one in self._find_there(line) or self._now.find_extent(line) if not self._was_there(one)]

    def _was_there(self, name: str) -> bool:
        """Whether an id is that of what it was by its place and its words: it is no other line."""
        before, now = self._lines.get(name), self._now.lines[name]
        return before is not None and before.text_sum == now.text_sum and is_same_place(before.span, now.span)

    def _find_whole(self, name: str, line: KeptLine) -> tuple[str, ...]:
        if self._is_still(name, line):
            return (name,)
        if there := self._find_there(line):
            return tuple(there)
        alike = self._now.saying(line).items
        is_it = len(alike) == 1 and line.text_sum in self._once and not (self._is_placed and line.is_short)
        return (alike[0],) if is_it else ()

    def _find_there(self, line: KeptLine) -> list[str]:
        """Return the ids of what says what a line said, and lies where it lay."""
        near = self._now.saying(line).find(line.span)
        return [one for one in near if is_same_place(line.span, self._now.lines[one].span)]


def lines_to_json(lines: Mapping[str, KeptLine]) -> dict[str, tuple[float, float, int]]:
    """Return lines as JSON has them."""
    return {name: (*line.span, line.text_sum) for name, line in lines.items()}


def lines_from_json(kept: Mapping[str, tuple[float, float, int]]) -> dict[str, KeptLine]:
    """Read what `lines_to_json` returned."""
    return {name: KeptLine((start_s, end_s), text_sum) for name, (start_s, end_s, text_sum) in kept.items()}
