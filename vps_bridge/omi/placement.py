"""When each part of a user's audio was recorded, as far as its arrival tells. Pure.

OMI says nothing of time. It collects audio, leaves silence out, and sends what is there in bursts, some seconds late.
So a byte of the stream cannot have been recorded later than it arrived, and what all bytes behind it say bounds it
too: between two moments no less time can have passed than there is audio. The least of these bounds is the estimate:
a burst that was delayed is put right by the next that was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SAMPLE_BYTES = 2
LAG_S = 2.5
"""The last sample of a burst is about so old when it arrives: 4 to 5 s for what was recorded 4 s before it."""
ERROR_S = 3.0
"""How far an estimate may be off, but for the silence within a burst: nobody knows where in the burst it was."""


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


def place_arrivals(arrivals: Sequence[AudioArrival]) -> list[PlacedAudioBytes]:
    """Return for each arrival when it was recorded; `arrivals` are in the order of the stream."""
    placed: list[PlacedAudioBytes] = []
    for run in _runs(arrivals):
        first, rate = run[0].start, bytes_per_s(run[0].sample_rate)
        bounds = [one.arrived_at - (one.end - first) / rate for one in run]
        for place in range(len(bounds) - 2, -1, -1):
            bounds[place] = min(bounds[place], bounds[place + 1])
        placed += [
            PlacedAudioBytes(one.start, one.end, one.sample_rate, bound - LAG_S + (one.start - first) / rate, first)
            for one, bound in zip(run, bounds, strict=True)
        ]
    return placed


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
