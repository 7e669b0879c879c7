"""Relabelling: from all evidence of a conversation to its labels, as one pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import repeat

from schemas.conversation import ConversationTurn, SegmentLabel, SegmentPiece, VoiceChange
from schemas.corrections import CorrectionOutcome
from vps_bridge.conversations.store import Change, Label, StoredSegment
from vps_bridge.labelling.align import (
    RATE_SUSPECT,
    AlignmentRules,
    Stretch,
    StretchClock,
    confirm_clock,
    find_clock,
    find_stretches,
    is_rate_suspect,
    with_found_prior,
)
from vps_bridge.labelling.audio_clock import TOUCHING_S, Span
from vps_bridge.labelling.corrections import Speech, as_lines_are_now, parted_lines
from vps_bridge.labelling.cut import CuttingRules, cut_segments
from vps_bridge.labelling.decide import (
    collect_voices,
    decide_speakers,
    describe_label,
    find_stale,
    match_origins,
    note_persons,
    note_segments,
    people_by_segment,
    untouched_numbers,
)
from vps_bridge.labelling.embedding_spaces import MEASURED, UNMEASURED
from vps_bridge.labelling.evidence import AudioTimeline, ConversationEvidence, build_audio_timeline
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.labelling.joint_clock import find_joint_clocks, find_lost_clocks
from vps_bridge.labelling.kept_line import LinesNow
from vps_bridge.labelling.link import LinkingRules, Partition
from vps_bridge.labelling.linked_voices import LinkedVoices, link_voices
from vps_bridge.labelling.number import VoiceBook, name_voices
from vps_bridge.labelling.one_job import linking_rules_for
from vps_bridge.labelling.own_spans import OwnSpans
from vps_bridge.labelling.part_off import part_off
from vps_bridge.labelling.pieces import decide_pieces, settle_votes, voices_of_pieces
from vps_bridge.labelling.placed_audio import PlacedAudio, place_audio
from vps_bridge.labelling.repeated_audio import describe_overlap
from vps_bridge.labelling.reported_turns import number_turns, reported_clocks
from vps_bridge.labelling.seen_outcomes import as_seen
from vps_bridge.labelling.transcript_times import TimeFaults, find_time_faults, leave_alone, spans_to_compare
from vps_bridge.labelling.voice_people import VoicePeople, identify_voices
from vps_bridge.labelling.vote import (
    AssignmentRules,
    TranscriptTurn,
    Vote,
    VoteOutcome,
    measure_segments,
    vote_segments,
)
from vps_bridge.labelling.write_key import make_write_key
from vps_bridge.people.match import MatchRules
from vps_bridge.rules.assemble import AssemblyRules

__all__ = [
    "ConversationEvidence",
    "JobEvidence",
    "RelabelPolicy",
    "Relabelling",
    "relabel",
]


STALE_LABEL = "label.stale"


@dataclass(frozen=True)
class RelabelPolicy:
    """Every threshold of a relabelling. The write key contains the names and the values of all fields but `people`."""

    assembly: AssemblyRules = field(default_factory=AssemblyRules)
    alignment: AlignmentRules = field(default_factory=AlignmentRules)
    linking: LinkingRules = field(default_factory=LinkingRules)
    assignment: AssignmentRules = field(default_factory=AssignmentRules)
    cutting: CuttingRules = field(default_factory=CuttingRules)
    people: tuple[tuple[str, MatchRules], ...] = ()
    """An operator's own rules of who is who, by embedding space. Of those the key contains what they decide."""


