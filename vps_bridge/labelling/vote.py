"""Voting: which voice speaks each transcript segment, and which segments are better left alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vps_bridge.conversations.store import StoredSegment


@dataclass(frozen=True)
class AssignmentRules:
    """When a segment gets a label.

    Coverage is the winner's share of the speech inside the segment, where at least half of the segment counts
    as speech: segments hold pauses, so their whole duration is too strict; and a neighbour's last syllable in an
    otherwise silent segment is no evidence, so their speech alone is too lax.
    """

    min_coverage: float = 0.5
    min_evidence_s: float = 0.25
    """Least seconds of the winner: transcript times are off by as much."""
    speech_share: float = 0.5
    """Share of a segment that counts as speech at least."""
    runner_up_share: float = 0.2
    """A second voice with this share and `runner_up_s` makes a segment one of two speakers (TalkTrack #100)."""
    runner_up_s: float = 1.0


@dataclass(frozen=True)
class VoiceTurn:
    """Exclusive speech on the transcript's clock; voices are numbered as the partition orders them."""

    start_s: float
    end_s: float
    voice: int
    """Negative: local speakers in no voice. They count as speech and never win."""


class VoteOutcome(StrEnum):
    """What the vote says about a segment; all but `CLEAR` leave it alone, the value is the reason."""

    CLEAR = "clear"
    HUMAN = "human"
    TWO_SPEAKERS = "two_speakers"
    LOW_COVERAGE = "low_coverage"
    NO_AUDIO = "no_audio"
    CLOCK_UNKNOWN = "clock.unknown"
    CLOCK_UNVERIFIED = "clock.unverified"


@dataclass(frozen=True)
class Vote:
    """The vote on one segment."""

    segment_id: str
    outcome: VoteOutcome
    winner: int | None
    """The voice with most speech; None where no voice speaks in it."""
    coverage: float
    winner_s: float
    runner_up: int | None
    runner_up_s: float


def vote_segments(
    turns: Iterable[VoiceTurn],
    segments: Iterable[StoredSegment],
    rules: AssignmentRules,
    *,
    audio: Sequence[tuple[float, float]] | None = None,
) -> tuple[Vote, ...]:
    """Vote on every segment, in the order given.

    Segments may be unsorted, overlap, be empty, negative or beyond the audio. A human-labelled segment is voted
    on as well (its voice counts for naming) but its outcome is always `human`.

    Args:
        turns: exclusive turns; they may come in any order.
        segments: the transcript.
        rules: the thresholds.
        audio: spans of diarized audio on the transcript's clock; a segment outside is `no_audio`. None: all of it.
    """
    listed = tuple(segments)
    measured = measure_segments(turns, listed)
    return tuple(_vote(segment, seconds, rules, audio) for segment, seconds in zip(listed, measured, strict=True))


def measure_segments(turns: Iterable[VoiceTurn], segments: Iterable[StoredSegment]) -> tuple[dict[int, float], ...]:
    """Return for each segment, in the order given, how many seconds each voice speaks in it."""
    timeline = sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.voice))
    longest_s = max((turn.end_s - turn.start_s for turn in timeline), default=0.0)
    starts = [turn.start_s for turn in timeline]
    measured = []
    for segment in segments:
        seconds: dict[int, float] = {}
        first, last = bisect_left(starts, segment.start_s - longest_s), bisect_right(starts, segment.end_s)
        for turn in timeline[first:last]:
            shared_s = min(segment.end_s, turn.end_s) - max(segment.start_s, turn.start_s)
            if shared_s > 0:
                seconds[turn.voice] = seconds.get(turn.voice, 0.0) + shared_s
        measured.append(seconds)
    return tuple(measured)


def _vote(
    segment: StoredSegment,
    seconds: Mapping[int, float],
    rules: AssignmentRules,
    audio: Sequence[tuple[float, float]] | None,
) -> Vote:
    ranked = sorted(seconds, key=lambda voice: (-seconds[voice], voice < 0, voice))
    winner, runner_up = [*ranked, None, None][:2]
    winner_s, runner_up_s = ([seconds[voice] for voice in ranked] + [0.0, 0.0])[:2]
    speech_s = max(sum(seconds.values()), rules.speech_share * (segment.end_s - segment.start_s))
    coverage = min(1.0, winner_s / speech_s) if speech_s > 0 else 0.0
    if segment.is_human_labelled:
        outcome = VoteOutcome.HUMAN
    elif audio is not None and not any(start < segment.end_s and segment.start_s < end for start, end in audio):
        outcome = VoteOutcome.NO_AUDIO
    elif runner_up_s >= rules.runner_up_s and runner_up_s >= rules.runner_up_share * speech_s:
        outcome = VoteOutcome.TWO_SPEAKERS
    elif winner is None or winner < 0 or coverage < rules.min_coverage or winner_s < rules.min_evidence_s:
        outcome = VoteOutcome.LOW_COVERAGE
    else:
        outcome = VoteOutcome.CLEAR
    return Vote(segment.id, outcome, winner, coverage, winner_s, runner_up, runner_up_s)
