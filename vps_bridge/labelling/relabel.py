"""From all evidence of a conversation to its labels: one pure function that the service calls each time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace

from schemas.conversation import ConversationTurn, SegmentLabel, VoiceChange
from vps_bridge.conversations.store import Change, Label, StoredSegment
from vps_bridge.labelling.align import (
    RATE_SUSPECT,
    AlignmentRules,
    StretchClock,
    find_stretches,
    is_rate_suspect,
    verify_clock,
)
from vps_bridge.labelling.decide import decide_speaker, found_voices, left_numbers, remember_segments, segment_label
from vps_bridge.labelling.evidence import AudioTimeline, ConversationEvidence, JobEvidence, hear
from vps_bridge.labelling.link import LinkingRules, LocalSpeaker, SpeakerLink, link_speakers
from vps_bridge.labelling.number import VoiceBook, name_voices
from vps_bridge.labelling.vote import AssignmentRules, VoiceTurn, Vote, VoteOutcome, measure_segments, vote_segments
from vps_bridge.rules.assemble import AssemblyRules, order_chunks

__all__ = [
    "ConversationEvidence",
    "JobEvidence",
    "RelabelPolicy",
    "Relabelling",
    "relabel",
]

_TOUCHING_S = 1e-3


@dataclass(frozen=True)
class RelabelPolicy:
    """Every threshold of a relabelling; part of the write key."""

    assembly: AssemblyRules = field(default_factory=AssemblyRules)
    alignment: AlignmentRules = field(default_factory=AlignmentRules)
    linking: LinkingRules = field(default_factory=LinkingRules)
    assignment: AssignmentRules = field(default_factory=AssignmentRules)


@dataclass(frozen=True)
class Relabelling:
    """The labels of a conversation, and everything that is to be said about them."""

    segments: tuple[SegmentLabel, ...]
    """Every segment's label as it shall read, left alone or not; in the order of the evidence."""
    changed: tuple[Change, ...]
    left_alone: tuple[tuple[str, str], ...]
    """(segment id, reason): human, two_speakers, low_coverage, no_audio, clock.unknown, clock.unverified."""
    voices: VoiceBook
    """Keep it, and give it to the next relabelling."""
    voice_changes: tuple[VoiceChange, ...]
    turns: tuple[ConversationTurn, ...]
    """Turns of numbered voices, overlap kept, on the transcript's clock; without segments on the audio's clock."""
    speakers: int
    """How many voices have a number and speak in the audio."""
    warnings: tuple[str, ...]
    audio_s: float
    """Seconds of audio that some job covered."""
    write_key: str
    """sha256 of the evidence (machine labels left out) and the policy."""
    offsets: Mapping[int, float | None] = field(default_factory=dict)
    """Per stretch, what is added to audio seconds to get transcript seconds; None where it is not known."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """What `ConversationStore.apply` takes: the changed segments only."""
        wanted = {segment.id: segment.speaker_id for segment in self.segments}
        return tuple(Label(change.segment_id, wanted[change.segment_id]) for change in self.changed)


def relabel(evidence: ConversationEvidence, policy: RelabelPolicy) -> Relabelling:
    """Link, align, vote and name: the whole conversation again, each time.

    The result depends on the evidence alone, not on the order in which chunks or jobs arrived; only the numbers
    of voices remember what was published before. Applying it and relabelling again changes nothing.
    """
    heard = hear(evidence, policy.assembly)
    clocks = _believe_clocks(evidence, heard, policy.alignment)
    spoken = _on_transcript(heard, clocks)
    measured = measure_segments(spoken, evidence.segments)
    partition = link_speakers(
        heard.voices,
        policy.linking,
        links=(*evidence.links, *_links_of_people(evidence.segments, measured, heard, policy.assignment)),
        min_speakers=evidence.num_speakers or evidence.min_speakers,
        max_speakers=evidence.num_speakers or evidence.max_speakers,
    )
    voice_of = {member: number for number, members in enumerate(partition) for member in members}
    voice_at = [voice_of.get(voice.id, -1 - place) for place, voice in enumerate(heard.voices)]
    votes = vote_segments(
        [VoiceTurn(turn.start_s, turn.end_s, voice_at[turn.voice]) for turn in spoken],
        evidence.segments,
        policy.assignment,
        audio=_audio_on_transcript(heard, clocks),
    )
    votes = tuple(_blame_clock(vote, clocks) for vote in votes)
    ours = {segment_id: voice.speaker_id for voice in evidence.voices.voices for segment_id in voice.segments}
    left = left_numbers(evidence.segments, votes, ours)
    found = found_voices(evidence.segments, heard, measured, partition, votes, left)
    naming = name_voices(found, evidence.voices, frozenset(left.values()))
    merged = {change.speaker_id: change.into for change in naming.changes if change.change == "merged"}
    speakers = tuple(
        decide_speaker(segment, vote, naming, left, ours, merged)
        for segment, vote in zip(evidence.segments, votes, strict=True)
    )
    changed = tuple(
        Change(segment.id, segment.speaker, speaker)
        for segment, speaker in zip(evidence.segments, speakers, strict=True)
        if segment.speaker != speaker
    )
    changed_ids = {change.segment_id for change in changed}
    number_of = {
        member: number for members, number in zip(partition, naming.numbers, strict=True) for member in members
    }
    return Relabelling(
        segments=tuple(
            segment_label(segment, vote, speaker, naming.numbers)
            for segment, vote, speaker in zip(evidence.segments, votes, speakers, strict=True)
        ),
        changed=changed,
        left_alone=tuple(
            (vote.segment_id, vote.outcome.value)
            for vote in votes
            if vote.outcome is not VoteOutcome.CLEAR and vote.segment_id not in changed_ids
        ),
        voices=remember_segments(naming.book, evidence.segments, votes, speakers, ours),
        voice_changes=naming.changes,
        turns=_numbered_turns(heard, clocks, number_of, on_transcript=bool(evidence.segments)),
        speakers=sum(number is not None for number in naming.numbers),
        warnings=_warnings(heard, clocks, policy.alignment),
        audio_s=heard.audio_s,
        write_key=_write_key(evidence, heard, policy),
        offsets={index: clock.offset_s for index, clock in enumerate(clocks)},
    )


def _believe_clocks(
    evidence: ConversationEvidence, heard: AudioTimeline, rules: AlignmentRules
) -> tuple[StretchClock, ...]:
    transcript = [(segment.start_s, segment.end_s) for segment in evidence.segments]
    return tuple(
        verify_clock(
            stretch,
            [(turn.start_s, turn.end_s) for turn in heard.turns if turn.stretch == stretch.index],
            transcript,
            rules,
        )
        for stretch in find_stretches(heard.chunks, heard.placed, evidence.started_at_s)
    )


def _on_transcript(heard: AudioTimeline, clocks: Sequence[StretchClock]) -> list[VoiceTurn]:
    """The turns on the transcript's clock, under places in `heard.voices`; those of unknown clocks left out."""
    return [
        VoiceTurn(turn.start_s + offset_s, turn.end_s + offset_s, turn.voice)
        for turn in heard.turns
        if (offset_s := clocks[turn.stretch].offset_s) is not None
    ]