@dataclass(frozen=True)
class Relabelling:
    """The labels of a conversation, and everything that is reported about them."""

    segments: tuple[SegmentLabel, ...]
    """The label that each segment is to have, changed or not; in the order of the evidence."""
    changed: tuple[Change, ...]
    left_alone: tuple[tuple[str, str], ...]
    """(segment id, reason): human, two_speakers, low_coverage, no_voice, no_audio, clock.unknown,
    clock.unverified, times.impossible; label.stale where two people speak and the number is that of another voice than
    speaks most."""
    voices: VoiceBook
    """The published numbers. The next relabelling needs them."""
    voice_changes: tuple[VoiceChange, ...]
    turns: tuple[ConversationTurn, ...]
    """Turns of numbered voices, overlap kept, in transcript seconds; without segments in seconds of the audio clock."""
    speakers: int
    """How many voices have a number and speak in the audio."""
    warnings: tuple[str, ...]
    audio_s: float
    """Seconds of audio that some job covers."""
    write_key: str
    """sha256 of the evidence, without the labels this pipeline wrote, and of the policy."""
    offsets: Mapping[int, float | None] = field(default_factory=dict)
    """By stretch, what is added to audio seconds to get transcript seconds; None where it is not known."""
    corrections: tuple[CorrectionOutcome, ...] = ()
    """What became of each correction in force."""
    audio_places: tuple[PlacedAudio, ...] = ()
    """Where the audio lies in the transcript."""
    people: VoicePeople = field(default_factory=VoicePeople)
    """Who the voices are, and what that teaches."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels of the changed segments, for `ConversationStore.apply`."""
        wanted = {segment.id: segment.speaker_id for segment in self.segments}
        return tuple(
            Label(change.segment_id, wanted[change.segment_id], change.pieces_after, change.origin_after.matched_person)
            for change in self.changed
        )


def relabel(evidence: ConversationEvidence, policy: RelabelPolicy) -> Relabelling:
    """Work out the labels of the whole conversation.

    Each call starts from the beginning: the jobs' turns are moved onto one clock, local speakers are linked into
    voices, voices vote on segments and get numbers, and numbers become labels. The result depends on the evidence
    alone, not on the order in which chunks or jobs arrived. Only the numbers also depend on those published before.
    Applying the result and relabelling again changes nothing.
    """
    lines = LinesNow(evidence.segments)
    evidence, policy = _prepare(evidence, policy, lines)
    segments, own, removes_stale = evidence.segments, OwnSpans(evidence.segments), policy.assignment.removes_stale
    timeline, clocks = _place(evidence, own, policy)
    turns = _turns_on_transcript(timeline, clocks)
    measured = measure_segments(turns, segments)
    linked = _link(evidence, own, (timeline, clocks), measured, policy)
    voice_turns = _turns_by_voice(turns, timeline, linked.partition)
    faults = find_time_faults(evidence, timeline, [clock.offset_s for clock in clocks])
    cut = cut_segments(voice_turns, segments, policy.cutting)
    votes = _vote(segments, timeline, clocks, voice_turns, policy.assignment)
    votes = leave_alone(settle_votes(votes, cut, parted_lines(evidence.corrections)), faults)
    before, written, in_pieces = evidence.voices, evidence.voices.numbers, voices_of_pieces(cut)
    untouched = untouched_numbers(segments, votes, before)
    found = collect_voices(segments, timeline, measured, linked.partition, votes, untouched, in_pieces=in_pieces)
    naming = name_voices(found, before, frozenset(untouched.values()))
    speakers = decide_speakers(segments, votes, naming, untouched, before, removes_stale=removes_stale)
    pieces = decide_pieces(segments, votes, cut, naming)
    people = identify_voices(evidence, timeline.speakers, linked, naming.numbers, dict(policy.people))
    people_of = people_by_segment(votes, speakers, naming, written, people)
    changed = _list_changes(segments, speakers, pieces, people_of)
    left_alone = _list_left_alone(votes, changed, find_stale(speakers, votes, naming, written))
    labels = tuple(map(describe_label, segments, votes, speakers, repeat(naming.numbers), pieces, people_of))
    return Relabelling(
        segments=labels,
        changed=changed,
        left_alone=left_alone,
        voices=note_persons(note_segments(naming, segments, votes, speakers, written), people).with_lines(lines),
        voice_changes=naming.changes,
        turns=number_turns(evidence, timeline, clocks, linked.partition, naming.numbers),
        speakers=sum(number is not None for number in naming.numbers),
        warnings=_collect_warnings(evidence, timeline, clocks, faults, left_alone, policy.alignment),
        audio_s=timeline.audio_s,
        write_key=make_write_key(evidence, timeline, _policy_facts(policy), people.key_facts),
        offsets={index: clock.offset_s for index, clock in enumerate(clocks)},
        corrections=as_seen(linked.outcomes, evidence.corrections, labels, votes),
        audio_places=place_audio(timeline.placed, reported_clocks(evidence, timeline, clocks)),
        people=people,
    )


