"""Shared seconds: what two jobs say about who speaks in the audio that both contain."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from vps_bridge.labelling.audio_clock import Span


@dataclass(frozen=True)
class SharedSeconds:
    """What two jobs say about a pair of speakers, one of each, in the seconds where both jobs have speech."""

    both_s: float
    """Seconds in which both speak, each according to its own job."""
    a_s: float
    """Seconds of the first speaker's turns in which anyone speaks according to the second job."""
    b_s: float
    """Seconds of the second speaker's turns in which anyone speaks according to the first job."""


SharedByPair = Mapping[tuple[int, int], SharedSeconds]


def measure_shared_seconds(speakers: Sequence[tuple[str, Sequence[Span]]]) -> SharedByPair:
    """Return the shared seconds of each pair of speakers who both speak where their jobs overlap.

    Args:
        speakers: job and exclusive turns of each; they are named by their index.
    """
    turns_of: dict[str, list[tuple[float, float, int]]] = {}
    for index, (job_id, spans) in enumerate(speakers):
        for start_s, end_s in spans:
            turns_of.setdefault(job_id, []).append((start_s, end_s, index))
    jobs = sorted((_one_at_a_time(turns) for turns in turns_of.values()), key=lambda turns: turns[0])
    end_s_of = [max(end_s for _, end_s, _ in turns) for turns in jobs]
    shared: dict[tuple[int, int], SharedSeconds] = {}
    for order, turns in enumerate(jobs):
        for other in jobs[order + 1 :]:
            if other[0][0] >= end_s_of[order]:
                break
            seconds = _overlaps(turns, other)
            a_s: defaultdict[int, float] = defaultdict(float)
            b_s: defaultdict[int, float] = defaultdict(float)
            for (a, b), both_s in seconds.items():
                a_s[a] += both_s
                b_s[b] += both_s
            for a, b in product(a_s, b_s):
                shared[a, b] = SharedSeconds(seconds.get((a, b), 0.0), a_s[a], b_s[b])
    return shared


_Turns = list[tuple[float, float, int]]
"""(start_s, end_s, speaker) of one job, sorted."""


def _one_at_a_time(turns: Iterable[tuple[float, float, int]]) -> _Turns:
    """Return the turns sorted, each without the seconds in which an earlier one still lasts."""
    kept: _Turns = []
    for start_s, end_s, speaker in sorted(turns):
        kept.append((max(start_s, kept[-1][1]) if kept else start_s, end_s, speaker))
        if kept[-1][0] >= end_s and len(kept) > 1:
            kept.pop()
    return kept


def _overlaps(a: _Turns, b: _Turns) -> dict[tuple[int, int], float]:
    """Return how long each speaker of one job and each of another speak at the same time, where they do."""
    seconds: dict[tuple[int, int], float] = {}
    i, j = bisect_left(a, b[0][0], key=lambda turn: turn[1]), 0
    while i < len(a) and j < len(b):
        both_s = min(a[i][1], b[j][1]) - max(a[i][0], b[j][0])
        if both_s > 0:
            pair = a[i][2], b[j][2]
            seconds[pair] = seconds.get(pair, 0.0) + both_s
        if a[i][1] <= b[j][1]:
            i += 1
        else:
            j += 1
    return seconds


def disagreeing(shared: SharedByPair, *, min_s: float, max_agreement: float) -> list[tuple[int, int]]:
    """Return the pairs that two jobs say are different speakers."""
    return [
        pair
        for pair, seconds in shared.items()
        if (least_s := min(seconds.a_s, seconds.b_s)) >= min_s and seconds.both_s <= max_agreement * least_s
    ]


def agreeing(shared: SharedByPair, *, min_s: float, min_agreement: float) -> list[tuple[int, int]]:
    """Return the pairs that two jobs say are one speaker, those with most seconds first."""
    pairs = [
        (seconds.both_s, pair)
        for pair, seconds in shared.items()
        if seconds.both_s >= min_s and seconds.both_s >= min_agreement * max(seconds.a_s, seconds.b_s)
    ]
    return [pair for _, pair in sorted(pairs, key=lambda item: (-item[0], item[1]))]
