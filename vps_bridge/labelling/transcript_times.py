"""Times that cannot be: transcripts in milliseconds, segments that end before they start, clocks hours or years apart.

What such times would say about labels is wrong, so nothing follows from them but a warning: the labels stay. Where they
are of some segments only, the others are labelled without them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from schemas.conversation import Word
from schemas.record import MAX_DURATION_S
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.audio_clock import Span, SpanUnion
from vps_bridge.labelling.evidence import AudioTimeline, ConversationEvidence
from vps_bridge.labelling.vote import Vote, VoteOutcome

HOUR_S, DAY_S = 3600.0, 86_400.0
NEAR_HOUR_S = 120.0
"""The first chunk is captured up to a minute after `started_at` (shared/design/omi-facts.md, section 2)."""
MAX_ZONE_H = 14  # of any place's clock before or behind UTC
MAX_ID_CHARS = 40
NEAR_WORD_S = 1.0
"""Words lie this far outside their segment where speech-to-text rounds or moves edges."""
LONGEST_S = DAY_S - 2 * NEAR_WORD_S
"""A transcript that is longer has wrong times somewhere; with its words it lasts no longer than can be searched."""
LONG_SEGMENT_S = 100.0
"""Segments last some seconds; half of them longer than this are milliseconds: more than 0.1 s each."""
MANY_HELD = 10
"""Fewer others may be what is said into somebody's long speech."""
MILLISECONDS_FILL = (0.3, 1.2)
"""Milliseconds taken for seconds end at about a thousand times the length of the audio: within these shares of it."""