def _prepare(
    evidence: ConversationEvidence, policy: RelabelPolicy, lines: LinesNow
) -> tuple[ConversationEvidence, RelabelPolicy]:
    """Return what was said and written as it holds for the lines that there are now, and the rules of linking here."""
    corrections = as_lines_are_now(evidence.corrections, lines)
    linking = linking_rules_for(evidence, policy.linking)
    policy = policy if linking is policy.linking else replace(policy, linking=linking)
    voices = evidence.voices.without_other_lines(lines)
    return replace(evidence, corrections=corrections, voices=voices), policy


def _place(
    evidence: ConversationEvidence, own: OwnSpans, policy: RelabelPolicy
) -> tuple[AudioTimeline, tuple[StretchClock, ...]]:
    """Return what all jobs heard, and by how much each stretch of it lies beside the transcript."""
    heard = build_audio_timeline(evidence, policy.assembly)
    clocks = _find_clocks(evidence, heard, policy.alignment)
    return _part_off(evidence, own, heard, clocks), clocks


def _link(
    evidence: ConversationEvidence,
    own: OwnSpans,
    placed: tuple[AudioTimeline, Sequence[StretchClock]],
    measured: Sequence[Mapping[int, float]],
    policy: RelabelPolicy,
) -> LinkedVoices:
    timeline, clocks = placed
    heard = Speech.of(evidence.segments, measured, timeline.speakers)
    measure_whole = partial(_whole_speech, own, timeline, clocks)
    return link_voices(evidence, timeline.speakers, measure_whole, heard, policy.linking, policy.assignment)


def _part_off(
    evidence: ConversationEvidence, own: OwnSpans, timeline: AudioTimeline, clocks: Sequence[StretchClock]
) -> AudioTimeline:
    """Part local speakers where a person split segments off that are only a part of what they say."""

    def measure(parted: AudioTimeline) -> Speech:
        return _whole_speech(own, parted, clocks)

    return part_off(timeline, clocks, own, measure, evidence.corrections)


def _whole_speech(own: OwnSpans, timeline: AudioTimeline, clocks: Sequence[StretchClock]) -> Speech:
    """Return how long each local speaker speaks in each segment by itself, also in seconds that another job decides.

    Which job decides a second changes when more jobs come; this does not.
    """
    turns = [
        TranscriptTurn(moved_start_s, moved_end_s, index)
        for index, speaker in enumerate(timeline.speakers)
        for stretch, start_s, end_s in timeline.in_stretches(speaker.turns)
        for moved_start_s, moved_end_s in clocks[stretch].move(start_s, end_s)
    ]
    unplaced_s = {speaker.id: sum(end_s - start_s for start_s, end_s in speaker.turns) for speaker in timeline.speakers}
    for turn in turns:
        unplaced_s[timeline.speakers[turn.speaker_index].id] -= turn.end_s - turn.start_s
    return Speech.of(own.segments, own.measure(turns), timeline.speakers, unplaced_s)


