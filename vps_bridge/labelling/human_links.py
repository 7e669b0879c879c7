"""What people said of whole voices: which are one, and which local speakers are another.

It holds as it is said; the later overrides the earlier. Voices that are one are joined after linking, each with all
that linking found of it: two voices that sound different then both go on attracting what sounds like them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from schemas.corrections import CorrectionKind
from vps_bridge.labelling.corrections import TWO_PEOPLE, KeptCorrection, Speech
from vps_bridge.labelling.embedding_spaces import space_of
from vps_bridge.labelling.link import LocalSpeakerEvidence, Partition, SpeakerLink
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import Voice

Means = dict[str, NDArray[np.float64]]
"""By embedding space, the sum of embeddings at unit length, weighted by clean speech."""

Splits = dict[tuple[int, int], tuple[set[LocalSpeaker], set[LocalSpeaker]]]


@dataclass
class HumanLinks:
    """What linking and joining are to keep to."""

    joined: list[list[set[LocalSpeaker]]] = field(default_factory=list)
    """Of each list, all sets are one voice, each with all that linking finds of it."""
    parted: list[tuple[set[LocalSpeaker], set[LocalSpeaker]]] = field(default_factory=list)
    """Of each pair, nobody of the second is the voice that the first are."""
    splits: Splits = field(default_factory=dict)
    """By write and place of each `other_voice`: who became another voice, with whoever went along, and the rest."""
    named: dict[str, list[set[LocalSpeaker]]] = field(default_factory=dict)
    """By person, the voices that people gave the name to; who was named last comes last."""

    def join(self, voices: list[set[LocalSpeaker]], members: frozenset[LocalSpeaker] = frozenset()) -> None:
        """Say that these are one voice, whatever was said before, with the members that they had then."""
        speakers = members.union(*voices)
        self.parted = [(one, other - speakers if one & speakers else other) for one, other in self.parted]
        self.joined.append(voices)

    def part(self, speakers: set[LocalSpeaker], rest: set[LocalSpeaker]) -> None:
        """Say that these are one voice and nobody of the rest is it, whatever was said before."""
        self.joined = [[voice - speakers for voice in voices] for voices in self.joined]
        self.joined.append([{speaker} for speaker in sorted(speakers)])
        self.parted = [(one - speakers, other) for one, other in self.parted]
        self.parted.append((speakers, rest - speakers))

    def split(self, key: tuple[int, int], chosen: set[LocalSpeaker], rest: set[LocalSpeaker]) -> None:
        """Part a split's two sides. A name stays with whoever it is parted from, and makes both one no more."""
        self.splits[key] = chosen, rest
        self.part(chosen, rest)
        for person, voices in self.named.items():
            self.named[person] = [voice - chosen or voice for voice in voices]

    def name(self, person: str, speakers: set[LocalSpeaker]) -> None:
        """Say that these are one with all others who are called so, and no more with those who are called otherwise."""
        for other in sorted(self.named.keys() - {person}):
            self.unname(other, speakers)
        self.named[person] = [*self.named.pop(person, []), speakers]
        self.join(self.named[person])

    def unname(self, person: str, speakers: set[LocalSpeaker]) -> None:
        """Say that these are not called so; they are parted from those who are, for only the name made them one."""
        named = self.named.get(person, [])
        rest = [voice - speakers for voice in named]
        if any(rest) and rest != named:
            self.part(speakers, set().union(*rest))
        self.named[person] = rest

    def keep_last_name(self, speakers: set[LocalSpeaker]) -> None:
        """Say of speakers that are one voice now that they have only the name that was given to some of them last."""
        bearing = [person for person, voices in self.named.items() if any(speakers & voice for voice in voices)]
        for person in bearing[:-1]:
            self.unname(person, speakers)

    def links(self) -> list[SpeakerLink]:
        """Return what linking has to know."""
        return [
            SpeakerLink("cannot", speaker, other)
            for one, others in self.parted
            for speaker in sorted(one)
            for other in sorted(others)
        ]

    def two_in_one(self, partition: Partition) -> list[SpeakerLink]:
        """Return what linking has to know where it made one voice of voices that people gave different names to."""
        persons_of = defaultdict[LocalSpeaker, set[str]](set)
        for person, voices in self.named.items():
            for speaker in set().union(*voices):
                persons_of[speaker].add(person)
        links = []
        for members in partition:
            own = defaultdict[str, list[LocalSpeaker]](list)
            for speaker in members:
                if len(persons_of[speaker]) == 1:
                    own[min(persons_of[speaker])].append(speaker)
            for pair in combinations(own.values(), 2):
                links += [SpeakerLink("cannot", one, other) for one, other in product(*pair)]
        return links


