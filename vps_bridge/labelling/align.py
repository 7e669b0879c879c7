"""Aligning: finding, for each stretch of audio, what to add to seconds of audio to get seconds of the transcript.

The two clocks have different zeros: on real devices the first chunk is captured 33 to 60 s after `started_at`
(shared/design/omi-facts.md, section 2). captured_at gives the offset. It is used only if the speech in the audio and
the segments of the transcript then lie at the same moments.
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
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.rules.assemble import ChunkInfo, PlacedChunk

STEP_S = 0.1  # of the activity signals that are compared
MIN_RATE_STEPS = 3
"""Fewer steps of captured_at say nothing about the sample rate: they may all be jitter."""
ClockReason = Literal["clock.unknown", "clock.unverified"]
RATE_SUSPECT = "audio.rate_suspect"


@dataclass(frozen=True)
class AlignmentRules:
    """When a stretch's offset is used.

    Agreement is the correlation (phi) of two on/off signals in steps of 0.1 s: someone speaks in the audio, and a
    segment covers the moment in the transcript. Unlike a share of overlap, it does not grow merely because there is
    much speech. An offset is refused if another one within `max_shift_s` agrees better by `margin` and makes the two
    signals equal for at least `margin_s` more seconds: with few pauses, some shift is always better by chance.
    """

    max_shift_s: float = 30.0
    tolerance_s: float = 1.0
    """Smaller shifts are the jitter of time stamps."""
    margin: float = 0.2
    margin_s: float = 3.0
    min_overlap: float = 0.3
    """Least share of the audio's speech, or of the transcript's if that is less, that must meet the other."""
    max_drift_s: float = 2.0
    """Within a stretch, a chunk's captured_at may differ this much from where its samples lie."""
    rate_tolerance: float = 0.1


@dataclass(frozen=True)
class Stretch:
    """A stretch: audio of a conversation without a gap, of one or more chunks. Its seconds begin at its first sample.

    `vps_bridge.rules.assemble.place_chunks` says where one stretch ends and the next begins.
    """

    index: int
    length_s: float
    offset_s: float | None
    """Added to the stretch's seconds to get transcript seconds; None where it cannot be derived."""
    drift_s: float
    """The largest difference between a chunk's captured_at and where its samples lie."""


@dataclass(frozen=True)
class StretchClock:
    """The offset of a stretch that may be used, or the reason why there is none."""

    offset_s: float | None
    reason: ClockReason | None


def find_stretches(
    chunks: Sequence[ChunkInfo], placed: Sequence[PlacedChunk], started_at_s: float | None
) -> tuple[Stretch, ...]:
    """Return the stretches and the offset of each.

    The offset comes from captured_at and `started_at_s`. Where one of them is missing, only a first stretch that
    begins the conversation has an offset, 0: its first chunk has sequence 0 or 1, or the conversation is one chunk.
    An offset of more than a week is the work of a wrong clock and is left out.
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
            offset_s = None  # e.g. a device without the time, which says 1970
        stretches.append(Stretch(index, length_s, offset_s, drift_s))
    return tuple(stretches)


def verify_clock(
    stretch: Stretch, speech: Sequence[Span], transcript: Sequence[Span], rules: AlignmentRules
) -> StretchClock:
    """Check the stretch's offset: return it, or the reason why it must not be used.

    Where the audio has no speech or the transcript no segment nearby, nothing contradicts the offset and it is used.

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
    spoken = _activity(speech, 0.0, steps)
    written = _activity(transcript, stretch.offset_s - margin_steps * STEP_S, steps + 2 * margin_steps)
    if not spoken.any() or not written.any():
        return StretchClock(stretch.offset_s, None)
    both, covered = _compare(spoken, written)
    zero = margin_steps  # index of the shift by nothing
    if both[zero] < rules.min_overlap * min(spoken.sum(), covered[zero]) or covered[zero] == 0:
        return StretchClock(None, "clock.unverified")
    agreement = _phi(both, covered, float(spoken.sum()), steps)
    equal = steps - spoken.sum() - covered + 2 * both  # steps where both say speech or both say silence
    shifts = np.abs(np.arange(len(both)) - zero) * STEP_S
    better = (
        (shifts > rules.tolerance_s)
        & (agreement >= agreement[zero] + rules.margin)
        & ((equal - equal[zero]) * STEP_S >= rules.margin_s)
    )
    return StretchClock(None, "clock.unverified") if better.any() else StretchClock(stretch.offset_s, None)


def is_rate_suspect(chunks: Sequence[ChunkInfo], rules: AlignmentRules) -> bool:
    """Whether the sample rate seems wrong: chunks last 10 % more or less than the steps of captured_at between them.

    The median over all neighbouring chunks decides, so that real pauses and jitter do not count.
    """
    timed = sorted(
        (chunk.captured_at_s, chunk.duration_s, chunk.sequence)
        for chunk in chunks
        if chunk.captured_at_s is not None
        and chunk.duration_s
        and not chunk.is_estimated
        and chunk.sequence is not None
    )
    steps = [(later[0] - earlier[0]) / earlier[1] for earlier, later in pairwise(timed) if later[2] == earlier[2] + 1]
    return len(steps) >= MIN_RATE_STEPS and abs(median(steps) - 1.0) > rules.rate_tolerance


def _activity(spans: Sequence[Span], origin_s: float, steps: int) -> NDArray[np.float64]:
    """Return 1 for every step of 0.1 s from `origin_s` on that a span covers, else 0."""
    active = np.zeros(steps)
    for start_s, end_s in spans:
        first = round((start_s - origin_s) / STEP_S)
        last = round((end_s - origin_s) / STEP_S)
        active[max(0, first) : max(0, last)] = 1.0
    return active


def _compare(spoken: NDArray[np.float64], written: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return two counts for every shift of the audio along the transcript: steps active in both, and in the latter."""
    both = np.round(np.correlate(written, spoken, mode="valid"))
    sums = np.concatenate(([0.0], np.cumsum(written)))
    return both, sums[len(spoken) :] - sums[: -len(spoken)]


def _phi(both: NDArray[np.float64], covered: NDArray[np.float64], spoken: float, steps: int) -> NDArray[np.float64]:
    """Return the correlation of the two signals at every shift; 0 where one of them never changes."""
    spread = np.sqrt(spoken * (steps - spoken) * covered * (steps - covered))
    return np.divide(steps * both - spoken * covered, spread, out=np.zeros_like(both), where=spread > 0)
