"""Which line of a transcript a segment was: a new transcription may give its id to another one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vps_bridge.conversations.store import StoredSegment, is_same_place


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


def lines_to_json(lines: Mapping[str, KeptLine]) -> dict[str, tuple[float, float, int]]:
    """Return lines as JSON has them."""
    return {name: (*line.span, line.text_sum) for name, line in lines.items()}


def lines_from_json(kept: Mapping[str, tuple[float, float, int]]) -> dict[str, KeptLine]:
    """Read what `lines_to_json` returned."""
    return {name: KeptLine((start_s, end_s), text_sum) for name, (start_s, end_s, text_sum) in kept.items()}