def _audio_on_transcript(heard: AudioTimeline, clocks: Sequence[StretchClock]) -> list[tuple[float, float]]:
    return [
        (start_s + offset_s, end_s + offset_s)
        for stretch, spans in heard.audio.items()
        for start_s, end_s in spans
        if (offset_s := clocks[stretch].offset_s) is not None
    ]


def _links_of_people(
    segments: Sequence[StoredSegment],
    measured: Sequence[Mapping[int, float]],
    heard: AudioTimeline,
    rules: AssignmentRules,
) -> list[SpeakerLink]:
    """What people's labels say about local speakers: one person is one voice, two persons are two.

    Only where the backend says that a person labelled it, and one local speaker has most of the segment's speech
    and at least `runner_up_s` of it. A local speaker that two persons claim says nothing.
    """
    claims: dict[LocalSpeaker, set[str]] = {}
    for segment, seconds in zip(segments, measured, strict=True):
        person = "owner" if segment.is_user else segment.person_id and f"person {segment.person_id}"
        if segment.label_source != "manual" or not person or not seconds:
            continue
        place = min(seconds, key=lambda place: (-seconds[place], place))
        if seconds[place] >= max(rules.runner_up_s, (1 - rules.runner_up_share) * sum(seconds.values())):
            claims.setdefault(heard.voices[place].id, set()).add(person)
    clear = sorted((min(people), local) for local, people in claims.items() if len(people) == 1)
    first = dict(reversed(clear))
    links = [SpeakerLink("must", first[person], local) for person, local in clear if local != first[person]]
    links.extend(
        SpeakerLink("cannot", local, other)
        for place, (person, local) in enumerate(clear)
        for other_person, other in clear[place + 1 :]
        if person != other_person
    )
    return links


