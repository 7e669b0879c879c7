"""Drawn cases for the clock: a part of a real pair, and what may go wrong between a device and its backend."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.labels.pairs import RealPair, SpokenWord
from vps_bridge.labelling.audio_clock import Span

CAUSES = (
    "none",
    "wrong by 1-30 s",
    "wrong by 45-180 s",
    "started_at or captured_at missing",
    "both missing",
    "wrong by whole hours",
    "seconds dropped",
    "pauses collapsed",
    "drift of 100 ppm",
    "drift of 1 %",
    "transcript not there yet",
)
KINDS = ("cut at pauses", "a service's own", "merged blocks")


@dataclass(frozen=True)
class ClockCase:
    """One stretch of audio, a transcript, and the truth between them."""

    pair: str
    cause: str
    kind: str
    has_word_times: bool
    kept_aside: bool
    length_s: float
    speech: tuple[Span, ...]
    """In seconds of the stretch."""
    transcript: tuple[Span, ...]
    """Words or segments, in seconds of the transcript."""
    prior_s: float | None
    knots: tuple[tuple[float, float], ...]
    """(second of the stretch, offset from there on), sorted."""
    slope: float
    """How much the offset grows in a second of audio, beside the knots."""

    def true_offset_s(self, moment_s: float) -> float:
        """Return what must be added to a second of the stretch."""
        offset_s = next(offset_s for start_s, offset_s in reversed(self.knots) if start_s <= moment_s)
        return offset_s + self.slope * moment_s

    @property
    def has_answer(self) -> bool:
        """Whether the transcript contains this audio at all."""
        return self.cause != "transcript not there yet"

    @property
    def pauses(self) -> int:
        """How many pauses of 0.3 s or more the transcript has beside this audio."""
        ordered = sorted(self.transcript)
        first_s, last_s = self.true_offset_s(0.0), self.length_s + self.true_offset_s(self.length_s)
        within = [span for span in ordered if span[1] > first_s and span[0] < last_s]
        return sum(later[0] - earlier[1] >= 0.3 for earlier, later in pairwise(within))


def draw_case(pairs: Sequence[RealPair], seed: int) -> ClockCase:
    """Draw a case; the same seed gives the same."""
    draw = random.Random(seed)  # noqa: S311 - drawn cases, no secret
    pair = draw.choice(pairs)
    cause, kind = CAUSES[seed % len(CAUSES)], KINDS[seed // len(CAUSES) % len(KINDS)]
    has_word_times = draw.random() < 0.5
    length_s = min(draw.choice((20.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0)), pair.length_s - 10.0)
    start_s = draw.uniform(0.0, pair.length_s - length_s)
    spans, knots, slope = _record(pair, start_s, length_s, cause, draw)
    length_s = max((end_s for _, end_s in spans), default=0.0) + draw.uniform(0.0, 1.0) if knots[1:] else length_s
    begins_s = (draw.uniform(1.0, 60.0),) if cause == "both missing" else (0.0, 0.0, draw.uniform(0.0, 60.0))
    zero_s = start_s - draw.choice(begins_s)  # of the transcript, in the recording
    wider_s = draw.choice((0.0, 0.0, 200.0))
    words = [word for word in pair.words if start_s - wider_s <= word.start_s < start_s + length_s + wider_s]
    if cause == "transcript not there yet":
        words = [word for word in pair.words if not start_s - 5 <= word.start_s < start_s + length_s + 5][:800]
    segments = [(word.start_s, word.end_s) for word in words] if has_word_times else make_segments(words, kind, draw)
    return ClockCase(
        pair.name,
        cause,
        kind,
        has_word_times,
        pair.kept_aside,
        length_s,
        tuple(_diarize(spans, length_s, draw)),
        tuple((a - zero_s, b - zero_s) for a, b in segments),
        _draw_prior(start_s - zero_s, cause, draw),
        tuple((moment_s, offset_s + start_s - zero_s) for moment_s, offset_s in knots),
        slope,
    )


def _record(
    pair: RealPair, start_s: float, length_s: float, cause: str, draw: random.Random
) -> tuple[list[Span], list[tuple[float, float]], float]:
    """Return the speech as the device recorded it, from `start_s` on, and what must be added to get it back."""
    spans = _union(
        (max(0.0, turn.start_s - start_s), min(length_s, turn.end_s - start_s))
        for turn in pair.turns
        if turn.start_s < start_s + length_s and turn.end_s > start_s
    )
    knots = [(0.0, 0.0)]
    slope = draw.choice((-1, 1)) * {"drift of 100 ppm": 1e-4, "drift of 1 %": 1e-2}.get(cause, 0.0)
    cuts: list[Span] = []
    if cause == "seconds dropped":
        for _ in range(draw.choice((1, 1, 2))):
            lost_s = draw.choice((draw.uniform(0.5, 3.0), draw.uniform(3.0, 15.0)))
            begin_s = draw.uniform(0.15, 0.85) * length_s
            cuts.append((begin_s, min(length_s, begin_s + lost_s)))
    elif cause == "pauses collapsed":
        longest = sorted(pairwise(spans), key=lambda two: two[0][1] - two[1][0])[: draw.choice((1, 2, 3))]
        cuts = [(before[1] + 0.2, after[0]) for before, after in longest if after[0] - before[1] > 0.5]
    for begin_s, end_s in reversed(_union(cuts)):
        spans = _cut(spans, begin_s, end_s)
    lost_s = 0.0
    for begin_s, end_s in _union(cuts):
        knots.append((begin_s - lost_s, lost_s + end_s - begin_s))
        lost_s += end_s - begin_s
    return [(a / (1 + slope), b / (1 + slope)) for a, b in spans], knots, slope


def _cut(spans: Sequence[Span], begin_s: float, end_s: float) -> list[Span]:
    """Take a part of the recording out and close the hole."""

    def moved(moment_s: float) -> float:
        return moment_s if moment_s <= begin_s else max(begin_s, moment_s - (end_s - begin_s))

    return [(moved(a), moved(b)) for a, b in spans if moved(b) > moved(a)]


def _diarize(spans: Sequence[Span], length_s: float, draw: random.Random) -> list[Span]:
    """Return what an engine would find: edges off, 5 % missed, some noise taken for speech."""
    found = [
        (max(0.0, a + draw.gauss(0.0, 0.08)), min(length_s, b + draw.gauss(0.0, 0.08)))
        for a, b in spans
        if draw.random() > 0.05
    ]
    for _ in range(int(length_s / 60 + draw.random())):
        at_s = draw.uniform(0.0, length_s)
        found.append((at_s, min(length_s, at_s + draw.uniform(0.2, 1.0))))
    return _union((a, b) for a, b in found if b > a)


def _draw_prior(true_s: float, cause: str, draw: random.Random) -> float | None:
    """Return what captured_at and started_at say, off by up to 0.3 s where they are right."""
    sign = draw.choice((-1.0, 1.0))
    jitter_s = draw.uniform(-0.3, 0.3)
    if cause == "started_at or captured_at missing":
        return None
    if cause == "both missing":
        return 0.0  # the beginning of a conversation: audio and transcript may be of one file, and mostly are not
    if cause in ("seconds dropped", "pauses collapsed", "drift of 100 ppm", "drift of 1 %", "transcript not there yet"):
        wrong_s = draw.choice((0.0, sign * draw.uniform(1.5, 60.0), None))
        return None if wrong_s is None else true_s + wrong_s + jitter_s
    wrong_s = {
        "wrong by 1-30 s": draw.uniform(1.0, 30.0),
        "wrong by 45-180 s": draw.uniform(45.0, 180.0),
        "wrong by whole hours": 3600.0 * draw.randint(1, 12),
    }.get(cause, 0.0)
    return true_s + sign * wrong_s + jitter_s


def make_segments(words: Sequence[SpokenWord], kind: str, draw: random.Random) -> list[Span]:
    """Join words to segments of one kind."""
    gap_s, longest_s = {"cut at pauses": (0.6, 15.0), "a service's own": (3.0, 12.0)}.get(kind, (2.0, 60.0))
    has_sentences = any(word.ends_sentence for word in words)
    if kind == "a service's own" and not has_sentences:
        gap_s = draw.choice((0.6, 0.8))
    joined: list[list[float]] = []
    is_new = True
    for word in words:
        if is_new or word.start_s - joined[-1][1] >= gap_s or word.end_s - joined[-1][0] > longest_s:
            joined.append([word.start_s, word.end_s])
        else:
            joined[-1][1] = word.end_s
        is_new = kind == "a service's own" and word.ends_sentence
    return [(start_s, end_s) for start_s, end_s in joined]


def _union(spans: object) -> list[Span]:
    joined: list[Span] = []
    for start_s, end_s in sorted(spans):  # type: ignore[call-overload]
        if joined and start_s - joined[-1][1] < 0.05:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_s))
        else:
            joined.append((start_s, end_s))
    return joined
