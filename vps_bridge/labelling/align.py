"""Aligning: finding, for each stretch of audio, what to add to seconds of audio to get seconds of the transcript.

The two clocks have different zeros: on real devices the first chunk is captured 33 to 60 s after `started_at`
(shared/design/omi-facts.md, section 2), and either time may be missing or wrong. So an offset is used only where the
speech in the audio and the transcript then lie at the same moments, and clearly less so at any other offset. What
captured_at and started_at say is a prior: near it less evidence is enough. The calibration:
docs/adr/0015-clock-by-evidence.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import pairwise
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.record import MAX_DURATION_S
from vps_bridge.labelling.audio_clock import ClockPiece, Span
from vps_bridge.labelling.offset_search import (
    SEGMENT_CORRELATIONS,
    STEP_S,
    WORD_CORRELATIONS,
    ActivitySignal,
    block_nats,
    measure_activity,
    search_offsets,
)
from vps_bridge.labelling.track import FoundOffset, TrackingRules, track_offset
from vps_bridge.rules.assemble import COARSE_S, ChunkInfo, PlacedChunk

MIN_RATE_STEPS = 3
"""Fewer steps of captured_at say nothing about the sample rate: they may all be jitter."""
MIN_RATE_SHARE = 0.6
"""And of those there are so many must say the same."""
ClockReason = Literal["clock.unknown", "clock.unverified"]
RATE_SUSPECT = "audio.rate_suspect"
NOTHING_DIARIZED = "no audio was diarized: its jobs failed, see failed_jobs, or were given up"
_RATES = (-0.01, -0.005, 0.005, 0.01)
_LONGEST_S, _SHORTEST_S, _PARTS = 900.0, 60.0, 5
_PEAKS = 40  # offsets that are compared closely
_MAX_ERROR_S = 30.0
"""A captured_at that may be off by more is no prior: other speech would fit somewhere within it, and a publisher may
say a week, whose offsets fill any memory. It is no rule: those are in the write keys of stored conversations."""
_NO_FIT = "fit each other at no offset clearly enough"
_MAX_TRANSCRIPT_S = 86_400.0  # one that is longer has wrong times, and searching it would take minutes
_CONFIRMING_NATS, _CONFIRMED_WITHIN_S = 1.0, 20.0
"""What a stretch must say for the place that others give it, and how far around it nothing may fit clearly better.
Of drawn lines 71 % say it at their place, and 0.1 to 7 % at one that is 1.5 to 15 s off."""
_EDGE_S = 5.0
"""The transcript counts as silent for this long beside its words; beyond that it may be incomplete."""


@dataclass(frozen=True)
class AlignmentRules:
    """How much must speak for an offset, in nats of `offset_search`, before it is used.

    The margin is over the best offset that differs by more than `tolerance_s`, anywhere in the transcript.
    """

    min_nats: float = 16.0
    margin_nats: float = 9.0
    later_nats: float = 2.0
    """So much more is needed where not the whole stretch was compared, but one of several parts of it."""
    prior_nats: float = 6.0
    """Within `prior_tolerance_s` of what captured_at and started_at say, this much is enough."""
    prior_margin_nats: float = -3.0
    prior_tolerance_s: float = 0.5
    estimated_prior_nats: float = 9.0
    estimated_margin_nats: float = 3.0
    """Where captured_at is an estimate, all offsets within its error are looked at: of more, one fits by chance."""
    tolerance_s: float = 1.0
    """Smaller differences are the jitter of time stamps."""
    max_drift_s: float = 2.0
    """Where captured_at strays by more than this within a stretch, it is no prior."""
    rate_tolerance: float = 0.1
    tracking: TrackingRules = field(default_factory=TrackingRules)


@dataclass(frozen=True)
class Stretch:
    """A stretch: audio of a conversation without a gap, of one or more chunks. Its seconds begin at its first sample.

    `vps_bridge.rules.assemble.place_chunks` says where one stretch ends and the next begins.
    """

    index: int
    length_s: float
    prior_s: float | None
    """What is first looked for: what captured_at and started_at say is added to the stretch's seconds. Where neither is
    known, 0 for the beginning of a conversation, in case audio and transcript are of one file. None: nothing is."""
    is_timed: bool
    """The prior is of captured_at and started_at."""
    captured_s: float | None = None
    """captured_at of its second 0; None where it is unknown or strays."""
    error_s: float = 0.0
    """How far captured_at may be off, where it is an estimate."""


@dataclass(frozen=True)
class StretchClock:
    """The offsets of a stretch that may be used, and the reason where there are none, or not everywhere."""

    pieces: tuple[ClockPiece, ...]
    """In order, without overlap; audio in none of them has no place in the transcript."""
    reason: ClockReason | None
    detail: str = ""
    """What the reason comes from, for a person."""

    @property
    def warning(self) -> str | None:
        """The reason with what it comes from."""
        return self.reason and f"{self.reason}: {self.detail}"

    @property
    def offset_s(self) -> float | None:
        """The offset of the longest piece."""
        longest = max(self.pieces, key=lambda piece: piece.end_s - piece.start_s, default=None)
        return None if longest is None else longest.offset_s

    def move(self, start_s: float, end_s: float) -> list[Span]:
        """Return the parts of a span of the stretch that have a place, in seconds of the transcript."""
        moved: list[Span] = []
        first = max(0, bisect_right(self.pieces, start_s, key=lambda piece: piece.start_s) - 1)
        for piece in self.pieces[first:]:
            if piece.start_s >= end_s:
                break
            span = piece.move(start_s, end_s)
            if span is not None:
                moved.append(span)
        return moved


def find_stretches(
    chunks: Sequence[ChunkInfo], placed: Sequence[PlacedChunk], started_at_s: float | None, rules: AlignmentRules
) -> tuple[Stretch, ...]:
    """Return the stretches and the prior of each.

    An offset of more than a week is the work of a wrong clock and is no prior, and neither is that of a stretch within
    which captured_at strays by more than `max_drift_s` from where the samples lie.
    """
    known = {chunk.chunk_id: chunk for chunk in chunks}
    stretches = []
    for index in range(1 + max((place.stretch for place in placed), default=-1)):
        places = [place for place in placed if place.stretch == index]
        zeros_s = [
            captured_at_s - place.start_s
            for place in places
            if (captured_at_s := known[place.chunk_id].captured_at_s) is not None
        ]
        length_s = max(place.start_s + place.duration_s for place in places)
        prior_s = zeros_s[0] - started_at_s if zeros_s and started_at_s is not None else None
        if prior_s is not None and abs(prior_s) + length_s > MAX_DURATION_S:
            prior_s = None  # e.g. a device without the time, which says 1970
        strays = bool(zeros_s) and max(abs(zero_s - zeros_s[0]) for zero_s in zeros_s) > rules.max_drift_s
        if strays:
            prior_s = None
        is_timed = prior_s is not None
        error_s = max(known[place.chunk_id].captured_error_s for place in places)
        begins = index == 0 and (len(known) == 1 or known[places[0].chunk_id].sequence in (0, 1))
        if begins and started_at_s is None and not zeros_s:
            prior_s = 0.0
        captured_s = zeros_s[0] if zeros_s and not strays else None
        stretches.append(Stretch(index, length_s, prior_s, is_timed, captured_s, error_s))
    return tuple(stretches)


def with_found_prior(stretch: Stretch, found: Sequence[tuple[Stretch, StretchClock]]) -> Stretch:
    """Return the stretch with the prior that follows from another's clock and the captured_at of both, if any.

    So `started_at` may be missing or wrong: what the longest stretch with a clock says of it is tried for the others.
    """
    known = [pair for pair in found if pair[1].pieces and pair[0].captured_s is not None]
    other, clock = max(known, key=lambda pair: pair[0].length_s, default=(None, None))
    if other is None or clock is None or other.captured_s is None or stretch.captured_s is None:
        return stretch
    prior_s = clock.pieces[0].offset_s + stretch.captured_s - other.captured_s
    return replace(stretch, prior_s=prior_s, is_timed=True)


def find_clock(
    stretch: Stretch,
    speech: Sequence[Span],
    heard: Sequence[Span],
    transcript: Sequence[Span],
    rules: AlignmentRules,
    *,
    has_word_times: bool = False,
) -> StretchClock:
    """Find the offsets of a stretch, or the reason why it has none.

    Args:
        stretch: the stretch and its prior.
        speech: when anyone speaks, in seconds of the stretch.
        heard: what of the stretch was diarized, in its seconds.
        transcript: spans of words, or of segments without word times, in seconds of the transcript; in any order.
        rules: what is enough.
        has_word_times: the spans are of words.
    """
    written = [(start_s, end_s) for start_s, end_s in transcript if end_s > start_s]
    reason: ClockReason = "clock.unverified" if stretch.is_timed else "clock.unknown"
    if not speech or not written:
        return StretchClock((), reason, _describe_missing(speech, heard))
    begin_s, end_s = min(start_s for start_s, _ in written), max(end_s for _, end_s in written)
    if end_s - begin_s > _MAX_TRANSCRIPT_S:
        return StretchClock((), reason, f"the transcript is {(end_s - begin_s) / 3600:,.0f} hours long: see its times")
    begin_s -= _EDGE_S
    steps = round((end_s + _EDGE_S - begin_s) / STEP_S)
    near = [(start_s - _EDGE_S, end_s + _EDGE_S) for start_s, end_s in written]
    kinds = WORD_CORRELATIONS if has_word_times else SEGMENT_CORRELATIONS
    text = measure_activity(written, near, begin_s, steps, kinds)
    for place, part in enumerate(_parts_to_search(stretch.length_s, speech)):
        sample = _measure_part(speech, heard, part, kinds)
        offset_s = _find_anchor(sample, text, stretch, rules, is_first=place == 0)
        if offset_s is not None:
            is_all = part == _Part(0.0, stretch.length_s)
            whole = sample if is_all else _measure_part(speech, heard, _Part(0.0, stretch.length_s), kinds)
            # Times that are an estimate say how far parts lie apart, and where they lie is what was found.
            expected_s = offset_s if stretch.error_s > rules.prior_tolerance_s else stretch.prior_s
            found = FoundOffset(offset_s, (part.start_s + part.end_s) / 2, expected_s)
            pieces = track_offset(whole, text, found, rules.tracking)
            clock = StretchClock(pieces, None)
            placed_s = sum(b - a for span in speech for a, b in clock.move(*span))
            speech_s = sum(end_s - start_s for start_s, end_s in speech)
            lost_s = speech_s - placed_s
            if lost_s <= STEP_S:
                return clock
            lost = f"{lost_s:,.{0 if lost_s >= 1 else 1}f} of {speech_s:,.0f} s of speech and the transcript {_NO_FIT}"
            return StretchClock(pieces, "clock.unverified", lost)
    return StretchClock((), reason, f"speech and transcript {_NO_FIT}{_say_what_would_help(stretch)}")


def confirm_clock(
    stretch: Stretch,
    speech: Sequence[Span],
    heard: Sequence[Span],
    transcript: Sequence[Span],
    rules: AlignmentRules,
    *,
    has_word_times: bool = False,
) -> StretchClock:
    """Find the clock of a stretch that others place at its prior: little is enough, beside what is written near it."""
    prior_s = stretch.prior_s or 0.0
    first_s, last_s = prior_s - _CONFIRMED_WITHIN_S, prior_s + stretch.length_s + _CONFIRMED_WITHIN_S
    near = [(start_s, end_s) for start_s, end_s in transcript if start_s < last_s and end_s > first_s]
    return find_clock(
        stretch, speech, heard, near, replace(rules, prior_nats=_CONFIRMING_NATS), has_word_times=has_word_times
    )


def _say_what_would_help(stretch: Stretch) -> str:
    if stretch.is_timed:
        return ""
    if stretch.captured_s is None:
        return "; captured_at of the audio is missing or strays: where it and started_at are sent, less is enough"
    return "; started_at of the conversation is missing, or more than a week off: where it is sent, less is enough"


def _describe_missing(speech: Sequence[Span], heard: Sequence[Span]) -> str:
    """Return what there was to compare too little of."""
    if speech:
        return "no word and no segment of the transcript has a length"
    return "nobody was heard in the audio" if heard else NOTHING_DIARIZED


@dataclass(frozen=True)
class _Part:
    """A part of a stretch whose offset is searched, as if it had been recorded too fast or too slowly by `rate`."""

    start_s: float
    end_s: float
    rate: float = 0.0


def _parts_to_search(length_s: float, speech: Sequence[Span]) -> Iterator[_Part]:
    """Yield the whole stretch; then, in case its offset changes, the whole at other rates and shorter parts of it.

    The parts lie where equal shares of the speech are: in an hour with a talk of five minutes all of them lie in that.
    """
    if length_s <= _LONGEST_S:
        yield _Part(0.0, length_s)
        if length_s >= _SHORTEST_S:
            for rate in _RATES:
                yield _Part(0.0, length_s, rate)
    part_s = min(120.0, max(_SHORTEST_S, length_s / 2))
    if length_s > part_s:
        shares = np.linspace(0.0, 1.0, _PARTS)
        spans = np.asarray(sorted(speech))
        spoken_s = np.cumsum(spans[:, 1] - spans[:, 0])
        turns = np.searchsorted(spoken_s, shares * spoken_s[-1]).clip(0, len(spans) - 1)
        moments_s = spans[turns, 1] - (spoken_s[turns] - shares * spoken_s[-1])
        for start_s in (moments_s - shares * part_s).clip(0.0, length_s - part_s):
            yield _Part(float(start_s), float(start_s) + part_s)


def _measure_part(
    speech: Sequence[Span], heard: Sequence[Span], part: _Part, kinds: tuple[float, float]
) -> ActivitySignal:
    middle_s = (part.start_s + part.end_s) / 2

    def moved(spans: Sequence[Span]) -> list[Span]:
        return [
            ((a - middle_s) * (1 + part.rate) + middle_s, (b - middle_s) * (1 + part.rate) + middle_s) for a, b in spans
        ]

    steps = max(1, round((part.end_s - part.start_s) / STEP_S))
    return measure_activity(moved(speech), moved(heard), part.start_s, steps, kinds)


def _find_anchor(
    audio: ActivitySignal, transcript: ActivitySignal, stretch: Stretch, rules: AlignmentRules, *, is_first: bool
) -> float | None:
    """Return an offset that fits the audio well enough, and better than any other; None where there is none."""
    prior_s = stretch.prior_s if stretch.error_s <= _MAX_ERROR_S else None
    tolerance_s = max(rules.prior_tolerance_s, stretch.error_s)
    is_estimated = stretch.error_s > rules.prior_tolerance_s
    offsets_s, nats = search_offsets(audio, transcript)
    candidates_s = offsets_s[_peaks(nats)]
    if prior_s is not None:
        reach = round(tolerance_s / STEP_S)
        candidates_s = np.concatenate((candidates_s, prior_s + np.arange(-reach, reach + 1) * STEP_S))
    totals = block_nats(audio, transcript, candidates_s).sum(axis=0, dtype=float)
    best = int(totals.argmax())
    more = 0.0 if is_first else rules.later_nats
    margin = _margin(totals, candidates_s, best, rules)
    if totals[best] >= rules.min_nats + more and margin >= rules.margin_nats + more:
        return float(candidates_s[best])
    if prior_s is None:
        return None
    near = np.flatnonzero(np.abs(candidates_s - prior_s) <= tolerance_s + STEP_S / 2)
    best = int(near[totals[near].argmax()])
    is_enough = totals[best] >= (rules.estimated_prior_nats if is_estimated else rules.prior_nats)
    least_margin = rules.estimated_margin_nats if is_estimated else rules.prior_margin_nats
    margin = _margin(totals, candidates_s, best, rules)
    return float(candidates_s[best]) if is_enough and margin >= least_margin else None


def _margin(totals: NDArray[np.float64], offsets_s: NDArray[np.float64], best: int, rules: AlignmentRules) -> float:
    """Return by how much one offset is better than every other that differs by more than the tolerance."""
    others = totals[np.abs(offsets_s - offsets_s[best]) > rules.tolerance_s + STEP_S / 2]
    return float(totals[best] - max(0.0, others.max(initial=0.0)))


def _peaks(nats: NDArray[np.float32]) -> list[int]:
    """Return where the largest values are, of neighbours within 0.3 s the largest only."""
    beyond = np.full(3, -np.inf, np.float32)
    ahead = np.concatenate((beyond, nats, beyond))
    around = reduce(np.maximum, (ahead[first : first + len(nats)] for first in range(7)))
    tops = np.flatnonzero(nats >= around)
    return [int(place) for place in tops[np.argsort(-nats[tops], kind="stable")[:_PEAKS]]]


def is_rate_suspect(chunks: Sequence[ChunkInfo], rules: AlignmentRules) -> bool:
    """Whether the sample rate seems wrong: chunks last 10 % more or less than the steps of captured_at between them.

    The median over all neighbouring chunks decides, and most of them must agree with it, so that jitter and pauses do
    not count. Pauses make steps longer, each by another length: a wrong rate makes all alike. Times in whole seconds
    make many steps alike too, but not all of them together.
    """
    timed = sorted(
        (chunk.captured_at_s, chunk.duration_s, chunk.sequence)
        for chunk in chunks
        if chunk.captured_at_s is not None
        and chunk.duration_s
        and not chunk.is_estimated
        and chunk.sequence is not None
    )
    lasting = [(later[0] - earlier[0], earlier[1]) for earlier, later in pairwise(timed) if later[2] == earlier[2] + 1]
    if len(lasting) < MIN_RATE_STEPS:
        return False
    steps = [step_s / length_s for step_s, length_s in lasting]
    middle, tolerance = median(steps), rules.rate_tolerance
    too_short = sum(step < 1.0 - tolerance for step in steps)
    alike = sum(abs(step - middle) <= tolerance * middle for step in steps)
    agreeing = too_short if middle < 1.0 else alike
    near = [(step_s, length_s) for step_s, length_s in lasting if abs(step_s - middle * length_s) <= COARSE_S]
    together = sum(step_s for step_s, _ in near) / sum(length_s for _, length_s in near) if near else middle
    is_off = min(abs(middle - 1.0), abs(together - 1.0)) > tolerance
    return is_off and agreeing >= MIN_RATE_SHARE * len(steps)