def _find_clocks(
    evidence: ConversationEvidence, timeline: AudioTimeline, rules: AlignmentRules
) -> tuple[StretchClock, ...]:
    """Return the clock of each stretch; none has one, and none needs one, where there is no transcript."""
    stretches = find_stretches(timeline.chunks, timeline.placed, evidence.started_at_s, rules)
    if not evidence.segments:
        return (StretchClock((), None),) * len(stretches)
    transcript, has_word_times = spans_to_compare(evidence.segments)
    speech: dict[int, list[Span]] = {}
    for turn in timeline.exclusive_turns:
        speech.setdefault(turn.stretch, []).append((turn.start_s, turn.end_s))

    def find_by(stretch: Stretch, spoken: Sequence[Span], heard: Sequence[Span]) -> StretchClock:
        return find_clock(stretch, spoken, heard, transcript, rules, has_word_times=has_word_times)

    def confirm(stretch: Stretch, spoken: Sequence[Span], heard: Sequence[Span]) -> StretchClock:
        return confirm_clock(stretch, spoken, heard, transcript, rules, has_word_times=has_word_times)

    def find(stretch: Stretch) -> StretchClock:
        return find_by(stretch, speech.get(stretch.index, ()), timeline.audio.get(stretch.index, ()))

    joint = find_joint_clocks(stretches, speech, timeline.audio, find_by)
    clocks = [joint.get(stretch.index) or find(stretch) for stretch in stretches]
    found = list(zip(stretches, clocks, strict=True))
    for index, stretch in enumerate(stretches):
        again = with_found_prior(stretch, found)
        if not clocks[index].pieces and again != stretch:
            clocks[index] = find(again)
    lost = [with_found_prior(stretch, found) for stretch in stretches if not clocks[stretch.index].pieces]
    together = find_lost_clocks(lost, speech, timeline.audio, find_by, confirm)
    return tuple(together.get(index, clock) for index, clock in enumerate(clocks))


def _turns_on_transcript(timeline: AudioTimeline, clocks: Sequence[StretchClock]) -> list[TranscriptTurn]:
    """Return the exclusive turns in transcript seconds, by local speaker; without what has no place in it."""
    return [
        TranscriptTurn(start_s, end_s, turn.speaker_index)
        for turn in timeline.exclusive_turns
        for start_s, end_s in clocks[turn.stretch].move(turn.start_s, turn.end_s)
    ]


def _audio_on_transcript(timeline: AudioTimeline, clocks: Sequence[StretchClock]) -> list[Span]:
    """Return the spans that some job covers, in transcript seconds."""
    return [
        moved
        for stretch, spans in timeline.audio.items()
        for start_s, end_s in spans
        for moved in clocks[stretch].move(start_s, end_s)
    ]


def _turns_by_voice(
    turns: Iterable[TranscriptTurn], timeline: AudioTimeline, partition: Partition
) -> list[TranscriptTurn]:
    """Return turns of local speakers as turns of voices; one of no voice gets a negative index of its own."""
    voice_of = {member: voice for voice, members in enumerate(partition) for member in members}
    voice_at = [voice_of.get(speaker.id, -1 - index) for index, speaker in enumerate(timeline.speakers)]
    return [TranscriptTurn(turn.start_s, turn.end_s, voice_at[turn.speaker_index]) for turn in turns]


def _vote(
    segments: Sequence[StoredSegment],
    timeline: AudioTimeline,
    clocks: Sequence[StretchClock],
    turns: Iterable[TranscriptTurn],
    rules: AssignmentRules,
) -> tuple[Vote, ...]:
    """Let the voices vote on every segment."""
    audio = _audio_on_transcript(timeline, clocks)
    votes = vote_segments(turns, segments, rules, audio=audio)
    reason = next((clock.reason for clock in clocks if clock.reason is not None), None)
    if reason is None:
        return votes
    return tuple(_with_clock_reason(*pair, audio, VoteOutcome(reason)) for pair in zip(votes, segments, strict=True))


