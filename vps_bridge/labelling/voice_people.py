"""Who the voices of a conversation are: as people say, else as voiceprints say; and what people's word teaches.

Only a person's `voice_is` makes a voiceprint. What was matched here teaches nothing and is no person's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.corrections import CorrectionKind
from schemas.record import is_id
from schemas.voice_people import Enrolment, VoicePerson
from vps_bridge.labelling.audio_clock import Span
from vps_bridge.labelling.corrections import KeptCorrection
from vps_bridge.labelling.enrolment import (
    ASKS,
    LEARNED,
    LITTLE_SPEECH,
    Calibrated,
    judge_enrolment,
    needed_clean_s,
)
from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.forget_voices import FORGOTTEN, erased_speakers
from vps_bridge.labelling.human_links import sum_embeddings
from vps_bridge.labelling.link import LocalSpeakerEvidence, Partition
from vps_bridge.labelling.linked_voices import LinkedVoices
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.people.match import HeardVoice, Match, Print, is_odd_print, match_people

GONE, NO_ID = "gone", "no_id"


@dataclass(frozen=True)
class VoicePeople:
    """Who the voices are, by their numbers."""

    persons: Mapping[int | None, str | None] = field(default_factory=dict)
    """Who people say each voice is; None where they say nothing."""
    matched: Mapping[int | None, str] = field(default_factory=dict)
    """Who a voiceprint says it is."""
    refused: Mapping[int | None, frozenset[str]] = field(default_factory=dict)
    """Whom people say a voice is not."""
    told: tuple[VoicePerson, ...] = ()
    learned: tuple[Print, ...] = ()
    """The voiceprints that people confirmed here; of an enrolment, its one."""
    kept: frozenset[str] = frozenset()
    """The people whose voiceprint from here stays as it is: it cannot be made again."""
    enrolment: Enrolment | None = None

    @property
    def key_facts(self) -> list[list[object]]:
        """What of it decides labels or is told; similarities are not, or every new voiceprint would tell all again."""
        facts = [[each.speaker_id, each.person_id, each.identity, each.voiceprint] for each in self.told]
        found: list[list[object]] = [list(fact) for fact in facts if fact[2] != "confirmed" or fact[3]]
        return found if self.enrolment is None else [*found, [self.enrolment.person_id, self.enrolment.outcome]]


def identify_voices(
    evidence: ConversationEvidence,
    speakers: Sequence[LocalSpeakerEvidence],
    linked: LinkedVoices,
    numbers: Sequence[int | None],
    calibrated: Calibrated,
) -> VoicePeople:
    """Return who each voice with a number is. One without a number, such as a television, is nobody.

    Args:
        evidence: the conversation, with whom its owner knows.
        speakers: its local speakers.
        linked: its voices, with what people said of them.
        numbers: of each voice.
        calibrated: rules of who is who that go before the shipped ones.
    """
    people = evidence.people
    # Most owners have told of nobody: then no voice has to be compared with anybody's.
    is_compared = people.enrols is not None or people.prints or linked.person_of
    erased = _find_erased(evidence)
    heard = hear_voices(linked.partition, [one for one in speakers if one.id not in erased]) if is_compared else {}
    if people.enrols is not None:
        if not evidence.is_final:
            return VoicePeople()
        told, taught = judge_enrolment(people.enrols, heard, linked.partition, speakers, people.prints, calibrated)
        return VoicePeople(enrolment=told, learned=(taught,) if taught else ())
    persons = {number: linked.person_of.get(voice) for voice, number in enumerate(numbers)}
    teachings = _teach(evidence, linked, heard, numbers, erased, calibrated)
    found = [each.told for each in teachings]
    if any(FORGOTTEN in job.warnings for job in evidence.jobs):
        found += _recall(evidence, linked, numbers)
    else:
        open_voices = [heard[voice] for voice in sorted(heard) if numbers[voice] is not None]
        found += [_tell(match, numbers) for match in _match(open_voices, linked, people.prints, calibrated)]
    return VoicePeople(
        persons=persons,
        matched={each.speaker_id: each.person_id for each in found if each.identity == "matched"},
        refused={numbers[voice]: refused for voice, refused in linked.not_person.items() if refused},
        told=tuple(sorted(found, key=lambda each: each.speaker_id)),
        learned=tuple(each.print for each in teachings if each.print is not None),
        kept=frozenset(each.told.person_id for each in teachings if each.is_kept),
    )


def _find_erased(evidence: ConversationEvidence) -> frozenset[LocalSpeaker]:
    """Return the local speakers of whom a drawn vector is all that is kept: it says nothing about a person."""
    return frozenset(
        LocalSpeaker(job.job_id, label)
        for job in evidence.jobs
        for label in erased_speakers(job.warnings, [voice.speaker for voice in job.speakers])
    )


def hear_voices(partition: Partition, speakers: Sequence[LocalSpeakerEvidence]) -> dict[int, HeardVoice]:
    """Return how each voice sounds, by index of the partition, in the space of most of its clean speech.

    Who is not among the speakers is not heard. Seconds that several jobs heard count once.
    """
    evidence_of = {speaker.id: speaker for speaker in speakers}
    heard = {}
    for voice, every in enumerate(partition):
        members = [member for member in every if member in evidence_of]
        sums = sum_embeddings(members, evidence_of)
        clean_s = {}
        for space in sums:
            own = [evidence_of[member] for member in members]
            own = [each for each in own if each.embedding is not None and each.embedding_space == space]
            spoken_s = _count_once([span for each in own for span in each.turns])
            clean_s[space] = min(sum(each.clean_speech_s for each in own), spoken_s)
        for space in sorted(sums, key=lambda space: (-clean_s[space], space))[:1]:
            length = np.linalg.norm(sums[space])
            if length > 0:
                heard[voice] = HeardVoice(voice, space, (sums[space] / length).astype("<f4"), clean_s[space])
    return heard


def _count_once(spans: Iterable[Span]) -> float:
    """Return how many seconds lie in any of some spans."""
    total_s, end_s = 0.0, -np.inf
    for first_s, last_s in sorted(spans):
        total_s += max(0.0, last_s - max(first_s, end_s))
        end_s = max(end_s, last_s)
    return total_s


@dataclass(frozen=True)
class _Teaching:
    """What a voice that a person named is told as, and teaches."""

    told: VoicePerson
    print: Print | None = None
    is_kept: bool = False


def _teach(
    evidence: ConversationEvidence,
    linked: LinkedVoices,
    heard: Mapping[int, HeardVoice],
    numbers: Sequence[int | None],
    erased: frozenset[LocalSpeaker],
    calibrated: Calibrated,
) -> list[_Teaching]:
    """Return one entry for each voice that people named. A person is taught by one voice, that with most speech."""
    if not linked.person_of:
        return []
    clearest = sorted(linked.person_of, key=lambda voice: (-heard[voice].clean_s if voice in heard else 0.0, voice))
    teacher_of = {linked.person_of[voice]: voice for voice in reversed(clearest)}
    all_gone = any(FORGOTTEN in job.warnings for job in evidence.jobs)
    found = []
    for voice, person in sorted(linked.person_of.items()):
        number = numbers[voice]
        if number is None:
            continue
        told = VoicePerson(speaker_id=number, person_id=person, identity="confirmed")
        said = [
            kept
            for kept, outcome in zip(evidence.corrections, linked.outcomes, strict=True)
            if (kept.said.kind, kept.said.person_id, outcome.outcome) == (CorrectionKind.VOICE_IS, person, "spread")
        ]
        is_to_teach = any(kept.teaches for kept in said)
        if is_to_teach and not is_id(person):
            found.append(_Teaching(told.model_copy(update={"voiceprint": NO_ID})))
        elif is_to_teach and person in evidence.people.people and teacher_of[person] == voice:
            sound = None if all_gone else heard.get(voice)
            is_gone = all_gone or not erased.isdisjoint(linked.partition[voice])
            found.append(_teach_one(evidence, told, said, sound, calibrated, is_gone=is_gone))
        else:
            found.append(_Teaching(told))
    return found


def _teach_one(
    evidence: ConversationEvidence,
    told: VoicePerson,
    said: Iterable[KeptCorrection],
    voice: HeardVoice | None,
    calibrated: Calibrated,
    *,
    is_gone: bool,
) -> _Teaching:
    person, people = told.person_id, evidence.people
    is_taught = person in people.taught
    needed_s = needed_clean_s(voice.embedding_space if voice else "", calibrated)
    if voice is None or voice.clean_s < needed_s:
        if is_taught:
            return _Teaching(told.model_copy(update={"voiceprint": LEARNED}), is_kept=True)
        facts = {"voiceprint": GONE} if is_gone else {"voiceprint": LITTLE_SPEECH, "needed_clean_s": needed_s}
        return _Teaching(told.model_copy(update=facts))
    found = Print(person, voice.embedding_space, voice.vector, voice.clean_s)
    if not is_taught and not any(kept.said.anyway for kept in said):
        others = [known for known in people.prints if known.person_id == person]
        similarity = is_odd_print(found, others, calibrated=calibrated)
        if similarity is not None:
            return _Teaching(told.model_copy(update={"voiceprint": ASKS, "similarity": _rounded(similarity)}))
    return _Teaching(told.model_copy(update={"voiceprint": LEARNED}), found)


def _match(
    voices: Sequence[HeardVoice], linked: LinkedVoices, prints: Sequence[Print], calibrated: Calibrated
) -> list[Match]:
    """Return whom voiceprints name, at most one voice for a person and one person for a voice.

    Whom people named is nobody else. A voice of which people say that it is not somebody is compared with the others
    only, and keeps nobody from being another voice.
    """
    if not prints:
        return []
    named = set(linked.person_of.values())
    prints = [each for each in prints if each.person_id not in named]
    voices = [each for each in voices if each.voice not in linked.person_of]
    free = [each for each in voices if not linked.not_person.get(each.voice)]
    found = list(match_people(free, prints, calibrated=calibrated))
    for each in voices:
        refused = linked.not_person.get(each.voice, frozenset())
        if refused:
            others = [known for known in prints if known.person_id not in refused]
            found += match_people([each], others, calibrated=calibrated)
    found.sort(key=lambda match: (match.identity != "matched", -match.similarity, match.voice))
    best: dict[str, Match] = {}
    for match in found:
        best.setdefault(match.person_id, match)
    return list(best.values())


def _recall(evidence: ConversationEvidence, linked: LinkedVoices, numbers: Sequence[int | None]) -> list[VoicePerson]:
    """Return whom voiceprints named before it was forgotten how the voices sound."""
    named, known = set(linked.person_of.values()), evidence.people.people
    voice_at = {number: voice for voice, number in enumerate(numbers) if number is not None}
    found = []
    for voice in evidence.voices.voices:
        person, place = voice.matched_person, voice_at.get(voice.speaker_id)
        if person is None or place is None or place in linked.person_of or person in named or person not in known:
            continue
        if person not in linked.not_person.get(place, frozenset()):
            found.append(VoicePerson(speaker_id=voice.speaker_id, person_id=person, identity="matched"))
    return found


def _tell(match: Match, numbers: Sequence[int | None]) -> VoicePerson:
    return VoicePerson(
        speaker_id=numbers[match.voice] or 0,
        person_id=match.person_id,
        identity=match.identity,
        similarity=_rounded(match.similarity),
        needed=_rounded(match.needed),
        runner_up=match.runner_up,
        runner_up_similarity=None if match.runner_up_similarity is None else _rounded(match.runner_up_similarity),
        reason=match.reason,
    )


def _rounded(similarity: float) -> float:
    return round(max(-1.0, min(1.0, similarity)), 4)
