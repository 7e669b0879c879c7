"""What people said of a conversation's voices, as links for the linker.

What a person says of whole voices (`same_voice`, `other_voice`, `voice_is`) holds as it is said; the later overrides
the earlier. What a person says of one segment is weighed: with everything that people said of the other segments of the
same voice, so that one wrong label among many moves nothing but its own segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from schemas.corrections import CorrectionKind
from vps_bridge.conversations.store import StoredSegment, speaker_name
from vps_bridge.labelling.corrections import KeptCorrection, Speech
from vps_bridge.labelling.link import LinkingRules, LocalSpeaker, LocalSpeakerEvidence, Partition, SpeakerLink
from vps_bridge.labelling.number import Voice
from vps_bridge.labelling.vote import AssignmentRules

MAX_PERSONS = 200
"""Of one conversation, who are kept apart by their labels: each is compared with each."""
MAJORITY = 2 / 3
"""From this share of a voice's labelled seconds on, they say who it is; the rest are taken for mistakes."""
SUBSTANTIAL = 1 / 4
"""Where nobody has the majority, whoever has this share counts, and the voice is taken apart among them."""
MIN_LABELS = 2
"""So many labels join a voice to one that sounds different. Fewer do where they cover half of what it says."""
MAX_UNLIKE = 0.1
"""Up to this much below the threshold of linking, one label is enough."""

Target = tuple[str, str | int]
"""Whom a label names: ("person", id), ("owner", ""), or ("speaker", number)."""
OWNER: Target = ("owner", "")


@dataclass(frozen=True)
class HumanWord:
    """Who speaks in one segment, as a person said."""

    segment_id: str
    local: LocalSpeaker
    """Who says most of it."""
    spoken_s: float
    target: Target


@dataclass
class StrongLinks:
    """What was said of whole voices: groups that are one voice, and pairs of groups that are not."""

    together: list[set[LocalSpeaker]] = field(default_factory=list)
    apart: list[tuple[set[LocalSpeaker], set[LocalSpeaker]]] = field(default_factory=list)

    def join(self, speakers: set[LocalSpeaker]) -> None:
        """Say that these are one voice, whatever was said before."""
        self.apart = [
            (one - speakers, other) if one & speakers and other & speakers else (one, other)
            for one, other in self.apart
        ]
        self.together.append(speakers)

    def split(self, speakers: set[LocalSpeaker], rest: set[LocalSpeaker]) -> None:
        """Say that these are one voice and none of the rest is it, whatever was said before."""
        self.together = [group - speakers for group in self.together]
        self.together.append(speakers)
        self.apart.append((speakers, rest))

    def links(self) -> list[SpeakerLink]:
        """Return them for the linker."""
        found = []
        for group in self.together:
            found += [SpeakerLink("must", min(group), speaker) for speaker in sorted(group)[1:]]
        for one, other in self.apart:
            found += [SpeakerLink("cannot", min(one), speaker) for speaker in sorted(other - one) if one]
        return found


def read_strong_links(corrections: Iterable[KeptCorrection], speech: Speech) -> StrongLinks:
    """Return what people said of whole voices."""
    said, named = StrongLinks(), dict[str, set[LocalSpeaker]]()
    for kept in corrections:
        match kept.said.kind:
            case CorrectionKind.SAME_VOICE:
                voices = [kept.anchor(number) for number in kept.said.speaker_ids]
                said.join({speaker for voice in voices if voice is not None for speaker in speech.of_voice(voice)})
            case CorrectionKind.OTHER_VOICE:
                chosen = chosen_speakers(kept, speech)
                of_voices = {speaker for voice in kept.anchors for speaker in speech.of_voice(voice)}
                said.split(chosen, of_voices - chosen)
            case CorrectionKind.VOICE_IS:
                voice = kept.anchor(kept.said.speaker_id or 0)
                speakers = set(speech.of_voice(voice)) if voice else set()
                person = kept.said.person_id or ""
                said.join(speakers | named.get(person, set()))
                named[person] = named.get(person, set()) | speakers
            case CorrectionKind.VOICE_IS_NOT:
                voice = kept.anchor(kept.said.speaker_id or 0)
                speakers = set(speech.of_voice(voice)) if voice else set()
                person = kept.said.person_id or ""
                others = named.get(person, set()) - speakers
                if others:
                    said.split(speakers, others)
                named[person] = others
    return said


