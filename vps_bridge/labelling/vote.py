"""Voting: which voice speaks in each transcript segment, and which segments are better left alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from vps_bridge.conversations.near_in_time import NearInTime
from vps_bridge.conversations.store import StoredSegment, shared_s
from vps_bridge.labelling.audio_clock import Span, SpanUnion


@dataclass(frozen=True)
class AssignmentRules:
    """When a segment gets a label.

    Coverage is the winner's share of the speech inside the segment, where at least half of the segment counts as
    speech. A share of the whole segment would be too strict, since segments contain pauses. A share of the speech alone
    would be too lax: another speaker's last syllable would then win an otherwise silent segment.
    """

    min_coverage: float = 0.5
    min_evidence_s: float = 0.25
    """The winner speaks at least this long: the times of a transcript are wrong by as much. A segment shorter than
    this, of no length even, stands for the turn at its middle, up to twice as far on either side."""
    speech_share: float = 0.5
    """At least this share of a segment counts as speech."""
    runner_up_share: float = 0.2
    """A segment has two speakers if a second voice has this share of its speech, and `runner_up_s` (TalkTrack #100)."""
    runner_up_s: float = 1.0
    removes_stale: bool = False
    """Take the number off a segment with two speakers where it means another voice than speaks most in it."""


@dataclass(frozen=True)
class TranscriptTurn:
    """A turn in seconds of the transcript; no two turns overlap."""

    start_s: float
    end_s: float
    speaker_index: int
    """Who speaks. `vote_segments`: the voice, as an index of the partition; negative for a local speaker in no voice,
    which counts as speech but never wins. `measure_segments`: any index."""


class VoteOutcome(StrEnum):
    """What the vote says about a segment. All but `CLEAR` leave it alone, and the value is the reason reported."""

    CLEAR = "clear"
    HUMAN = "human"
    TWO_SPEAKERS = "two_speakers"
    LOW_COVERAGE = "low_coverage"
    NO_VOICE = "no_voice"
    """Somebody covers enough of it, of whom too little is heard to tell who it is."""
    NO_AUDIO = "no_audio"
    CLOCK_UNKNOWN = "clock.unknown"
    CLOCK_UNVERIFIED = "clock.unverified"
    TIMES_IMPOSSIBLE = "times.impossible"


@dataclass(frozen=True)
class Vote:
    """The vote on one segment."""

    segment_id: str
    outcome: VoteOutcome
    winner: int | None
    """Index of who speaks most in it; negative for a local speaker in no voice, None where nobody speaks."""
    coverage: float
    winner_s: float
    runner_up: int | None
    """Index of who speaks second most."""
    runner_up_s: float


def vote_segments(
    turns: Iterable[TranscriptTurn],
    segments: Iterable[StoredSegment],
    rules: AssignmentRules,
    *,
    audio: Sequence[Span] | None = None,
) -> tuple[Vote, ...]:
    """Vote on every segment, in the order given.

    Segments may be unsorted, overlap, have no length or a negative one, or lie beyond the audio. There is a vote on a
    human-labelled segment too, since its voice counts when numbers are given, but its outcome is always `human`.

    Args:
        turns: exclusive turns, in any order.
        segments: the transcript.
        rules: the thresholds.
        audio: spans of diarized audio in transcript seconds; a segment outside is `no_audio`. None: no segment is.
    """
    ordered = _OrderedTurns(turns)
    listed = tuple(ordered.widen(segment, rules.min_evidence_s) for segment in segments)
    covered = None if audio is None else SpanUnion(audio)
    return tuple(_vote(segment, ordered.measure(segment), rules, covered) for segment in listed)


def measure_segments(
    turns: Iterable[TranscriptTurn], segments: Iterable[StoredSegment]
) -> tuple[dict[int, float], ...]:
    """Return for each segment, in the order given, how many seconds each speaker speaks in it."""
    ordered = _OrderedTurns(turns)
    return tuple(ordered.measure(segment) for segment in segments)


class _OrderedTurns:
    """Turns in order of time; of many, only those near a segment are looked at."""

    def __init__(self, turns: Iterable[TranscriptTurn]) -> None:
        by_speaker = sorted(turns, key=lambda turn: turn.speaker_index)
        self._turns = NearInTime(by_speaker, lambda turn: (turn.start_s, turn.end_s))

    def measure(self, segment: StoredSegment) -> dict[int, float]:
        """Return how many seconds each speaker speaks in a segment."""
        seconds: dict[int, float] = {}
        span = segment.start_s, segment.end_s
        for turn in self._turns.find(span):
            both_s = shared_s(span, (turn.start_s, turn.end_s))
            if both_s > 0:
                seconds[turn.speaker_index] = seconds.get(turn.speaker_index, 0.0) + both_s
        return seconds

    def widen(self, segment: StoredSegment, least_s: float) -> StoredSegment:
        """Return a segment shorter than `least_s` as the part of the turn at its middle, if there is one."""
        if not 0.0 <= segment.end_s - segment.start_s < least_s:
            return segment
        middle_s = (segment.start_s + segment.end_s) / 2
        turn = next((turn for turn in self._turns.find((middle_s, middle_s)) if middle_s < turn.end_s), None)
        if turn is None:
            return segment
        start_s, end_s = max(turn.start_s, middle_s - 2 * least_s), min(turn.end_s, middle_s + 2 * least_s)
        return replace(segment, start_s=start_s, end_s=end_s)


def _vote(
    segment: StoredSegment,
    seconds: Mapping[int, float],
    rules: AssignmentRules,
    audio: SpanUnion | None,
) -> Vote:
    # Of two with equally much speech a voice comes before a local speaker in no voice.
    ranked = sorted(seconds, key=lambda index: (-seconds[index], index < 0, index))
    winner, runner_up = [*ranked, None, None][:2]
    winner_s, runner_up_s = ([seconds[index] for index in ranked] + [0.0, 0.0])[:2]
    speech_s = max(sum(seconds.values()), rules.speech_share * (segment.end_s - segment.start_s))
    coverage = min(1.0, winner_s / speech_s) if speech_s > 0 else 0.0
    if segment.is_human_labelled:
        outcome = VoteOutcome.HUMAN
    elif audio is not None and not audio.meets((segment.start_s, segment.end_s)):
        outcome = VoteOutcome.NO_AUDIO
    elif runner_up_s >= rules.runner_up_s and runner_up_s >= rules.runner_up_share * speech_s:
        outcome = VoteOutcome.TWO_SPEAKERS
    elif winner is None or coverage < rules.min_coverage or winner_s < rules.min_evidence_s:
        outcome = VoteOutcome.LOW_COVERAGE
    elif winner < 0:
        outcome = VoteOutcome.NO_VOICE
    else:
        outcome = VoteOutcome.CLEAR
    return Vote(segment.id, outcome, winner, coverage, winner_s, runner_up, runner_up_s)