class TimedSegment(Protocol):
    """A piece of a transcript, as it is sent or as a store has it."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def start_s(self) -> float:
        """When it begins."""
        ...

    @property
    def end_s(self) -> float:
        """When it ends."""
        ...

    @property
    def words(self) -> tuple[Word, ...] | None:
        """Its words, where their times are known."""
        ...


@dataclass(frozen=True)
class TimeFaults:
    """What is wrong with the times of a transcript, or of the audio against it."""

    warnings: tuple[str, ...] = ()
    impossible: frozenset[str] = frozenset()
    """Ids of segments whose own times cannot be."""
    is_displaced: bool = False
    """Some audio lies where no segment is, while some segments lie where no audio is: they may belong together."""


@dataclass(frozen=True)
class _PlacedStretch:
    """A stretch in seconds of the transcript, as far as its clock is right."""

    span: Span
    speech_start_s: float | None
    """When somebody first speaks in it; None where no job found anybody."""
    captured_after_s: float | None
    """How long after `started_at` its first sample was captured; None where one of them is missing."""

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.span[1] - self.span[0]


def find_time_faults(
    evidence: ConversationEvidence, timeline: AudioTimeline, offsets: Sequence[float | None]
) -> TimeFaults:
    """Look for times that cannot be.

    Args:
        evidence: the transcript, and when it began.
        timeline: the conversation's audio.
        offsets: by stretch, what is added to its seconds to get transcript seconds; None where nobody knows, and
            then captured_at alone says where it would lie.
    """
    segments = evidence.segments
    if not segments:
        return TimeFaults()
    stretches, warnings = _place_stretches(timeline, evidence.started_at_s, offsets), describe_own_times(segments)
    apart = _find_apart(segments)
    impossible = apart | {segment.id for segment in segments if _is_backwards(segment)}
    usable = [segment for segment in segments if not _is_backwards(segment)]
    audio_end_s = max((place.span[1] for place in stretches), default=0.0)
    if _are_milliseconds(usable, audio_end_s):
        last_s = max(segment.end_s for segment in usable)
        warnings.append(
            f"times.milliseconds: the transcript ends at {last_s:,.0f} s, the audio at {audio_end_s:,.0f} s: its times "
            "look like milliseconds; send seconds"
        )
        return TimeFaults(tuple(warnings), frozenset(segment.id for segment in segments))
    if apart:
        warnings.append(_describe_far([segment for segment in segments if segment.id in apart], segments))
        usable = [segment for segment in usable if segment.id not in apart]
    all_lengths_known = evidence.is_final or all(chunk.duration_s for chunk in timeline.chunks)
    is_all_placed = all_lengths_known and len(stretches) == len(timeline.origins)
    displaced = _describe_displaced(usable, stretches) if is_all_placed else None
    corrected = None if displaced else _describe_corrected(usable, stretches)
    warnings.extend(words for words in (displaced, corrected) if words is not None)
    return TimeFaults(tuple(warnings), impossible, displaced is not None)


def spans_to_compare(segments: Sequence[StoredSegment]) -> tuple[list[Span], bool]:
    """Return the spans of a transcript that speech is compared with, and whether most of them are words.

    They are of its words, of a segment without credible word times its own; none of a segment whose times cannot be,
    or that lies around most others: speech fits into it wherever that is moved.
    """
    apart = _find_apart(segments)
    middles_s = sorted((segment.start_s + segment.end_s) / 2 for segment in segments)
    words: list[Span] = []
    whole: list[Span] = []
    for segment in segments:
        if segment.id in apart:
            continue
        if has_credible_words(segment):
            words += [(word.start_s, word.end_s) for word in segment.words or ()]
        elif not _is_around_most(segment, middles_s):
            whole.append((segment.start_s, segment.end_s))
    return words + whole, len(words) > len(whole)


def _is_around_most(segment: TimedSegment, middles_s: Sequence[float]) -> bool:
    """Whether more than half of all segments lie in one; `middles_s`: of all of them, sorted."""
    held = bisect_right(middles_s, segment.end_s) - bisect_left(middles_s, segment.start_s) - 1  # without itself
    return held >= MANY_HELD and 2 * held > len(middles_s)


def has_credible_words(segment: TimedSegment) -> bool:
    """Whether a segment has word times, all of them where the segment is."""
    return bool(segment.words) and not _has_strayed_words(segment)


def describe_own_times(segments: Sequence[TimedSegment]) -> list[str]:
    """Return what to say of times that cannot be whatever the audio: ends before starts, and words somewhere else."""
    backwards = [segment for segment in segments if _is_backwards(segment)]
    strayed = [segment for segment in segments if not _is_backwards(segment) and _has_strayed_words(segment)]
    said = [_describe_backwards(backwards, segments)] if backwards else []
    return [*said, _describe_strayed(strayed, segments)] if strayed else said


def leave_alone(votes: Sequence[Vote], faults: TimeFaults) -> tuple[Vote, ...]:
    """Return the votes without what times that cannot be would decide."""

    def judge(vote: Vote) -> Vote:
        if vote.outcome is VoteOutcome.HUMAN:
            return vote
        if vote.segment_id in faults.impossible:
            return replace(vote, outcome=VoteOutcome.TIMES_IMPOSSIBLE)
        if vote.outcome is VoteOutcome.NO_AUDIO and faults.is_displaced:
            return replace(vote, outcome=VoteOutcome.CLOCK_UNVERIFIED)
        return vote

    return tuple(judge(vote) for vote in votes)


def _place_stretches(
    timeline: AudioTimeline, started_at_s: float | None, offsets: Sequence[float | None]
) -> list[_PlacedStretch]:
    """Return the stretches whose place is known or claimed."""
    captured = {chunk.chunk_id: chunk.captured_at_s for chunk in timeline.chunks}
    length_s: dict[int, float] = {}
    captured_after_s: dict[int, float] = {}
    for place in timeline.placed:
        length_s[place.stretch] = max(length_s.get(place.stretch, 0.0), place.start_s + place.duration_s)
        captured_at_s = captured[place.chunk_id]
        if captured_at_s is not None and started_at_s is not None:
            captured_after_s.setdefault(place.stretch, captured_at_s - place.start_s - started_at_s)
    speech_s: dict[int, float] = {}
    for turn in timeline.exclusive_turns:
        speech_s.setdefault(turn.stretch, turn.start_s)  # they are sorted
    placed = []
    for stretch, long_s in sorted(length_s.items()):
        used_s = offsets[stretch]
        offset_s = captured_after_s.get(stretch) if used_s is None else used_s
        if offset_s is not None:
            first_s = speech_s.get(stretch)
            span = (offset_s, offset_s + long_s)
            speech_start_s = None if first_s is None else offset_s + first_s
            placed.append(_PlacedStretch(span, speech_start_s, captured_after_s.get(stretch)))
    return placed


def _are_milliseconds(segments: Sequence[StoredSegment], audio_end_s: float) -> bool:
    if not segments or audio_end_s <= 0:
        return False
    least, most = MILLISECONDS_FILL
    fills = least <= max(segment.end_s for segment in segments) / 1000 / audio_end_s <= most
    return fills and median(segment.end_s - segment.start_s for segment in segments) > LONG_SEGMENT_S


def _find_apart(segments: Sequence[StoredSegment]) -> frozenset[str]:
    """Return the ids of segments outside the day that most segments are in."""
    starts_s = sorted(segment.start_s for segment in segments if segment.end_s - segment.start_s <= LONGEST_S)
    held = [bisect_right(starts_s, start_s + LONGEST_S) - place for place, start_s in enumerate(starts_s)]
    begin_s = starts_s[held.index(max(held))] if starts_s else 0.0
    return frozenset(
        segment.id for segment in segments if segment.start_s < begin_s or segment.end_s > begin_s + LONGEST_S
    )


def _describe_far(apart: Sequence[TimedSegment], segments: Sequence[TimedSegment]) -> str:
    first = apart[0]
    return (
        f"times.far_apart: {len(apart)} of {len(segments)} segments lie a day or more from the others, first "
        f"{first.id[:MAX_ID_CHARS]} ({first.start_s:,.2f} to {first.end_s:,.2f} s): send all on one clock"
    )


def _is_backwards(segment: TimedSegment) -> bool:
    return segment.end_s < segment.start_s


def _describe_backwards(backwards: Sequence[TimedSegment], segments: Sequence[TimedSegment]) -> str:
    first = backwards[0]
    return (
        f"times.end_before_start: {len(backwards)} of {len(segments)} segments end before they start, first "
        f"{first.id[:MAX_ID_CHARS]} ({first.start_s:,.2f} to {first.end_s:,.2f} s): send start_s, then end_s"
    )


def _has_strayed_words(segment: TimedSegment) -> bool:
    first_s, last_s = segment.start_s - NEAR_WORD_S, segment.end_s + NEAR_WORD_S
    return any(word.start_s < first_s or word.end_s > last_s for word in segment.words or ())


def _describe_strayed(strayed: Sequence[TimedSegment], segments: Sequence[TimedSegment]) -> str:
    first = strayed[0]
    words = first.words or ()
    first_s, last_s = min(word.start_s for word in words), max(word.end_s for word in words)
    words_at, segment_at = f"{first_s:,.2f} to {last_s:,.2f} s", f"{first.start_s:,.2f} to {first.end_s:,.2f} s"
    return (
        f"times.words_outside: of {len(strayed)} of {len(segments)} segments, first {first.id[:MAX_ID_CHARS]} (words "
        f"{words_at}, segment {segment_at}); not used: send both on one clock"
    )


def _describe_displaced(segments: Sequence[StoredSegment], stretches: Sequence[_PlacedStretch]) -> str | None:
    """Return what to say where speech lies where no segment is, while segments lie where no audio is."""
    text = SpanUnion((segment.start_s, segment.end_s) for segment in segments)
    audio = SpanUnion(place.span for place in stretches)
    starts_s = [segment.start_s for segment in segments if not audio.meets((segment.start_s, segment.end_s))]
    without_text = [place for place in stretches if place.speech_start_s is not None and not text.meets(place.span)]
    if not starts_s or not without_text:
        return None
    first = without_text[0]
    apart_s = (first.speech_start_s or 0.0) - min(starts_s)
    if first.captured_after_s is not None and len(starts_s) == len(segments) and text.meets((0.0, first.length_s)):
        apart_s = first.captured_after_s  # the transcript begins with this audio: both zeros are what is compared
    return _describe_apart(abs(apart_s))


def _describe_corrected(segments: Sequence[StoredSegment], stretches: Sequence[_PlacedStretch]) -> str | None:
    """Return what to say where audio was placed elsewhere than captured_at says, and no segment is where it says."""
    text = SpanUnion((segment.start_s, segment.end_s) for segment in segments)
    for place in stretches:
        claimed_s = place.captured_after_s
        if claimed_s is None or abs(place.span[0] - claimed_s) <= NEAR_HOUR_S or not text.meets(place.span):
            continue
        if not text.meets((claimed_s, claimed_s + place.length_s)):
            return f"{_describe_apart(abs(claimed_s - place.span[0]))} (placed by what is spoken)"
    return None


def _describe_apart(apart_s: float) -> str:
    return f"clock.no_overlap: audio and transcript do not overlap by {apart_s:,.0f} s: {_explain(apart_s)}"


def _explain(apart_s: float) -> str:
    """Return what so many seconds look like, and what to do."""
    if apart_s > MAX_DURATION_S:
        return "captured_at or started_at is of a clock that was not set; send the right time, or none"
    hours = round(2 * apart_s / HOUR_S) / 2
    if 0 < hours <= MAX_ZONE_H and abs(apart_s - hours * HOUR_S) <= NEAR_HOUR_S:
        kind = "whole" if hours == round(hours) else "half"
        return f"{kind} hours look like a time zone; send captured_at and started_at in UTC"
    if apart_s >= DAY_S - NEAR_HOUR_S:
        return "compare the dates of captured_at and started_at"
    return "compare captured_at with started_at, or see whether the segments are of this audio"
