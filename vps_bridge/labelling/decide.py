"""From votes and names to the label each segment shall read: what is changed, kept, followed or taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from schemas.conversation import SegmentLabel
from vps_bridge.conversations.store import StoredSegment, speaker_name, speaker_number
from vps_bridge.labelling.evidence import AudioTimeline
from vps_bridge.labelling.link import LocalSpeaker
from vps_bridge.labelling.number import FoundVoice, Naming, VoiceBook
from vps_bridge.labelling.vote import Vote, VoteOutcome

_MAX_NUMBER = 10_000  # what a message carries; a label with more digits is no number of ours
_UNSURE = (VoteOutcome.LOW_COVERAGE, VoteOutcome.NO_AUDIO)


def _number(speaker: str | None) -> int | None:
    number = speaker_number(speaker)
    return number if number is not None and number <= _MAX_NUMBER else None


def left_numbers(segments: Sequence[StoredSegment], votes: Sequence[Vote], ours: Mapping[str, int]) -> dict[str, int]:
    """The numbers on segments that keep what they have: id -> number.

    A segment without evidence keeps it unless it is speech-to-text's default: the label that every segment of the
    conversation came with says nothing about who speaks.
    """
    came_with = {
        segment.id: segment.speaker
        if segment.original_speaker is None and segment.id not in ours
        else segment.original_speaker
        for segment in segments
        if not segment.is_human_labelled
    }
    only_default = len(set(came_with.values())) == 1
    left: dict[str, int] = {}
    for segment, vote in zip(segments, votes, strict=True):
        number = _number(segment.speaker)
        if number is None or vote.outcome is VoteOutcome.CLEAR:
            continue
        if vote.outcome in _UNSURE and only_default and ours.get(segment.id) != number:
            continue
        left[segment.id] = number
    return left


def found_voices(
    segments: Sequence[StoredSegment],
    heard: AudioTimeline,
    measured: Sequence[Mapping[int, float]],
    partition: Sequence[Sequence[LocalSpeaker]],
    votes: Sequence[Vote],
    left: Mapping[str, int],
) -> list[FoundVoice]:
    """Return what speaks for each voice's name: its seconds by member and by segment, and the numbers it dominates.

    Args:
        segments: the transcript; without one, every voice is matched and all its speech counts.
        heard: the local speakers and their turns.
        measured: per segment, seconds of each local speaker (its place in `heard.voices`).
        partition: the voices, in order of first speech.
        votes: per segment.
        left: numbers on segments that keep what they have.
    """
    labelled_s = [0.0] * len(heard.voices)
    if segments:
        for seconds in measured:
            for place, spoken_s in seconds.items():
                labelled_s[place] += spoken_s
    else:
        for turn in heard.turns:
            labelled_s[turn.voice] += turn.end_s - turn.start_s
    place_of = {voice.id: place for place, voice in enumerate(heard.voices)}
    matched = _matched_voices(votes)
    standing = _dominating(votes, left)
    voice_at = {place_of[member]: voice for voice, members in enumerate(partition) for member in members}
    in_segment: list[dict[str, float]] = [{} for _ in partition]
    for segment, seconds in zip(segments, measured, strict=True):
        for place, spoken_s in seconds.items():
            if place in voice_at:
                by_segment = in_segment[voice_at[place]]
                by_segment[segment.id] = by_segment.get(segment.id, 0.0) + spoken_s
    found = []
    for voice, members in enumerate(partition):
        found.append(
            FoundVoice(
                tuple(members),
                {member: labelled_s[place_of[member]] for member in members},
                in_segment[voice],
                voice in matched or not segments,
                standing.get(voice, {}),
            )
        )
    return found


def _matched_voices(votes: Sequence[Vote]) -> set[int | None]:
    """Voices that are heard in the transcript; one that no segment has (television) gets no number."""
    sure = (VoteOutcome.CLEAR, VoteOutcome.TWO_SPEAKERS, VoteOutcome.HUMAN)
    matched = {vote.winner for vote in votes if vote.outcome in sure}
    return matched | {vote.runner_up for vote in votes if vote.outcome is VoteOutcome.TWO_SPEAKERS}


def _dominating(votes: Sequence[Vote], left: Mapping[str, int]) -> dict[int, dict[int, float]]:
    """Voice -> numbers on untouched segments that are mostly this voice's -> its seconds there."""
    by_number: dict[int, dict[int, float]] = {}
    for vote in votes:
        if vote.segment_id in left and vote.winner is not None and vote.winner >= 0:
            seconds = by_number.setdefault(left[vote.segment_id], {})
            seconds[vote.winner] = seconds.get(vote.winner, 0.0) + vote.winner_s
    standing: dict[int, dict[int, float]] = {}
    for number, seconds in by_number.items():
        voice = min(seconds, key=lambda voice: (-seconds[voice], voice))
        standing.setdefault(voice, {})[number] = seconds[voice]
    return standing


def decide_speaker(
    segment: StoredSegment,
    vote: Vote,
    naming: Naming,
    left: Mapping[str, int],
    ours: Mapping[str, int],
    merged: Mapping[int, int | None],
) -> str | None:
    """The label a segment shall have."""
    if vote.outcome is VoteOutcome.CLEAR and vote.winner is not None:
        number = naming.numbers[vote.winner]
        return segment.speaker if _number(segment.speaker) == number else speaker_name(number)
    if vote.outcome is VoteOutcome.HUMAN:
        return segment.speaker
    number = _number(segment.speaker)
    if number is not None and ours.get(segment.id) == number:
        return speaker_name(merged[number]) if number in merged else segment.speaker
    if vote.outcome not in _UNSURE or number is None:
        return segment.speaker
    # A number from speech-to-text that a voice of ours bears as well would name the wrong person.
    published = {voice.speaker_id for voice in naming.book.voices}
    stands = segment.id in left and (number not in published or _is_own(vote, naming, number))
    return segment.speaker if stands else None


def _is_own(vote: Vote, naming: Naming, number: int) -> bool:
    return vote.winner is not None and vote.winner >= 0 and naming.numbers[vote.winner] == number


def segment_label(
    segment: StoredSegment, vote: Vote, speaker: str | None, numbers: Sequence[int | None]
) -> SegmentLabel:
    """Return the label as it is told; coverage only where the vote decided it."""
    clear = vote.outcome is VoteOutcome.CLEAR
    runner_up = vote.runner_up if vote.runner_up is not None and vote.runner_up >= 0 else None
    return SegmentLabel(
        id=segment.id,
        speaker=speaker,
        speaker_id=_number(speaker),
        person_id=segment.person_id,
        coverage=vote.coverage if clear else None,
        runner_up=None if runner_up is None else speaker_name(numbers[runner_up]),
    )


def remember_segments(
    book: VoiceBook,
    segments: Sequence[StoredSegment],
    votes: Sequence[Vote],
    speakers: Sequence[str | None],
    ours: Mapping[str, int],
) -> VoiceBook:
    """Write into the book which segments bear each number because of this pipeline."""
    bearing: dict[int, list[str]] = {}
    for segment, vote, speaker in zip(segments, votes, speakers, strict=True):
        number = _number(speaker)
        if number is not None and (vote.outcome is VoteOutcome.CLEAR or segment.id in ours):
            bearing.setdefault(number, []).append(segment.id)
    return replace(
        book,
        voices=tuple(
            replace(voice, segments=tuple(sorted(bearing.get(voice.speaker_id, ())))) for voice in book.voices
        ),
    )
