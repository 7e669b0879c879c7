"""What people said of single segments: weighed with everything that they said of the same voice.

One wrong label among many moves nothing but its own segment; 10 % of wrong labels must not ruin a conversation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import combinations

from schemas.corrections import CorrectionKind
from vps_bridge.conversations.store import StoredSegment, speaker_name
from vps_bridge.labelling.corrections import KeptCorrection, Speech
from vps_bridge.labelling.embedding_spaces import space_of
from vps_bridge.labelling.human_links import likeness, sum_embeddings
from vps_bridge.labelling.link import LocalSpeakerEvidence, Partition, SpeakerLink
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import Voice
from vps_bridge.labelling.vote import AssignmentRules

MAX_PERSONS = 200
"""Of one conversation, who are kept apart by their labels: each is compared with each."""
MAJORITY = 2 / 3
"""From this share of a voice's labels on, they say who it is, and the rest are taken for mistakes. Labels count, not
their seconds: a long segment is as easily given a wrong name as a short one."""
SUBSTANTIAL = 1 / 4
"""Where nobody has the majority, whoever has this share counts, and the voice is taken apart among them."""
MIN_LABELS = 2
"""So many labels say that a voice is one that sounds different. Fewer do where they cover half of what it says."""
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
    is_ahead: bool = False
    """It was said before any result had heard the segment: it names a voice of which nothing else was said, and joins
    and parts none. So what a later result brings takes nothing back that was said and seen to hold."""


def read_words(
    segments: Sequence[StoredSegment], corrections: Iterable[KeptCorrection], speech: Speech, rules: AssignmentRules
) -> list[HumanWord]:
    """Return what people said of single segments, in the backend or by `segment_is`.

    It counts only where the backend says that a person gave the label, and where one local speaker has most of the
    segment's speech and at least `runner_up_s` of it. Where several jobs heard it, the one that heard most of it says
    so: that a later job decides the end of an earlier one's audio must not take a person's word away.
    """
    said = [kept for kept in corrections if kept.said.kind is CorrectionKind.SEGMENT_IS]
    last = {kept.said.segment_id: _target_of(kept) for kept in said}
    corrected = {segment_id: target for segment_id, target in last.items() if target[0] == "speaker"}
    ahead = {(kept.said.segment_id, _target_of(kept)) for kept in said if kept.is_ahead}
    ahead -= {(kept.said.segment_id, _target_of(kept)) for kept in said if not kept.is_ahead}
    words = []
    for segment in segments:
        target = _find_target(segment, corrected.get(segment.id))
        seconds = _in_one_job(speech.in_segment.get(segment.id, {}))
        if target is None or not seconds:
            continue
        local = min(seconds, key=lambda speaker: (-seconds[speaker], speaker))
        if seconds[local] >= max(rules.runner_up_s, (1 - rules.runner_up_share) * sum(seconds.values())):
            words.append(HumanWord(segment.id, local, seconds[local], target, (segment.id, target) in ahead))
    return words


def _target_of(kept: KeptCorrection) -> Target:
    if kept.said.speaker_id is not None:
        return "speaker", kept.said.speaker_id
    return "person", kept.said.person_id or ""


def telling_words(words: Sequence[HumanWord]) -> Sequence[HumanWord]:
    """Return those of a voice's labels that say who it is: those said ahead of all results only where all were."""
    return [word for word in words if not word.is_ahead] or words


def _in_one_job(seconds: Mapping[LocalSpeaker, float]) -> dict[LocalSpeaker, float]:
    """Return the seconds of that job whose local speakers have most of them."""
    by_job: dict[str, dict[LocalSpeaker, float]] = {}
    for speaker, spoken_s in seconds.items():
        by_job.setdefault(speaker.job_id, {})[speaker] = spoken_s
    return max(by_job.items(), key=lambda item: (sum(item[1].values()), item[0]), default=("", {}))[1]


def _find_target(segment: StoredSegment, corrected: Target | None) -> Target | None:
    """Return whom a person's label names; a correction counts while the segment still has its speaker."""
    if segment.label_source != "manual":
        return None
    if corrected is not None and segment.speaker == speaker_name(int(corrected[1])):
        return corrected
    if segment.is_user:
        return OWNER
    return ("person", segment.person_id) if segment.person_id else None


def majority(labels: Mapping[Target, int]) -> Target | None:
    """Return whom most of some labels name; None where nobody has `MAJORITY`."""
    best = min(labels, key=lambda target: (-labels[target], str(target)), default=None)
    return best if best is not None and labels[best] >= MAJORITY * sum(labels.values()) else None


@dataclass
class _Unit:
    """A voice as linking found it, or a local speaker in none, with what people said of its segments."""

    members: tuple[LocalSpeaker, ...]
    words: list[HumanWord] = field(default_factory=list)


@dataclass(frozen=True)
class WeighedWords:
    """What labels of single segments say of voices."""

    joined: tuple[list[set[LocalSpeaker]], ...]
    """As `HumanLinks.joined`."""
    apart: tuple[SpeakerLink, ...]
    """Local speakers of two persons."""


