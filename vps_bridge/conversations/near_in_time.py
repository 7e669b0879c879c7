"""Things that have a beginning and an end, in order: of many, only those near a span of time are looked at."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Generic, TypeVar

T = TypeVar("T")


class NearInTime(Generic[T]):
    """Items in order of time; those that begin and end together stay in the order given."""

    def __init__(self, items: Iterable[T], span_of: Callable[[T], tuple[float, float]]) -> None:
        """Order them by their spans, whose ends may stand the wrong way round."""
        spans = sorted(((sorted(span_of(item)), item) for item in items), key=lambda pair: pair[0])
        self.items = [item for _, item in spans]
        self._starts = [start_s for (start_s, _), _ in spans]
        self._ends = list(accumulate((end_s for (_, end_s), _ in spans), max))  # the latest end so far

    def find(self, span: tuple[float, float]) -> list[T]:
        """Return, in order, those that share time with a span or touch it, and few others."""
        return self.items[bisect_left(self._ends, min(span)) : bisect_right(self._starts, max(span))]