def chosen_speakers(kept: KeptCorrection, speech: Speech) -> set[LocalSpeaker]:
    """Return the local speakers that `other_voice` splits off, once they are parted (`part_off`)."""
    return set(speech.mostly_in(kept.said.segment_ids))


def read_words(
    segments: Sequence[StoredSegment],
    corrections: Iterable[KeptCorrection],
    speech: Speech,
    rules: AssignmentRules,
) -> list[HumanWord]:
    """Return what people said of single segments, in the backend or by `segment_is`.

    It counts only where the backend says that a person gave the label, and where one local speaker has most of the
    segment's speech and at least `runner_up_s` of it.
    """
    target_of = {
        kept.said.segment_id: ("speaker", kept.said.speaker_id)
        for kept in corrections
        if kept.said.kind is CorrectionKind.SEGMENT_IS and kept.said.speaker_id is not None
    }
    words = []
    for segment in segments:
        seconds = speech.in_segment.get(segment.id)
        if segment.label_source != "manual" or not seconds:
            continue
        target: Target | None = None
        if segment.person_id:
            target = ("person", segment.person_id)
        if segment.is_user:
            target = OWNER
        said = target_of.get(segment.id)
        if said is not None and segment.speaker == speaker_name(said[1]):
            target = ("speaker", said[1])
        local = min(seconds, key=lambda speaker: (-seconds[speaker], speaker))
        if target and seconds[local] >= max(rules.runner_up_s, (1 - rules.runner_up_share) * sum(seconds.values())):
            words.append(HumanWord(segment.id, local, seconds[local], target))
    return words


@dataclass
class _Unit:
    """A voice as linking found it without single labels, or a local speaker in none, with what people said of it."""

    members: tuple[LocalSpeaker, ...]
    seconds: Counter[Target] = field(default_factory=Counter)
    labels: Counter[Target] = field(default_factory=Counter)
    by_local: dict[LocalSpeaker, Counter[Target]] = field(default_factory=dict)

    def add(self, word: HumanWord) -> None:
        self.seconds[word.target] += word.spoken_s  # type: ignore[assignment] # seconds are floats
        self.labels[word.target] += 1
        self.by_local.setdefault(word.local, Counter())[word.target] += word.spoken_s  # type: ignore[assignment]


def majority(seconds: Mapping[Target, float]) -> Target | None:
    """Return whom most of some labelled seconds name; None where nobody has `MAJORITY`."""
    best = min(seconds, key=lambda target: (-seconds[target], str(target)), default=None)
    return best if best is not None and seconds[best] >= MAJORITY * sum(seconds.values()) else None