def _with_clock_reason(vote: Vote, segment: StoredSegment, audio: Sequence[Span], reason: VoteOutcome) -> Vote:
    """Report a stretch's missing clock instead of missing audio: the audio may be there, but nobody knows where."""
    heard_s = sum(max(0.0, min(end_s, segment.end_s) - max(start_s, segment.start_s)) for start_s, end_s in audio)
    is_partly_heard = heard_s < (segment.end_s - segment.start_s) - TOUCHING_S
    is_without_voice = vote.outcome in (VoteOutcome.LOW_COVERAGE, VoteOutcome.NO_VOICE)
    if vote.outcome is VoteOutcome.NO_AUDIO or (is_without_voice and is_partly_heard):
        return replace(vote, outcome=reason)
    return vote


def _list_changes(
    segments: Sequence[StoredSegment],
    speakers: Sequence[str | None],
    pieces: Sequence[tuple[SegmentPiece, ...]],
    people: Sequence[VoicePeople],
) -> tuple[Change, ...]:
    """Return the segments that are to have another label, another match or other pieces than they have."""
    compared = (
        Change(segment.id, segment.speaker, speaker, segment.pieces, wanted, *match_origins(segment, speaker, known))
        for segment, speaker, wanted, known in zip(segments, speakers, pieces, people, strict=True)
    )
    return tuple(change for change in compared if change.is_change)


def _list_left_alone(
    votes: Sequence[Vote], changed: Sequence[Change], stale: frozenset[str]
) -> tuple[tuple[str, str], ...]:
    """Return the segments that keep a label or get it back without a clear vote, each with the reason; cut or not."""
    changed_ids = {change.segment_id for change in changed if change.before not in (change.after, None)}
    return tuple(
        (vote.segment_id, STALE_LABEL if vote.segment_id in stale else vote.outcome.value)
        for vote in votes
        if vote.outcome is not VoteOutcome.CLEAR and vote.segment_id not in changed_ids
    )


def _collect_warnings(
    evidence: ConversationEvidence,
    timeline: AudioTimeline,
    clocks: Sequence[StretchClock],
    faults: TimeFaults,
    left_alone: Sequence[tuple[str, str]],
    rules: AlignmentRules,
) -> tuple[str, ...]:
    """Return what the timeline, the clocks, times, labels and the sample rate give reason to report; sorted."""
    # Audio whose jobs only wait is nothing odd.
    told = (clock for stretch, clock in enumerate(clocks) if evidence.is_final or timeline.audio.get(stretch))
    reasons = {clock.warning for clock in told if clock.warning is not None}
    warnings = {*timeline.warnings, *reasons, *faults.warnings}
    placed_s = {place.chunk_id: place.duration_s for place in timeline.placed}
    as_placed = [replace(chunk, duration_s=placed_s[chunk.chunk_id]) for chunk in timeline.chunks]
    if is_rate_suspect(as_placed, rules):  # what is sent twice counts once
        warnings.add(RATE_SUSPECT)
    if (overlap := describe_overlap(timeline.chunks)) is not None:
        warnings.add(overlap)
    if any(reason == STALE_LABEL for _, reason in left_alone):
        warnings.add(STALE_LABEL)
    if evidence.missing is not None:
        warnings.add(evidence.missing)
    return tuple(sorted(warnings))


@lru_cache(maxsize=16)  # a bridge has one policy, of which conversations of one job have a variant
def _policy_facts(policy: RelabelPolicy) -> dict[str, object]:
    thresholds = asdict(policy)
    # What came later leaves every key as it was, as long as it is as it came.
    if not policy.assignment.removes_stale:
        del thresholds["assignment"]["removes_stale"]
    del thresholds["people"]
    kept = [(space.word, space.threshold) for space in MEASURED if space.word != "campplus"]
    thresholds["linking"] |= {"thresholds": kept, "default_threshold": UNMEASURED.threshold}
    return thresholds
