"""Deciding: from votes and numbers to the label of each segment.

A clear vote decides a segment's label. Every other segment keeps the label it has, unless its voice got another number
or the label is one of speech-to-text that would name the wrong speaker. Where two people speak, such a label is
*stale*: it is reported, and taken off only if the policy says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from schemas.conversation import SegmentLabel, SegmentPiece
from schemas.voice_people import Identity
from vps_bridge.conversations.store import LabelOrigin, StoredSegment, speaker_name, speaker_number
from vps_bridge.labelling.evidence import AudioTimeline
from vps_bridge.labelling.link import Partition
from vps_bridge.labelling.number import FoundVoice, Naming, Voice, VoiceBook
from vps_bridge.labelling.voice_people import VoicePeople
from vps_bridge.labelling.vote import Vote, VoteOutcome

_MAX_NUMBER = 10_000  # the highest that a message carries; a label with a higher one counts as a name
_WITHOUT_EVIDENCE = (VoteOutcome.LOW_COVERAGE, VoteOutcome.NO_VOICE, VoteOutcome.NO_AUDIO)
_WITHOUT_CLOCK = (VoteOutcome.CLOCK_UNKNOWN, VoteOutcome.CLOCK_UNVERIFIED)


def _number(speaker: str | None) -> int | None:
    number = speaker_number(speaker)
    return number if number is not None and number <= _MAX_NUMBER else None


def is_anyone_found(votes: Sequence[Vote]) -> bool:
    """Whether any voice was clearly found in the transcript. Where none was, no label is taken away."""
    return any(vote.outcome is VoteOutcome.CLEAR for vote in votes)


def label_without_vote(
    segment: StoredSegment, vote: Vote, written: Mapping[str, int], restored: Mapping[str, int]
) -> str | None:
    """Return the label of a segment that no clear vote decides: what it has, or what an earlier relabelling took off.

    So it does not matter how much was known then. Where something was taken back since, it is the label from before.
    """
    if segment.id in restored and restored[segment.id] == _number(segment.speaker):
        return speaker_name(written[segment.id]) if segment.id in written else segment.original_speaker
    comes_back = vote.outcome in (*_WITHOUT_CLOCK, VoteOutcome.TWO_SPEAKERS)
    return segment.original_speaker if segment.speaker is None and comes_back else segment.speaker


def untouched_numbers(segments: Sequence[StoredSegment], votes: Sequence[Vote], before: VoiceBook) -> dict[str, int]:
    """Return the numbers on untouched segments, by segment id. No clear vote decides such a segment.

    A segment without evidence is not among them if its number is only the default of speech-to-text. Where all
    segments of the conversation came with the same label, that label says nothing about who speaks. Where no vote is
    clear, nobody was found in the transcript and every number stays.
    """
    written = before.numbers
    came_with = {
        segment.speaker if segment.original_speaker is None and segment.id not in written else segment.original_speaker
        for segment in segments
        if not segment.is_human_labelled
    }
    has_only_default = len(came_with) == 1 and is_anyone_found(votes)
    untouched: dict[str, int] = {}
    for segment, vote in zip(segments, votes, strict=True):
        number = _number(label_without_vote(segment, vote, written, before.restored))
        if number is None or vote.outcome is VoteOutcome.CLEAR:
            continue
        if vote.outcome in _WITHOUT_EVIDENCE and has_only_default and written.get(segment.id) != number:
            continue
        untouched[segment.id] = number
    return untouched


def collect_voices(
    segments: Sequence[StoredSegment],
    timeline: AudioTimeline,
    measured: Sequence[Mapping[int, float]],
    partition: Partition,
    votes: Sequence[Vote],
    untouched: Mapping[str, int],
    *,
    in_pieces: frozenset[int] = frozenset(),
) -> list[FoundVoice]:
    """Return every voice of the partition with the evidence that decides its number.

    Args:
        segments: the transcript; without one, every voice is matched and all its speech counts.
        timeline: the local speakers and their turns.
        measured: by segment, how long each local speaker (its index in `timeline.speakers`) speaks in it.
        partition: the voices, in order of first speech.
        votes: by segment.
        untouched: the numbers on untouched segments.
        in_pieces: the voices that said words of a segment that is cut.
    """
    labelled_s = _labelled_seconds(segments, timeline, measured)
    index_of = {speaker.id: index for index, speaker in enumerate(timeline.speakers)}
    voice_at = {index_of[member]: voice for voice, members in enumerate(partition) for member in members}
    in_segment: list[dict[str, float]] = [{} for _ in partition]
    for segment, seconds in zip(segments, measured, strict=True):
        for index, spoken_s in seconds.items():
            if index in voice_at:
                by_segment = in_segment[voice_at[index]]
                by_segment[segment.id] = by_segment.get(segment.id, 0.0) + spoken_s
    matched = _matched_voices(votes) | in_pieces
    untouched_seconds, said_numbers = _untouched_seconds(votes, untouched), _said_numbers(segments, votes)
    return [
        FoundVoice(
            members=members,
            member_seconds={member: labelled_s[index_of[member]] for member in members},
            segment_seconds=in_segment[voice],
            is_matched=voice in matched or not segments,
            untouched_seconds=untouched_seconds.get(voice, {}),
            said_numbers=said_numbers.get(voice, {}),
        )
        for voice, members in enumerate(partition)
    ]


def _labelled_seconds(
    segments: Sequence[StoredSegment], timeline: AudioTimeline, measured: Sequence[Mapping[int, float]]
) -> list[float]:
    """Return how long each local speaker speaks inside segments; without a transcript, how long it speaks at all."""
    labelled_s = [0.0] * len(timeline.speakers)
    if segments:
        for seconds in measured:
            for index, spoken_s in seconds.items():
                labelled_s[index] += spoken_s
    else:
        for turn in timeline.exclusive_turns:
            labelled_s[turn.speaker_index] += turn.end_s - turn.start_s
    return labelled_s


def _matched_voices(votes: Sequence[Vote]) -> set[int | None]:
    """Return the voices that speak in the transcript; a television that no segment contains is none of them."""
    certain = (VoteOutcome.CLEAR, VoteOutcome.TWO_SPEAKERS, VoteOutcome.HUMAN)
    matched = {vote.winner for vote in votes if vote.outcome in certain}
    return matched | {vote.runner_up for vote in votes if vote.outcome is VoteOutcome.TWO_SPEAKERS}


def _untouched_seconds(votes: Sequence[Vote], untouched: Mapping[str, int]) -> dict[int, dict[int, float]]:
    """Return by voice: the numbers on untouched segments in which it speaks most, and how long it speaks there."""
    by_number: dict[int, dict[int, float]] = {}
    for vote in votes:
        if vote.segment_id in untouched and vote.winner is not None and vote.winner >= 0:
            seconds = by_number.setdefault(untouched[vote.segment_id], {})
            seconds[vote.winner] = seconds.get(vote.winner, 0.0) + vote.winner_s
    by_voice: dict[int, dict[int, float]] = {}
    for number, seconds in by_number.items():
        voice = min(seconds, key=lambda voice: (-seconds[voice], voice))
        by_voice.setdefault(voice, {})[number] = seconds[voice]
    return by_voice


def _said_numbers(segments: Sequence[StoredSegment], votes: Sequence[Vote]) -> dict[int, Counter[int]]:
    """Return by voice: how many segments in which it speaks most people gave to each number."""
    by_voice: dict[int, Counter[int]] = {}
    for segment, vote in zip(segments, votes, strict=True):
        number = _number(segment.speaker) if vote.outcome is VoteOutcome.HUMAN else None
        if number is not None and vote.winner is not None:
            by_voice.setdefault(vote.winner, Counter())[number] += 1
    return by_voice


def decide_speakers(
    segments: Sequence[StoredSegment],
    votes: Sequence[Vote],
    naming: Naming,
    untouched: Mapping[str, int],
    before: VoiceBook,
    *,
    removes_stale: bool = False,
) -> tuple[str | None, ...]:
    """Return the label of each segment, in the order given. Where nobody was found, no label is taken away.

    Args:
        segments: the transcript.
        votes: by segment.
        naming: the number of each voice.
        untouched: the numbers on untouched segments, by segment id.
        before: the numbers that this pipeline wrote, before this relabelling.
        removes_stale: a stale label is taken off.
    """
    merged = {change.speaker_id: change.into for change in naming.changes if change.change == "merged"}
    found_anyone, written = is_anyone_found(votes), before.numbers
    published = {voice.speaker_id for voice in naming.book.voices}

    def decide(segment: StoredSegment, vote: Vote) -> str | None:
        if vote.outcome is VoteOutcome.CLEAR and vote.winner is not None:
            number = naming.numbers[vote.winner]
            return segment.speaker if _number(segment.speaker) == number else speaker_name(number)
        if vote.outcome is VoteOutcome.HUMAN:
            return segment.speaker
        label = label_without_vote(segment, vote, written, before.restored)
        number = _number(label)
        if number is not None and written.get(segment.id) == number:
            return speaker_name(merged[number]) if number in merged else label
        if removes_stale and is_stale(label, vote, naming):
            return None
        if segment.speaker is None and vote.outcome in _WITHOUT_CLOCK and number in published:
            return None  # since it was taken off it became a voice's: which voice speaks here, nobody knows
        if vote.outcome not in _WITHOUT_EVIDENCE or number is None or not found_anyone:
            return label
        keeps = segment.id in untouched and not _names_another_voice(number, vote, naming)
        return segment.speaker if keeps else None

    return tuple(decide(segment, vote) for segment, vote in zip(segments, votes, strict=True))


def is_stale(label: str | None, vote: Vote, naming: Naming) -> bool:
    """Whether two people speak in a segment, and its label is the number of another voice than speaks most in it."""
    number = _number(label)
    return (
        vote.outcome is VoteOutcome.TWO_SPEAKERS and number is not None and _names_another_voice(number, vote, naming)
    )


def find_stale(
    speakers: Sequence[str | None], votes: Sequence[Vote], naming: Naming, written: Mapping[str, int]
) -> frozenset[str]:
    """Return the ids of the segments that keep a stale label of speech-to-text."""
    return frozenset(
        vote.segment_id
        for speaker, vote in zip(speakers, votes, strict=True)
        if vote.segment_id not in written and is_stale(speaker, vote, naming)
    )


def _names_another_voice(number: int, vote: Vote, naming: Naming) -> bool:
    """Whether a number of speech-to-text is also the number of a voice that did not win the segment's vote."""
    if number not in {voice.speaker_id for voice in naming.book.voices}:
        return False
    return vote.winner is None or vote.winner < 0 or naming.numbers[vote.winner] != number


