"""Things that have a beginning and an end, in order: of many, only those near a span of time are looked at."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import frexp
from typing import Generic, TypeVar

T = TypeVar("T")
FEW = 200
"""So many are looked through sooner than they are put in order by their length."""
_Group = tuple[list[int], list[float], list[float]]
"""Places in the order of time, where each begins, and the latest end so far (seconds)."""


class NearInTime(Generic[T]):
    """Items in order of time; those that begin and end together stay in the order given."""

    def __init__(self, items: Iterable[T], span_of: Callable[[T], tuple[float, float]]) -> None:
        """Order them by their spans, whose ends may stand the wrong way round."""
        spans = sorted(((sorted(span_of(item)), item) for item in items), key=lambda pair: pair[0])
        self.items = [item for _, item in spans]
        self._starts = [start_s for (start_s, _), _ in spans]
        self._ends = _latest(end_s for (_, end_s), _ in spans)
        self._groups = _by_length(span for span, _ in spans) if len(spans) > FEW else ()

    def find(self, span: tuple[float, float]) -> list[T]:
        """Return, in order, those that share time with a span or touch it, and few others."""
        first_s, last_s = min(span), max(span)
        if not self._groups:
            return self.items[bisect_left(self._ends, first_s) : bisect_right(self._starts, last_s)]
        found = list[int]()
        for places, starts, ends in self._groups:
            found += places[bisect_left(ends, first_s) : bisect_right(starts, last_s)]
        return [self.items[place] for place in sorted(found)]


def _by_length(spans: Iterable[Sequence[float]]) -> tuple[_Group, ...]:
    """Return those of about one length by themselves: near one that lasts for hours is everything else."""
    groups = defaultdict[int, list[tuple[int, float, float]]](list)
    for place, (start_s, end_s) in enumerate(spans):
        groups[frexp(end_s - start_s)[1]].append((place, start_s, end_s))
    return tuple(
        ([place for place, *_ in group], [start_s for _, start_s, _ in group], _latest(end_s for *_, end_s in group))
        for group in groups.values()
    )


def _latest(ends: Iterable[float]) -> list[float]:
    """Return by place the latest end so far."""
    return list(accumulate(ends, max))


NOTHING: NearInTime[str] = NearInTime((), lambda _: (0.0, 0.0))
