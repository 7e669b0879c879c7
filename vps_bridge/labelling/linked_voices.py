"""Linking with all that people said: the voices, who each of them is, and what became of corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from schemas.corrections import CorrectionOutcome
from vps_bridge.labelling.corrections import Speech
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.human_links import HumanLinks, read_human_links
from vps_bridge.labelling.human_words import read_words, weigh_words
from vps_bridge.labelling.link import LinkingRules, LocalSpeakerEvidence, Partition, SpeakerLink, link_speakers
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.people_in_voices import (
    VoiceMap,
    find_named_voices,
    judge_corrections,
    name_persons,
    refused_persons,
)
from vps_bridge.labelling.vote import AssignmentRules

MAX_RELINKED = 5
"""Times. Voices of two names that linking makes one are linked again, apart; others may become one by that."""


@dataclass(frozen=True)
class LinkedVoices:
    """The voices, in order of first speech."""

    partition: Partition
    person_of: Mapping[int, str]
    """By index of the partition, who people say it is."""
    outcomes: tuple[CorrectionOutcome, ...]
    """Of every correction in force, in their order."""
    not_person: Mapping[int, frozenset[str]]
    """By index of the partition, whom people say it is not."""


def link_voices(
    evidence: ConversationEvidence,
    speakers: Sequence[LocalSpeakerEvidence],
    measure_speech: Callable[[], Speech],
    heard: Speech,
    rules: LinkingRules,
    assignment: AssignmentRules,
) -> LinkedVoices:
    """Link the local speakers with people's words and the conversation's hints about the number of speakers.

    Labels of single segments are weighed against the voices that are found without them; where they say that one voice
    is two persons, linking starts again with that.

    Args:
        evidence: the conversation.
        speakers: its local speakers.
        measure_speech: returns how long each speaks where, by its own job; called only where people said something.
        heard: the same, each second by the one job that decides it.
        rules: the thresholds of linking.
        assignment: when a segment is one local speaker's.
    """

    def link(*more: SpeakerLink) -> Partition:
        return link_speakers(
            speakers,
            rules,
            links=(*evidence.links, *more),
            min_speakers=evidence.num_speakers or evidence.min_speakers,
            max_speakers=evidence.num_speakers or evidence.max_speakers,
        )

    corrections = evidence.corrections
    words = read_words(evidence.segments, corrections, heard, assignment)
    if not corrections and not words:
        return LinkedVoices(link(), person_of={}, outcomes=(), not_person={})
    speech, evidence_of = measure_speech(), {speaker.id: speaker for speaker in speakers}
    said = read_human_links(corrections, speech, evidence_of)
    partition, links = _link_names_apart(link, said)
    anchors = {voice.speaker_id: voice for kept in corrections for voice in kept.anchors}
    weighed = weigh_words(words, partition, evidence_of, anchors, speech, said.named)
    voice_of = {member: voice for voice, members in enumerate(partition) for member in members}
    if any(voice_of.get(link.a, -1) == voice_of.get(link.b, -2) for link in weighed.apart):
        partition = link(*links, *weighed.apart)
    partition = join_voices(partition, (*said.joined, *weighed.joined), said.parted, speech)
    voices = VoiceMap(partition, speech)
    named_voices = find_named_voices(corrections, said, voices)
    person_of = name_persons(corrections, words, named_voices, voices)
    outcomes = judge_corrections(corrections, said, words, named_voices, voices, person_of, segments=evidence.segments)
    return LinkedVoices(partition, person_of, outcomes, refused_persons(corrections, named_voices, voices))


def _link_names_apart(link: Callable[..., Partition], said: HumanLinks) -> tuple[Partition, list[SpeakerLink]]:
    """Link with what people said of whole voices; return with which links no two names became one voice."""
    links = said.links()
    partition = link(*links)
    for _ in range(MAX_RELINKED):
        if not (two := said.two_in_one(partition)):
            break
        links += two
        partition = link(*links)
    return partition, links


def join_voices(
    partition: Partition,
    joined: Iterable[Sequence[AbstractSet[LocalSpeaker]]],
    parted: Iterable[tuple[AbstractSet[LocalSpeaker], AbstractSet[LocalSpeaker]]],
    speech: Speech,
) -> Partition:
    """Make one voice of those that people say are one, in the order of the partition.

    Each is joined whole, with what linking found of it; a local speaker of it that linking put with somebody else moves
    alone. Nothing that is parted is joined.
    """
    voices = [set(members) for members in partition]
    pairs = [(one, other) for one, other in parted if one]
    for sets in joined:
        places = sorted({_find_voice(voices, members, speech) for members in sets} - {-1})
        if not places:
            continue
        first = voices[places[0]]
        for place in places[1:]:
            if not _is_parted(first, voices[place], pairs):
                first |= voices[place]
                voices[place].clear()
        for speaker in sorted(set().union(*sets) - first):
            if not _is_parted(first, {speaker}, pairs):
                for voice in voices:
                    voice.discard(speaker)
                first.add(speaker)
    place_of = {member: place for place, member in enumerate(member for members in partition for member in members)}
    return tuple(
        tuple(sorted(voice, key=lambda member: (place_of.get(member, len(place_of)), member)))
        for voice in voices
        if voice
    )


def _find_voice(voices: Sequence[AbstractSet[LocalSpeaker]], members: AbstractSet[LocalSpeaker], speech: Speech) -> int:
    """Return the index of the voice that has most of some local speakers' time; -1 where none has any of them."""
    seconds = [sum(speech.total_s.get(speaker, 0.0) for speaker in voice & members) for voice in voices]
    shared = [place for place, voice in enumerate(voices) if voice & members]
    return min(shared, key=lambda place: (-seconds[place], place), default=-1)


def _is_parted(
    one: AbstractSet[LocalSpeaker],
    other: AbstractSet[LocalSpeaker],
    pairs: Iterable[tuple[AbstractSet[LocalSpeaker], AbstractSet[LocalSpeaker]]],
) -> bool:
    return any((left & one and right & other) or (left & other and right & one) for left, right in pairs)