def describe_label(
    segment: StoredSegment,
    vote: Vote,
    speaker: str | None,
    numbers: Sequence[int | None],
    pieces: tuple[SegmentPiece, ...],
    people: VoicePeople,
) -> SegmentLabel:
    """Return the label as an update reports it, with the coverage only if the vote decided it.

    Who its voice is stands beside it, unless the segment itself names somebody.
    """
    is_clear = vote.outcome is VoteOutcome.CLEAR
    person, identity = _name_person(segment, _number(speaker), people)
    runner_up = vote.runner_up if vote.runner_up is not None and vote.runner_up >= 0 else None
    return SegmentLabel(
        id=segment.id,
        speaker=speaker,
        speaker_id=_number(speaker),
        person_id=person,
        identity=identity,
        coverage=vote.coverage if is_clear else None,
        runner_up=None if runner_up is None else speaker_name(numbers[runner_up]),
        pieces=pieces or None,
    )


def _name_person(segment: StoredSegment, number: int | None, people: VoicePeople) -> tuple[str | None, Identity | None]:
    """Return who speaks in a segment, and where that is known from; unknown where the backend gave it by itself."""
    if segment.person_id and segment.is_human_labelled:
        return segment.person_id, "confirmed"
    person = people.persons.get(number)
    if person is not None:  # also where the backend named somebody by itself: it may send back who it was told before
        return person, "confirmed"
    if segment.person_id:
        return (None if segment.person_id in people.refused.get(number, ()) else segment.person_id), None
    matched = _match_of(segment, number, people)
    return matched, "matched" if matched else None