def weigh_words(
    words: Sequence[HumanWord],
    partition: Partition,
    evidence_of: Mapping[LocalSpeaker, LocalSpeakerEvidence],
    anchors: Mapping[int, Voice],
    speech: Speech,
    named: Mapping[str, Iterable[AbstractSet[LocalSpeaker]]],
) -> WeighedWords:
    """Weigh labels of single segments against the voices that were found without them.

    A label that is not enough to say who a voice is says nothing of one that people gave another name to.

    Args:
        words: the labels.
        partition: the voices.
        evidence_of: every local speaker.
        anchors: the voices that numbers stand for.
        speech: how long each local speaker speaks where.
        named: by person, the voices that people gave the name to.
    """
    unit_of: dict[LocalSpeaker, _Unit] = {}
    for members in partition:
        unit_of |= dict.fromkeys(members, _Unit(members))
    for word in words:
        if not word.is_ahead:
            unit_of.setdefault(word.local, _Unit((word.local,))).words.append(word)
    heard = _who_is_heard({id(unit): unit for unit in unit_of.values() if unit.words}.values(), speech, named)
    joined, first_of = [], dict[Target, LocalSpeaker]()
    for target in sorted(heard, key=str):
        first, others = _choose_main(target, heard[target], unit_of, anchors, speech)
        if target[0] != "speaker":
            first_of[target] = first
        main = unit_of[first]
        sounds = sum_embeddings(main.members, evidence_of)
        same = [{first}]
        for local, unit in others:
            alike = likeness(sum_embeddings(unit.members, evidence_of), sounds)
            found = evidence_of[local]
            least = space_of(found.embedding_space).least_cosine(found.clean_speech_s) - MAX_UNLIKE
            if unit is not main and target[0] == "speaker" and _is_told_apart(local, main):
                is_one = _count_labels(unit, target) >= MIN_LABELS
            else:
                is_one = unit is main or _is_firm(unit, target, speech) or alike is None or alike >= least
            if is_one:
                same.append({local})
        joined.append(same)
    persons = list(first_of.values())[:MAX_PERSONS]
    apart = tuple(SpeakerLink("cannot", one, other) for one, other in combinations(persons, 2))
    return WeighedWords(tuple(joined), apart)


def _who_is_heard(
    units: Iterable[_Unit], speech: Speech, named: Mapping[str, Iterable[AbstractSet[LocalSpeaker]]]
) -> dict[Target, list[tuple[LocalSpeaker, _Unit]]]:
    """Return by whom labels name: the local speakers that are said to be that, and of which voice they are."""
    person_of = {one: person for person, voices in named.items() for voice in voices for one in voice}
    heard: dict[Target, list[tuple[LocalSpeaker, _Unit]]] = {}
    for unit in units:
        names = {("person", person_of[member]) for member in unit.members if member in person_of}
        for local, target in _say_who(unit, speech).items():
            if target in names or not names or target[0] == "speaker" or _is_firm(unit, target, speech):
                heard.setdefault(target, []).append((local, unit))
    return heard


def _say_who(unit: _Unit, speech: Speech) -> dict[LocalSpeaker, Target]:
    """Return who a voice is, by the local speaker that says so loudest; several where people say it is several."""
    labels = Counter(word.target for word in unit.words)
    local_speakers = sorted({word.local for word in unit.words})
    best = majority(labels)
    if best is not None:
        return {max(local_speakers, key=lambda local: _seconds(unit.words, best, local)): best}
    chosen = {}
    for local in local_speakers:
        own = [
            word for word in unit.words if word.local == local and labels[word.target] >= SUBSTANTIAL * labels.total()
        ]
        target = majority(Counter(word.target for word in own))
        if target is not None and _is_firm(_Unit((local,), own), target, speech):
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
    ranked = sorted(heard, key=lambda item: (-_seconds(item[1].words, target), item[0]))
    return ranked[0][0], ranked[1:]


def _is_told_apart(local: LocalSpeaker, main: _Unit) -> bool:
    """Whether the job of a local speaker heard the other voice beside it: then the engine says that they are two.

    However alike they are: a person who moves one line from one to the other does not say that they are one.
    """
    return any(member.job_id == local.job_id for member in main.members)


def _count_labels(unit: _Unit, target: Target) -> int:
    return sum(word.target == target for word in unit.words)


def _is_firm(unit: _Unit, target: Target, speech: Speech) -> bool:
    """Whether the labels of a voice are enough to say who it is, whatever it sounds like."""
    spoken_s = sum(speech.all_s(member) for member in unit.members)
    return _count_labels(unit, target) >= MIN_LABELS or _seconds(unit.words, target) >= spoken_s / 2


def _seconds(words: Iterable[HumanWord], target: Target, local: LocalSpeaker | None = None) -> float:
    """Return how much speech labels give to somebody; of one local speaker, or of all."""
    return sum(word.spoken_s for word in words if word.target == target and local in (None, word.local))
