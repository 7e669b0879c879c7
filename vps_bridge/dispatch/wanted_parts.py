"""The parts of a chunk that an agent asks for."""

from __future__ import annotations

from schemas.agent import MAX_WANT_PARTS, ByteRange


def cut_ranges(ranges: tuple[ByteRange, ...], part_bytes: int, total_bytes: int) -> list[ByteRange]:
    """Cut wanted ranges into at most `MAX_WANT_PARTS` parts, within what the chunk holds."""
    parts: list[ByteRange] = []
    for span in ranges:
        end = min(span.end, total_bytes)
        starts = range(span.start, end, part_bytes)
        parts += [ByteRange(start=start, end=min(start + part_bytes, end)) for start in starts[:MAX_WANT_PARTS]]
    return parts[:MAX_WANT_PARTS]