def people_by_segment(
    votes: Sequence[Vote],
    speakers: Sequence[str | None],
    naming: Naming,
    written: Mapping[str, int],
    people: VoicePeople,
) -> tuple[VoicePeople, ...]:
    """Return for each segment who its label may mean: nobody where it is one of speech-to-text that no voice bears out.

    Such a label may be the number of a voice that has a name, and says nothing of that voice.
    """

    def is_of_voice(vote: Vote, number: int | None) -> bool:
        if vote.outcome in (VoteOutcome.CLEAR, VoteOutcome.HUMAN) or vote.segment_id in written:
            return True
        return vote.winner is not None and vote.winner >= 0 and naming.numbers[vote.winner] == number

    nobody = VoicePeople()
    pairs = zip(votes, speakers, strict=True)
    return tuple(people if is_of_voice(vote, _number(speaker)) else nobody for vote, speaker in pairs)


def match_origins(segment: StoredSegment, speaker: str | None, people: VoicePeople) -> tuple[LabelOrigin, LabelOrigin]:
    """Return whom a voiceprint named in a segment, and whom it names with this label."""
    wanted = _match_of(segment, _number(speaker), people)
    return LabelOrigin(matched_person=segment.matched_person), LabelOrigin(matched_person=wanted)


def _match_of(segment: StoredSegment, number: int | None, people: VoicePeople) -> str | None:
    """Return whom a voiceprint names in a segment: nobody new in one that a person labelled."""
    return segment.matched_person if segment.is_human_labelled else people.matched.get(number)


def note_segments(
    naming: Naming,
    segments: Sequence[StoredSegment],
    votes: Sequence[Vote],
    speakers: Sequence[str | None],
    written: Mapping[str, int],
) -> VoiceBook:
    """Note in the book which segments have each number because this pipeline wrote it.

    One that a person labelled is noted with the voice that is heard in it: it says what that voice is, and not that
    whom the person named speaks so.
    """
    numbers: dict[str, int] = {}
    for segment, vote, speaker in zip(segments, votes, speakers, strict=True):
        heard = _heard_number(vote, naming) if vote.outcome is VoteOutcome.HUMAN else None
        number = _number(speaker) if heard is None else heard
        is_own = heard is not None or vote.outcome is VoteOutcome.CLEAR or segment.id in written
        if number is not None and is_own:
            numbers[segment.id] = number
    return naming.book.with_numbers(numbers)


def _heard_number(vote: Vote, naming: Naming) -> int | None:
    """Return the number of the voice that speaks most in a segment."""
    return None if vote.winner is None or vote.winner < 0 else naming.numbers[vote.winner]


def note_persons(book: VoiceBook, people: VoicePeople) -> VoiceBook:
    """Note in the book which person each voice is; one without audio now keeps who it was."""

    def note(voice: Voice) -> Voice:
        number = voice.speaker_id
        if number not in people.persons:
            return voice
        return replace(voice, person_id=people.persons[number], matched_person=people.matched.get(number))

    return replace(book, voices=tuple(note(voice) for voice in book.voices))
