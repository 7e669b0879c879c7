"""Things that have a beginning and an end, in order: of many, only those near a span of time are looked at."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import accumulate
from math import frexp
from typing import Generic, TypeVar

T = TypeVar("T")


class NearInTime(Generic[T]):
    """Items in order of time; those that begin and end together stay in the order given."""

    def __init__(self, items: Iterable[T], span_of: Callable[[T], tuple[float, float]]) -> None:
        """Order them by their spans, whose ends may stand the wrong way round."""
        spans = sorted(((sorted(span_of(item)), item) for item in items), key=lambda pair: pair[0])
        self.items = [item for _, item in spans]
        by_length = defaultdict[int, list[tuple[int, float, float]]](list)
        for place, ((start_s, end_s), _) in enumerate(spans):
            by_length[frexp(end_s - start_s)[1]].append((place, start_s, end_s))
        # Those of about one length by themselves: near one that lasts for hours is everything else.
        self._groups = [
            (
                [place for place, *_ in group],
                [start_s for _, start_s, _ in group],
                _latest(end_s for *_, end_s in group),
            )
            for group in by_length.values()
        ]

    def find(self, span: tuple[float, float]) -> list[T]:
        """Return, in order, those that share time with a span or touch it, and few others."""
        found = list[int]()
        for places, starts, ends in self._groups:
            found += places[bisect_left(ends, min(span)) : bisect_right(starts, max(span))]
        return [self.items[place] for place in sorted(found)]


def _latest(ends: Iterable[float]) -> list[float]:
    """Return by place the latest end so far."""
    return list(accumulate(ends, max))