def read_human_links(
    corrections: Iterable[KeptCorrection],
    speech: Speech,
    evidence_of: Mapping[LocalSpeaker, LocalSpeakerEvidence],
) -> HumanLinks:
    """Return what people said of whole voices."""
    corrections = tuple(corrections)
    said = HumanLinks()

    def now(kept: KeptCorrection, number: int | None) -> set[LocalSpeaker]:
        voice = None if number is None else kept.anchor(number)
        return set(speech.of_voice(voice)) if voice else set()

    for place, kept in enumerate(corrections):
        person = kept.said.person_id or ""
        match kept.said.kind:
            case CorrectionKind.SAME_VOICE:
                _join_voices(said, kept, corrections, speech)
            case CorrectionKind.OTHER_VOICE:
                chosen, rest = _sides(kept, speech, evidence_of)
                said.split((kept.write, kept.place), chosen, rest)
                # What is left of speakers that were parted has no sound to be linked by: it is the voice that it was.
                saying = rest.intersection(speech.mostly_in(kept.lines_left))
                parted = {one for one in saying if evidence_of[one].is_confirmed}
                shared = speech.lines_of(parted, kept.lines_left)
                parted |= rest.intersection(speech.loudest_in(line, kept.heard_jobs) for line in shared)
                parted |= _two_people_left(kept, chosen, speech, evidence_of)
                said.joined.append([{one} for one in sorted(parted)])
            case CorrectionKind.VOICE_IS:
                speakers = now(kept, kept.said.speaker_id)
                anchor = kept.anchor(kept.said.speaker_id or 0)
                speakers = speakers - split_off(kept, anchor, corrections, said.splits)[0] or speakers
                # Voices that only a name made one are two again where all of them are said not to be that person.
                denied = [now(later, later.said.speaker_id) for later in corrections[place:] if _denies(later, person)]
                if not any(speakers <= others for others in denied):
                    said.name(person, speakers)
            case CorrectionKind.VOICE_IS_NOT:
                said.unname(person, now(kept, kept.said.speaker_id))
    return said


def _join_voices(said: HumanLinks, kept: KeptCorrection, corrections: Iterable[KeptCorrection], speech: Speech) -> None:
    """Say that the voices of a `same_voice` are one; of each whoever was not split off it, if anybody is left."""
    own = [voice for voice in kept.anchors if voice.speaker_id in kept.said.speaker_ids]
    off = set[LocalSpeaker]().union(*(split_off(kept, voice, corrections, said.splits)[0] for voice in own))
    members = frozenset(member for voice in own for member in voice.members) - off
    every = [set(speech.of_voice(voice)) for voice in own]
    voices = [speakers - off or speakers for speakers in every]
    said.join(voices, members)
    said.keep_last_name(set().union(*voices))


def split_off(
    kept: KeptCorrection, anchor: Voice | None, corrections: Iterable[KeptCorrection], splits: Splits
) -> tuple[set[LocalSpeaker], set[str]]:
    """Return who, and which segments, people split off a voice that a correction is about.

    After it was said, or of the same published voice: in the same breath, or before the labels showed it.
    """
    found = [
        other
        for other in corrections
        if (other.write, other.place) in splits and (other.write >= kept.write or anchor in other.anchors)
    ]
    speakers = set().union(*(splits[other.write, other.place][0] for other in found))
    return speakers, {name for other in found for name in other.said.segment_ids}


def _denies(kept: KeptCorrection, person: str) -> bool:
    return kept.said.kind is CorrectionKind.VOICE_IS_NOT and kept.said.person_id == person


def _sides(
    kept: KeptCorrection, speech: Speech, evidence_of: Mapping[LocalSpeaker, LocalSpeakerEvidence]
) -> tuple[set[LocalSpeaker], set[LocalSpeaker]]:
    """Return who is split off, with those of the rest who sound like them and go along, and the rest of the voices.

    Where all would go who are saying the lines that are left of a voice, they stay: a split that leaves nobody changes
    nothing.
    """
    chosen, rest = set(speech.split_off_whole(kept)), set[LocalSpeaker]()
    saying = []
    for voice in kept.split_voices:
        left = _saying_what_is_left(kept, voice, chosen, speech)
        rest |= left.union(speech.of_voice(voice)) - chosen
        saying.append(left)
    # Who was parted has no sound: of a job that had heard the voices it stays, and so does whoever another job has for
    # the same lines; of a later job it goes where those lines go.
    silent = {one for one in rest if evidence_of[one].is_confirmed}
    later = {one for one in silent if one.job_id not in kept.heard_jobs}
    follow = {one for one in later if set() < speech.heard_before(one, kept.heard_jobs) <= chosen}
    chosen, rest = chosen | follow, rest - follow
    settled = speech.lines_of(silent - follow, kept.lines_left)
    along = _sound_like(chosen, rest, evidence_of).difference(speech.mostly_in(settled))
    for stay in saying:
        would_all_go = stay <= along or (stay - silent <= along and _is_all_but_a_little(stay, silent, speech))
        along -= stay if would_all_go or _are_two_people(stay, chosen, speech) else set()
    return chosen | along, rest - along


