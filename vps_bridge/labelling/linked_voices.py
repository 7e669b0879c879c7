"""Linking with all that people said: the voices, who each of them is, and what became of corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.corrections import CorrectionOutcome
from vps_bridge.labelling.corrections import Speech
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.human_links import read_strong_links, read_words, weigh_words
from vps_bridge.labelling.link import LinkingRules, LocalSpeakerEvidence, Partition, SpeakerLink, link_speakers
from vps_bridge.labelling.people_in_voices import VoiceMap, judge_corrections, name_persons
from vps_bridge.labelling.vote import AssignmentRules


@dataclass(frozen=True)
class LinkedVoices:
    """The voices, in order of first speech."""

    partition: Partition
    person_of: Mapping[int, str]
    """By index of the partition, who people say it is."""
    outcomes: tuple[CorrectionOutcome, ...]
    """Of every correction in force, in their order."""


def link_voices(
    evidence: ConversationEvidence,
    speakers: Sequence[LocalSpeakerEvidence],
    speech: Speech,
    rules: LinkingRules,
    assignment: AssignmentRules,
) -> LinkedVoices:
    """Link the local speakers with people's words and the conversation's hints about the number of speakers.

    Labels of single segments are weighed against the voices that are found without them; where they say more than
    those, linking starts again with what they say.
    """

    def link(*more: SpeakerLink) -> Partition:
        return link_speakers(
            speakers,
            rules,
            links=(*evidence.links, *strong.links(), *more),
            min_speakers=evidence.num_speakers or evidence.min_speakers,
            max_speakers=evidence.num_speakers or evidence.max_speakers,
        )

    corrections = evidence.corrections
    strong = read_strong_links(corrections, speech)
    words = read_words(evidence.segments, corrections, speech, assignment)
    partition = link()
    anchors = {voice.speaker_id: voice for kept in corrections for voice in kept.anchors}
    links = weigh_words(words, partition, speakers, anchors, speech, rules)
    if links:
        partition = link(*links)
    voices = VoiceMap(partition, speech)
    person_of = name_persons(corrections, words, voices)
    return LinkedVoices(partition, person_of, judge_corrections(corrections, words, voices, person_of))
