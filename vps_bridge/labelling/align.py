"""Aligning: from seconds of audio to seconds of transcript, per stretch, believed only if the speech agrees.

The two clocks have different zeros (the first chunk is captured 33 to 60 s after `started_at` on real devices,
omi-facts.md section 2). captured_at tells the offset; where speech is in the audio and where the transcript has
segments must not contradict it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.record import MAX_DURATION_S
from vps_bridge.rules.assemble import ChunkInfo, PlacedChunk

STEP_S = 0.1  # of the activity signals that are compared
ClockReason = Literal["clock.unknown", "clock.unverified"]
RATE_SUSPECT = "audio.rate_suspect"
Span = tuple[float, float]


@dataclass(frozen=True)
class AlignmentRules:
    """When the clock of the audio is believed.

    Agreement is the correlation (phi) of two on/off signals in steps of 0.1 s: someone speaks in the audio, a
    segment covers the moment in the transcript. Unlike a share of overlap it does not reward dense speech. An offset
    is refused where another within `max_shift_s` agrees better by `margin` and puts at least `margin_s` more seconds
    right: with few pauses chance alone finds a better shift.
    """

    max_shift_s: float = 30.0
    tolerance_s: float = 1.0
    """Shifts this small are the jitter of time stamps."""
    margin: float = 0.2
    margin_s: float = 3.0
    min_overlap: float = 0.3
    """Least share of the audio's speech, or of the transcript's if that is less, that must meet the other."""
    max_drift_s: float = 2.0
    """Within a stretch the chunks' own time stamps may stray this far from where their samples lie."""
    rate_tolerance: float = 0.1


@dataclass(frozen=True)
class Stretch:
    """A stretch of contiguous audio, as the chunks' times place it."""

    index: int
    length_s: float
    offset_s: float | None
    """What is added to the stretch's seconds to get transcript seconds; None where nothing tells."""
    drift_s: float
    """How far captured_at of its chunks strays from where their samples lie."""


@dataclass(frozen=True)
class StretchClock:
    """The offset that is believed, or why there is none."""

    offset_s: float | None
    reason: ClockReason | None


def find_stretches(
    chunks: Sequence[ChunkInfo], placed: Sequence[PlacedChunk], started_at_s: float | None
) -> tuple[Stretch, ...]:
    """Derive each stretch's offset from captured_at.

    Without captured_at only the first stretch has one, 0, and only if it begins the conversation: its first chunk
    has sequence 0 or 1, or the whole conversation is one chunk. An offset of more than a week is a wrong clock.
    """
    known = {chunk.chunk_id: chunk for chunk in chunks}
    stretches = []
    for index in range(1 + max((place.stretch for place in placed), default=-1)):
        places = [place for place in placed if place.stretch == index]
        timed = [
            (place.start_s, captured_at_s)
            for place in places
            if (captured_at_s := known[place.chunk_id].captured_at_s) is not None
        ]
        begins = index == 0 and (len(known) == 1 or known[places[0].chunk_id].sequence in (0, 1))
        offset_s: float | None = 0.0 if begins else None
        drift_s = 0.0
        if timed:
            origin_s = timed[0][1] - timed[0][0]
            drift_s = max(abs(captured_at_s - start_s - origin_s) for start_s, captured_at_s in timed)
            if started_at_s is not None:
                offset_s = origin_s - started_at_s
            elif index > 0 or not begins:
                offset_s = None
        length_s = max(place.start_s + place.duration_s for place in places)
        if offset_s is not None and abs(offset_s) + length_s > MAX_DURATION_S:
            offset_s = None  # a device that woke up in 1970
        stretches.append(Stretch(index, length_s, offset_s, drift_s))
    return tuple(stretches)


def verify_clock(
    stretch: Stretch, speech: Sequence[Span], transcript: Sequence[Span], rules: AlignmentRules
) -> StretchClock:
    """Believe the stretch's offset or say why not.

    Args:
        stretch: the stretch and its offset.
        speech: when anyone speaks, in seconds of the stretch.
        transcript: the segments' spans in seconds of the transcript, in any order.
        rules: the margins.
    """
    if stretch.offset_s is None:
        return StretchClock(None, "clock.unknown")
    if stretch.drift_s > rules.max_drift_s:
        return StretchClock(None, "clock.unverified")
    steps = max(1, round(stretch.length_s / STEP_S))
    margin_steps = round(rules.max_shift_s / STEP_S)
    heard = _activity(speech, 0.0, steps)
    written = _activity(transcript, stretch.offset_s - margin_steps * STEP_S, steps + 2 * margin_steps)
    if not heard.any() or not written.any():
        return StretchClock(stretch.offset_s, None)
    both, covered = _compare(heard, written)
    zero = margin_steps
    if both[zero] < rules.min_overlap * min(heard.sum(), covered[zero]) or covered[zero] == 0:
        return StretchClock(None, "clock.unverified")
    agreement = _phi(both, covered, float(heard.sum()), steps)
    right = steps - heard.sum() - covered + 2 * both  # steps where both say speech or both say silence
    shifts = np.abs(np.arange(len(both)) - zero) * STEP_S
    better = (
        (shifts > rules.tolerance_s)
        & (agreement >= agreement[zero] + rules.margin)
        & ((right - right[zero]) * STEP_S >= rules.margin_s)
    )
    return StretchClock(None, "clock.unverified") if better.any() else StretchClock(stretch.offset_s, None)


def is_rate_suspect(chunks: Sequence[ChunkInfo], rules: AlignmentRules) -> bool:
    """Whether chunks last 10 % more or less than the steps of captured_at between them: a wrong sample rate.

    The median over all neighbouring chunks, so that real pauses and jitter do not count.
    """
    timed = sorted(
        (chunk.captured_at_s, chunk.duration_s, chunk.sequence)
        for chunk in chunks
        if chunk.captured_at_s is not None and chunk.duration_s and chunk.sequence is not None
    )
    steps = [(later[0] - earlier[0]) / earlier[1] for earlier, later in pairwise(timed) if later[2] == earlier[2] + 1]
    return len(steps) >= 3 and abs(median(steps) - 1.0) > rules.rate_tolerance  # noqa: PLR2004 - fewer are jitter


def _activity(spans: Sequence[Span], origin_s: float, steps: int) -> NDArray[np.float64]:
    active = np.zeros(steps)
    for start_s, end_s in spans:
        first = round((start_s - origin_s) / STEP_S)
        last = round((end_s - origin_s) / STEP_S)
        active[max(0, first) : max(0, last)] = 1.0
    return active


def _compare(heard: NDArray[np.float64], written: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """For every shift of the audio along the transcript: steps active in both, and active in the transcript."""
    both = np.round(np.correlate(written, heard, mode="valid"))
    sums = np.concatenate(([0.0], np.cumsum(written)))
    return both, sums[len(heard) :] - sums[: -len(heard)]


def _phi(both: NDArray[np.float64], covered: NDArray[np.float64], heard: float, steps: int) -> NDArray[np.float64]:
    """Correlation of the two signals at every shift; 0 where one of them never changes."""
    spread = np.sqrt(heard * (steps - heard) * covered * (steps - covered))
    return np.divide(steps * both - heard * covered, spread, out=np.zeros_like(both), where=spread > 0)