def _saying_what_is_left(
    kept: KeptCorrection, voice: Voice, chosen: set[LocalSpeaker], speech: Speech
) -> set[LocalSpeaker]:
    lines = kept.lines_left.intersection(voice.segments)
    return {one for line in lines if (one := speech.loudest_in(line, kept.heard_jobs))} - chosen


def _is_all_but_a_little(left: set[LocalSpeaker], silent: set[LocalSpeaker], speech: Speech) -> bool:
    """Whether only seconds without a sound are left beside whoever is: of a line that two jobs heard."""
    little_s = sum(speech.all_s(one) for one in left & silent)
    return 0 < little_s <= TWO_PEOPLE * sum(speech.all_s(one) for one in left - silent)


def _two_people_left(
    kept: KeptCorrection,
    chosen: set[LocalSpeaker],
    speech: Speech,
    evidence_of: Mapping[LocalSpeaker, LocalSpeakerEvidence],
) -> set[LocalSpeaker]:
    """Return who is left of voices as one voice, with and without a sound.

    Of those whose jobs took two people for one, and of those of whom a little has no sound.
    """
    silent = {one for one, evidence in evidence_of.items() if evidence.is_confirmed}
    every = [_saying_what_is_left(kept, voice, chosen, speech) for voice in kept.split_voices]
    whole = [
        left for left in every if _are_two_people(left, chosen, speech) or _is_all_but_a_little(left, silent, speech)
    ]
    return set[LocalSpeaker]().union(*whole)


def _are_two_people(left: set[LocalSpeaker], chosen: set[LocalSpeaker], speech: Speech) -> bool:
    """Whether all who say the lines that are left are what a split left of somebody, or of much of whom it took."""

    def parted_s(one: LocalSpeaker) -> float:
        return sum(speech.all_s(part) for part in chosen if part.is_part_of(one))

    others = {one for one in left if not any(one.is_part_of(each) for each in chosen | left)}
    return all(parted_s(one) >= TWO_PEOPLE * (parted_s(one) + speech.all_s(one)) for one in others)


def _sound_like(
    chosen: set[LocalSpeaker], rest: set[LocalSpeaker], evidence_of: Mapping[LocalSpeaker, LocalSpeakerEvidence]
) -> set[LocalSpeaker]:
    """Return who of the rest sounds like the chosen, and not more like the others of the rest."""
    own, found = sum_embeddings(chosen, evidence_of), set()
    for speaker in rest:
        sound = sum_embeddings({speaker}, evidence_of)
        like_chosen = likeness(sound, own)
        like_others = likeness(sound, sum_embeddings(rest - {speaker}, evidence_of))
        evidence = evidence_of[speaker]
        least = space_of(evidence.embedding_space).least_cosine(evidence.clean_speech_s)
        if like_chosen is not None and like_chosen >= least and (like_others is None or like_chosen > like_others):
            found.add(speaker)
    return found


def sum_embeddings(speakers: Iterable[LocalSpeaker], evidence_of: Mapping[LocalSpeaker, LocalSpeakerEvidence]) -> Means:
    """Return what some local speakers sound like together."""
    sums: Means = {}
    for speaker in sorted(speakers):
        found = evidence_of[speaker]
        if found.embedding is not None and found.clean_speech_s > 0:
            vector = np.asarray(found.embedding, dtype=np.float64)
            weighted = found.clean_speech_s * vector / np.linalg.norm(vector)
            sums[found.embedding_space] = sums.get(found.embedding_space, np.zeros_like(weighted)) + weighted
    return sums


def likeness(one: Means, other: Means) -> float | None:
    """Return the cosine of two; None where no embeddings can be compared."""
    for space in sorted(one.keys() & other.keys()):
        length = np.linalg.norm(one[space]) * np.linalg.norm(other[space])
        if length > 0:
            return float(one[space] @ other[space] / length)
    return None
