"""When each part of a user's audio was recorded, as far as its arrival tells. Pure.

OMI says nothing of time. It collects audio, leaves silence out, and sends what is there in bursts, some seconds late.
So a byte of the stream cannot have been recorded later than it arrived, and what all bytes behind it say bounds it
too: between two moments no less time can have passed than there is audio. The least of these bounds is the estimate:
a burst that was delayed is put right by the next that was not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

SAMPLE_BYTES = 2
LAG_S = 2.5
"""The last sample of a burst is about so old when it arrives: 4 to 5 s for what was recorded 4 s before it."""
ERROR_S = 3.0
"""How far an estimate may be off."""
MIN_SILENCE_S = 0.3
"""Less is the jitter of the way here."""
_FULL = 0.9
TOGETHER_S, SHORT_RETRY_S, RETRIED_S = 0.5, 1.6, 40.0
"""What arrives at most so long after another is of one burst; where it is tried again, up to so long."""


@dataclass(frozen=True)
class AudioArrival:
    """Audio of one POST: which bytes of the user's stream, and when they came."""

    start: int
    end: int
    sample_rate: int
    arrived_at: float


@dataclass(frozen=True)
class PlacedAudioBytes:
    """Bytes of the stream and when their first sample was recorded (Unix time), by estimate."""

    start: int
    end: int
    sample_rate: int
    recorded_at: float
    grid: int
    """A position at which a sample begins; that of others differs from it by whole samples."""

    @property
    def length_s(self) -> float:
        """How long it is."""
        return (self.end - self.start) / bytes_per_s(self.sample_rate)

    @property
    def ends_at(self) -> float:
        """When its last sample was recorded."""
        return self.recorded_at + self.length_s


def bytes_per_s(sample_rate: int) -> int:
    """Return how many bytes a second of PCM16 mono has."""
    return SAMPLE_BYTES * sample_rate


QuietPoint = Callable[[int, int], int | None]
"""Returns for two positions of the stream where between them silence was most likely left out, if that can be told."""


def place_arrivals(arrivals: Sequence[AudioArrival], quiet_point: QuietPoint) -> list[PlacedAudioBytes]:
    """Return when the audio of each burst was recorded; `arrivals` are in the order of the stream.

    Where more time has passed than there is audio, silence was left out somewhere in the burst: where it is quiet.
    """
    placed: list[PlacedAudioBytes] = []
    for run in _runs(arrivals):
        first, rate = run[0].start, bytes_per_s(run[0].sample_rate)
        bursts = _bursts(run)
        zeros = [_sent_at(burst) - LAG_S - (burst[-1].end - first) / rate for burst in bursts]
        for place in range(len(zeros) - 2, -1, -1):
            zeros[place] = min(zeros[place], zeros[place + 1])
        before, before_bytes, grid = zeros[0], 0, first
        for burst, zero in zip(bursts, zeros, strict=True):
            start, end = burst[0].start, burst[-1].end
            cut = start
            # A burst that is shorter than the next was sent because its session ended: nothing of it was left over.
            if zero - before >= MIN_SILENCE_S and before_bytes >= _FULL * (end - start):
                cut = quiet_point(start, end) or start
            for begin, stop, at in ((start, cut, before), (cut, end, zero)):
                if stop > begin:
                    recorded_at = at + (begin - first) / rate
                    placed.append(PlacedAudioBytes(begin, stop, run[0].sample_rate, recorded_at, grid))
            if (end - grid) % SAMPLE_BYTES:  # the rest of a buffer was lost: the next begins with a whole sample
                grid = end
            before, before_bytes = zero, end - start
    return placed


def _bursts(run: Sequence[AudioArrival]) -> list[list[AudioArrival]]:
    """Return what was sent together. What a chunk that was tried again tore apart is put together again.

    A sender's bursts are as long as its buffer, so two parts that make one buffer are of one burst.
    """
    parts: list[list[AudioArrival]] = []
    for one in run:
        if not parts or one.arrived_at - parts[-1][-1].arrived_at > TOGETHER_S:
            parts.append([])
        parts[-1].append(one)
    usual = _usual_size(parts)
    bursts: list[list[AudioArrival]] = []
    for part in parts:
        is_near = bool(bursts) and part[0].arrived_at - bursts[-1][-1].arrived_at <= RETRIED_S
        if is_near and _size(bursts[-1]) + _size(part) <= usual:
            bursts[-1] += part
        else:
            bursts.append(part)
    return bursts


def _usual_size(parts: Sequence[Sequence[AudioArrival]]) -> float:
    """Return the size of the part in the middle of all audio; a backlog that came at once does not count as usual."""
    sizes = sorted(_size(part) for part in parts)
    reached = list(accumulate(sizes))
    return min(sizes[bisect_left(reached, reached[-1] / 2)], 2 * median(sizes))


def _sent_at(burst: Sequence[AudioArrival]) -> float:
    """Return when a burst began to arrive: its last sample was recorded then. After a long hole, when the rest did."""
    begins = [after for before, after in pairwise(burst) if after.arrived_at - before.arrived_at > SHORT_RETRY_S]
    return (begins[-1] if begins else burst[0]).arrived_at


def _size(burst: Sequence[AudioArrival]) -> int:
    return burst[-1].end - burst[0].start


def _runs(arrivals: Sequence[AudioArrival]) -> Iterator[list[AudioArrival]]:
    """Yield arrivals whose bytes follow each other at one sample rate."""
    run: list[AudioArrival] = []
    for one in arrivals:
        if run and (one.start != run[-1].end or one.sample_rate != run[-1].sample_rate):
            yield run
            run = []
        run.append(one)
    if run:
        yield run