def _blame_clock(vote: Vote, clocks: Sequence[StretchClock]) -> Vote:
    """Without audio because some stretch could not be aligned: that, not silence, is the reason."""
    reason = next((clock.reason for clock in clocks if clock.reason is not None), None)
    if vote.outcome is not VoteOutcome.NO_AUDIO or reason is None:
        return vote
    return replace(vote, outcome=VoteOutcome(reason))


def _numbered_turns(
    heard: AudioTimeline,
    clocks: Sequence[StretchClock],
    number_of: Mapping[LocalSpeaker, int | None],
    *,
    on_transcript: bool,
) -> tuple[ConversationTurn, ...]:
    by_number: dict[int, list[tuple[float, float]]] = {}
    for turn in heard.spoken:
        number = number_of.get(heard.voices[turn.voice].id)
        offset_s = clocks[turn.stretch].offset_s if on_transcript else heard.origins[turn.stretch]
        if number is None or offset_s is None:
            continue
        start_s, end_s = turn.start_s + offset_s, turn.end_s + offset_s
        spans = by_number.setdefault(number, [])
        if spans and start_s - spans[-1][1] < _TOUCHING_S:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end_s))
        else:
            spans.append((start_s, end_s))
    return tuple(
        ConversationTurn(start_s=round(start_s, 3), end_s=round(end_s, 3), speaker_id=number)
        for start_s, end_s, number in sorted((*span, number) for number, spans in by_number.items() for span in spans)
    )


def _warnings(heard: AudioTimeline, clocks: Sequence[StretchClock], rules: AlignmentRules) -> tuple[str, ...]:
    warnings = {*heard.warnings, *(clock.reason for clock in clocks if clock.reason is not None)}
    if is_rate_suspect(heard.chunks, rules):
        warnings.add(RATE_SUSPECT)
    return tuple(sorted(warnings))


def _write_key(evidence: ConversationEvidence, heard: AudioTimeline, policy: RelabelPolicy) -> str:
    """sha256 over all that decides the labels; what this pipeline wrote itself is left out."""
    told = {
        "policy": asdict(policy),
        "conversation": [evidence.conversation_id, evidence.started_at_s],
        "hints": [evidence.num_speakers, evidence.min_speakers, evidence.max_speakers],
        "links": sorted((link.kind, *astuple(link.a), *astuple(link.b)) for link in evidence.links),
        "placed": [astuple(place) for place in heard.placed],
        "captured": [chunk.captured_at_s for chunk in order_chunks(heard.chunks)],
        "jobs": [_told_by(job) for job in sorted(evidence.jobs, key=lambda job: job.job_id)],
        "segments": sorted(
            [
                segment.id,
                segment.start_s,
                segment.end_s,
                segment.original_speaker,
                segment.is_human_labelled,
                segment.is_user,
                segment.person_id,
            ]
            for segment in evidence.segments
        ),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _told_by(job: JobEvidence) -> list[object]:
    voices = [(told.speaker, told.clean_speech_s, (told.embedding or b"").hex()) for told in job.speakers]
    turns = [(turn.start_s, turn.end_s, turn.speaker) for turn in (*job.exclusive_turns, *job.turns)]
    spans = [(span.chunk_id, span.start_s, span.duration_s) for span in job.chunks]
    return [job.job_id, spans, turns, voices, job.embedding_model, job.embedding_revision]
