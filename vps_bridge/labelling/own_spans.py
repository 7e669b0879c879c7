"""When each line is said by itself: without the shorter lines that lie in it, as those of a listener do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from vps_bridge.conversations.near_in_time import NearInTime
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.vote import TranscriptTurn, measure_segments


class OwnSpans:
    """The lines of a transcript, and when each is said by itself."""

    def __init__(self, segments: Sequence[StoredSegment]) -> None:
        """Look among these, once it is asked for."""
        self.segments = segments

    @cached_property
    def _of(self) -> list[tuple[StoredSegment, tuple[Span, ...]]]:
        in_time = NearInTime(self.segments, lambda one: one.span)
        return [(segment, tuple(_without_lines_inside(segment, in_time))) for segment in self.segments]

    def of(self, ids: Iterable[str]) -> dict[str, tuple[Span, ...]]:
        """Return when some lines are said by themselves, in order of time."""
        wanted = set(ids)
        return {segment.id: spans for segment, spans in self._of if segment.id in wanted}

    def measure(self, turns: Iterable[TranscriptTurn]) -> tuple[Mapping[int, float], ...]:
        """Return for each line, in the order given, how many seconds each speaker speaks in it by itself."""
        parts = [replace(segment, start_s=a, end_s=b) for segment, spans in self._of for a, b in spans]
        measured = iter(measure_segments(turns, parts))
        return tuple(_add([next(measured) for _ in spans]) for _, spans in self._of)


def _without_lines_inside(segment: StoredSegment, in_time: NearInTime[StoredSegment]) -> list[Span]:
    span = segment.span
    inside = [one.span for one in in_time.find(span)]
    inside = [one for one in inside if span[0] <= one[0] < one[1] <= span[1] and one != span]
    return cut_span(span, sorted(inside))[1] if inside else [span]


def _add(parts: Sequence[Mapping[int, float]]) -> Mapping[int, float]:
    if len(parts) == 1:
        return parts[0]
    seconds: dict[int, float] = {}
    for part in parts:
        for speaker, spoken_s in part.items():
            seconds[speaker] = seconds.get(speaker, 0.0) + spoken_s
    return seconds


def cut_span(span: Span, spans: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """Return what of a span lies inside sorted spans, and what outside."""
    inside, outside, at_s = [], [], span[0]
    for start_s, end_s in spans:
        first_s, last_s = max(start_s, at_s), min(end_s, span[1])
        if last_s <= first_s:
            continue
        if first_s > at_s:
            outside.append((at_s, first_s))
        inside.append((first_s, last_s))
        at_s = last_s
    if span[1] > at_s:
        outside.append((at_s, span[1]))
    return inside, outside
