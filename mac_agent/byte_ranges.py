"""Which bytes of a chunk are here, and which to ask for next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[int, int]
"""Start (inclusive) and end (exclusive), in bytes."""


def add_range(held: Sequence[Range], new: Range) -> list[Range]:
    """Return `held` with `new` in it: sorted, disjoint, neighbours merged."""
    merged: list[Range] = []
    for start, end in sorted([*held, new]):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def missing_ranges(held: Iterable[Range], total_bytes: int) -> list[Range]:
    """Return what lies between the sorted, disjoint ranges of `held`, up to `total_bytes`."""
    missing, cursor = [], 0
    for start, end in held:
        if start > cursor:
            missing.append((cursor, start))
        cursor = max(cursor, end)
    if cursor < total_bytes:
        missing.append((cursor, total_bytes))
    return missing


def split_ranges(ranges: Iterable[Range], part_bytes: int, most: int) -> list[Range]:
    """Cut ranges into at most `most` parts of at most `part_bytes`, first bytes first."""
    parts: list[Range] = []
    for start, end in ranges:
        for cut in range(start, end, part_bytes):
            if len(parts) >= most:
                return parts
            parts.append((cut, min(cut + part_bytes, end)))
    return parts