def weigh_words(
    words: Sequence[HumanWord],
    partition: Partition,
    speakers: Sequence[LocalSpeakerEvidence],
    anchors: Mapping[int, Voice],
    speech: Speech,
    rules: LinkingRules,
) -> list[SpeakerLink]:
    """Return the links that labels of single segments make, given the voices that were found without them.

    Args:
        words: the labels.
        partition: the voices.
        speakers: every local speaker.
        anchors: the voices that numbers stand for.
        speech: how long each local speaker speaks where.
        rules: the thresholds of linking.
    """
    unit_of: dict[LocalSpeaker, _Unit] = {}
    for members in partition:
        unit_of |= dict.fromkeys(members, _Unit(members))
    for word in words:
        unit_of.setdefault(word.local, _Unit((word.local,))).add(word)
    heard: dict[Target, list[tuple[LocalSpeaker, _Unit]]] = {}
    for unit in {id(unit): unit for unit in unit_of.values()}.values():
        for local, target in _say_who(unit).items():
            heard.setdefault(target, []).append((local, unit))
    evidence_of = {speaker.id: speaker for speaker in speakers}
    links, first_of = [], dict[Target, LocalSpeaker]()
    for target in sorted(heard, key=str):
        first, others = _choose_main(target, heard[target], unit_of, anchors, speech)
        if target[0] != "speaker":
            first_of[target] = first
        main = unit_of.get(first)
        for local, unit in others:
            is_firm = main is None or unit is main or _is_firm(unit, target, speech)
            if is_firm or _sound_alike(unit.members, main.members if main else (), evidence_of, rules):
                links.append(SpeakerLink("must", first, local))
    apart = list(first_of.values())[:MAX_PERSONS]
    return [*links, *(SpeakerLink("cannot", one, other) for one, other in combinations(apart, 2))]


def _say_who(unit: _Unit) -> dict[LocalSpeaker, Target]:
    """Return who a voice is, by the local speaker that says so loudest; several where people say it is several."""
    best = majority(unit.seconds)
    if best is not None:
        loudest = max(sorted(unit.by_local), key=lambda local: unit.by_local[local][best])
        return {loudest: best}
    total_s = sum(unit.seconds.values())
    substantial = {target for target, spoken_s in unit.seconds.items() if spoken_s >= SUBSTANTIAL * total_s}
    chosen = {}
    for local, seconds in sorted(unit.by_local.items()):
        target = majority({target: spoken_s for target, spoken_s in seconds.items() if target in substantial})
        if target is not None:
            chosen[local] = target
    return chosen


def _choose_main(
    target: Target,
    heard: Sequence[tuple[LocalSpeaker, _Unit]],
    unit_of: Mapping[LocalSpeaker, _Unit],
    anchors: Mapping[int, Voice],
    speech: Speech,
) -> tuple[LocalSpeaker, Sequence[tuple[LocalSpeaker, _Unit]]]:
    """Return a local speaker of the voice that somebody is for certain, and the others that are said to be it."""
    anchor = anchors.get(target[1]) if isinstance(target[1], int) else None
    own = [speaker for speaker in speech.of_voice(anchor) if speaker in unit_of] if anchor else []
    if own:
        return max(own, key=lambda speaker: (speech.total_s[speaker], speaker)), heard
    ranked = sorted(heard, key=lambda item: (-item[1].seconds[target], item[0]))
    return ranked[0][0], ranked[1:]


def _is_firm(unit: _Unit, target: Target, speech: Speech) -> bool:
    """Whether the labels of a voice are enough to join it to another, whatever that sounds like."""
    spoken_s = sum(speech.total_s.get(member, 0.0) for member in unit.members)
    return unit.labels[target] >= MIN_LABELS or unit.seconds[target] >= spoken_s / 2


def _sound_alike(
    one: Iterable[LocalSpeaker],
    other: Iterable[LocalSpeaker],
    evidence_of: Mapping[LocalSpeaker, LocalSpeakerEvidence],
    rules: LinkingRules,
) -> bool:
    """Whether two voices are not clearly two, as far as their embeddings can be compared."""
    means: list[dict[str, np.ndarray]] = []
    for members in (one, other):
        by_space: dict[str, np.ndarray] = {}
        for member in members:
            found = evidence_of[member]
            if found.embedding is not None and found.clean_speech_s > 0:
                unit = np.asarray(found.embedding, dtype=np.float64) / np.linalg.norm(found.embedding)
                by_space[found.embedding_space] = by_space.get(found.embedding_space, 0.0) + found.clean_speech_s * unit
        means.append(by_space)
    for space in means[0].keys() & means[1].keys():
        left, right = means[0][space], means[1][space]
        likeness = float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
        return likeness >= rules.threshold(space) - MAX_UNLIKE
    return True
