"""After linking: which person each voice is, as people said, and what became of each correction."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from schemas.corrections import CorrectionKind, CorrectionOutcome
from vps_bridge.conversations.store import StoredSegment, speaker_name
from vps_bridge.labelling.corrections import KeptCorrection, Speech
from vps_bridge.labelling.human_links import HumanLinks, split_off
from vps_bridge.labelling.human_words import HumanWord, Target, majority, telling_words
from vps_bridge.labelling.labels_by_hand import is_contradicted
from vps_bridge.labelling.link import Partition
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import Voice

CONTRADICTED, SOUNDS_DIFFERENT, OVERRIDDEN, NO_VOICE = "contradicted", "sounds_different", "overridden", "no_voice"
CUT = "cut"


class VoiceMap:
    """Which voice of the partition is what people spoke of."""

    def __init__(self, partition: Partition, speech: Speech) -> None:
        self.voice_at = {member: voice for voice, members in enumerate(partition) for member in members}
        self.speech = speech

    def of_speakers(self, speakers: Collection[LocalSpeaker], segment_ids: Iterable[str]) -> int | None:
        """Return the voice of these local speakers that says most of these segments; of members in none, most of them.

        What several jobs heard counts once, by the job that heard most of it: else a later job whose audio overlaps an
        earlier one's would make more of a part than it is.
        """
        seconds: defaultdict[int, float] = defaultdict(float)
        for speaker in speakers:
            if speaker in self.voice_at:
                seconds[self.voice_at[speaker]] += 1e-6
        for name in segment_ids:
            by_job: dict[tuple[int, str], float] = {}
            for speaker, spoken_s in self.speech.in_segment.get(name, {}).items():
                if speaker in speakers and speaker in self.voice_at:
                    own = self.voice_at[speaker], speaker.job_id
                    by_job[own] = by_job.get(own, 0.0) + spoken_s
            for voice in {voice for voice, _ in by_job}:
                seconds[voice] += max(spoken_s for own, spoken_s in by_job.items() if own[0] == voice)
        return min(seconds, key=lambda voice: (-seconds[voice], voice), default=None)

    def lines_of(self, voices: Collection[int | None]) -> list[str]:
        """Return the segments in which these voices speak most."""
        loudest = {name: self.speech.loudest_in(name) for name in self.speech.in_segment} if voices else {}
        return [name for name, one in loudest.items() if one is not None and self.voice_at.get(one) in voices]

    def of_anchor(self, voice: Voice | None) -> int | None:
        """Return the voice that an earlier one is now."""
        return None if voice is None else self.of_speakers(set(self.speech.of_voice(voice)), voice.segments)

    def all_of_anchor(self, voice: Voice | None) -> set[int]:
        """Return all voices that an earlier one is now: who says most of it, and who is mostly of it."""
        main = self.of_anchor(voice)
        if voice is None or main is None:
            return set()
        of_it, whole_s, own_s = set(self.speech.of_voice(voice)), defaultdict[int, float](float), dict[int, float]()
        for speaker, found in self.voice_at.items():
            spoken_s = self.speech.total_s.get(speaker, 0.0)
            whole_s[found] += spoken_s
            own_s[found] = own_s.get(found, 0.0) + (spoken_s if speaker in of_it else 0.0)
        return {main} | {found for found, spoken_s in own_s.items() if spoken_s > whole_s[found] / 2}


def _find_voice(
    kept: KeptCorrection, number: int, corrections: Sequence[KeptCorrection], said: HumanLinks, voices: VoiceMap
) -> int | None:
    """Return the voice that had a number when a correction was said; what was split off it is it only if it is all."""
    anchor = kept.anchor(number)
    if anchor is None:
        return None
    speakers, segments = split_off(kept, anchor, corrections, said.splits)
    rest = tuple(name for name in anchor.segments if name not in segments)
    found = voices.of_speakers(set(voices.speech.of_voice(replace(anchor, segments=rest))) - speakers, rest)
    return voices.of_anchor(anchor) if found is None else found


NamedVoices = Mapping[tuple[int, int], int | None]
"""By write and place of each `voice_is` and `voice_is_not`: the voice that it is about, by index of the partition."""


def find_named_voices(corrections: Sequence[KeptCorrection], said: HumanLinks, voices: VoiceMap) -> NamedVoices:
    """Return which voice each correction about a name is about."""
    kinds = CorrectionKind.VOICE_IS, CorrectionKind.VOICE_IS_NOT
    return {
        (kept.write, kept.place): _find_voice(kept, kept.said.speaker_id or 0, corrections, said, voices)
        for kept in corrections
        if kept.said.kind in kinds
    }


def name_persons(
    corrections: Sequence[KeptCorrection], words: Sequence[HumanWord], named_voices: NamedVoices, voices: VoiceMap
) -> dict[int, str]:
    """Return the person that each voice is, by index of the partition; those that nobody named are left out.

    Where what was one voice is two by now, a name that was mended meanwhile does not come back for the other one.
    """
    by_labels = _name_by_labels(words, voices)
    person_of, named_as = dict(by_labels), dict[int, frozenset[LocalSpeaker]]()
    for kept in corrections:
        if kept.said.kind not in (CorrectionKind.VOICE_IS, CorrectionKind.VOICE_IS_NOT):
            continue
        person, anchor = kept.said.person_id or "", kept.anchor(kept.said.speaker_id or 0)
        if kept.said.kind is CorrectionKind.VOICE_IS_NOT:
            for denied in voices.all_of_anchor(anchor):
                if person_of.get(denied) == person:
                    del person_of[denied]
        elif (voice := named_voices[kept.write, kept.place]) is not None:
            was = _who_it_was(anchor)
            for other in [other for other, earlier in named_as.items() if earlier == was and other != voice]:
                del named_as[other]
                person_of.pop(other, None)
                person_of |= {other: by_labels[other]} if other in by_labels else {}
            person_of[voice], named_as[voice] = person, was
    return person_of


def _who_it_was(anchor: Voice | None) -> frozenset[LocalSpeaker]:
    """Return the members of an earlier voice, with those that a split had parted off them by then."""
    if anchor is None:
        return frozenset()
    parts = (one for one in anchor.not_members if any(one.is_part_of(member) for member in anchor.members))
    return frozenset((*anchor.members, *parts))


def _name_by_labels(words: Sequence[HumanWord], voices: VoiceMap) -> dict[int, str]:
    """Return the person whom most of the labels of single lines name, by voice."""
    labels: dict[int, list[HumanWord]] = {}
    for word in words:
        found = voices.voice_at.get(word.local)
        if found is not None and word.target[0] != "speaker":
            labels.setdefault(found, []).append(word)
    best = {named: majority(Counter(word.target for word in telling_words(own))) for named, own in labels.items()}
    return {named: str(target[1]) for named, target in best.items() if target is not None and target[0] == "person"}


def refused_persons(
    corrections: Sequence[KeptCorrection], named_voices: NamedVoices, voices: VoiceMap
) -> dict[int, frozenset[str]]:
    """Return whom people say a voice is not, by index of the partition; a later `voice_is` takes that back."""
    refused: dict[int, set[str]] = {}
    for kept in corrections:
        person = kept.said.person_id or ""
        if kept.said.kind not in (CorrectionKind.VOICE_IS, CorrectionKind.VOICE_IS_NOT):
            continue
        if kept.said.kind is CorrectionKind.VOICE_IS_NOT:
            for denied in voices.all_of_anchor(kept.anchor(kept.said.speaker_id or 0)):
                refused.setdefault(denied, set()).add(person)
        elif (voice := named_voices[kept.write, kept.place]) is not None:
            refused.get(voice, set()).discard(person)
    return {voice: frozenset(persons) for voice, persons in refused.items()}


def judge_corrections(
    corrections: Sequence[KeptCorrection],
    said: HumanLinks,
    words: Sequence[HumanWord],
    named_voices: NamedVoices,
    voices: VoiceMap,
    person_of: Mapping[int, str],
    *,
    segments: Iterable[StoredSegment],
) -> tuple[CorrectionOutcome, ...]:
    """Return what became of each correction."""
    word_of = {word.segment_id: word for word in words}
    segment_of = {segment.id: segment for segment in segments}

    def judge(kept: KeptCorrection) -> tuple[str, str | None]:
        match kept.said.kind:
            case CorrectionKind.SAME_VOICE:
                earlier = [one for one in corrections if (one.write, one.place) < (kept.write, kept.place)]
                found = {_find_voice(kept, number, earlier, said, voices) for number in kept.said.speaker_ids}
                if None in found:
                    return "void", NO_VOICE
                return ("spread", None) if len(found) == 1 else ("void", OVERRIDDEN)
            case CorrectionKind.OTHER_VOICE:
                return _judge_split(kept, *said.splits[kept.write, kept.place], voices)
            case CorrectionKind.SEGMENT_IS:
                named = kept.said.segment_id or ""
                gone = _judge_label(segment_of.get(named), kept)
                outcome, reason = gone or _judge_segment(kept, word_of.get(named), words, voices, person_of)
                return (outcome, CUT) if outcome == "alone" and kept.cut_off else (outcome, reason)
            case _:
                return _judge_name(kept, named_voices[kept.write, kept.place], voices, person_of)

    outcomes = []
    for kept in corrections:
        outcome, reason = judge(kept)
        if outcome != "void" and is_contradicted(kept.said, _find_lines(kept, said, named_voices, voices, segment_of)):
            outcome, reason = "alone", CONTRADICTED
        facts = {"event_id": kept.event_id, "write": kept.write, "kind": kept.said.kind}
        outcomes.append(CorrectionOutcome.model_validate({**facts, "outcome": outcome, "reason": reason}))
    return tuple(outcomes)


def _find_lines(
    kept: KeptCorrection,
    said: HumanLinks,
    named_voices: NamedVoices,
    voices: VoiceMap,
    segment_of: Mapping[str, StoredSegment],
) -> list[StoredSegment]:
    """Return all lines of the voices that a statement about whole voices is about."""
    about = set[int | None]()
    if kept.said.kind is CorrectionKind.OTHER_VOICE:
        chosen, rest = said.splits[kept.write, kept.place]
        about = {voices.voice_at.get(speaker) for speaker in chosen | rest}
    elif kept.said.kind is CorrectionKind.VOICE_IS:
        about = {named_voices[kept.write, kept.place]}
    elif kept.said.kind is not CorrectionKind.SEGMENT_IS:
        numbers = {*kept.said.speaker_ids, *([] if kept.said.speaker_id is None else [kept.said.speaker_id])}
        about = set[int | None]().union(*(voices.all_of_anchor(kept.anchor(number)) for number in numbers))
    return [segment_of[name] for name in voices.lines_of(about - {None}) if name in segment_of]


def _judge_name(
    kept: KeptCorrection, voice: int | None, voices: VoiceMap, person_of: Mapping[int, str]
) -> tuple[str, str | None]:
    if voice is None:
        return "void", NO_VOICE
    if kept.said.kind is CorrectionKind.VOICE_IS:
        holds = person_of.get(voice) == kept.said.person_id
    else:
        of_it = voices.all_of_anchor(kept.anchor(kept.said.speaker_id or 0))
        holds = kept.said.person_id not in {person_of.get(each) for each in of_it}
    return ("spread", None) if holds else ("void", OVERRIDDEN)


def _judge_split(
    kept: KeptCorrection, chosen: set[LocalSpeaker], rest: set[LocalSpeaker], voices: VoiceMap
) -> tuple[str, str | None]:
    own = voices.of_speakers(chosen, kept.said.segment_ids)
    if own is None:
        return "void", NO_VOICE
    if any(voices.voice_at.get(speaker) == own for speaker in rest):
        return "void", OVERRIDDEN
    named = set(kept.said.segment_ids)
    reaches = any(
        segment not in named and any(voices.voice_at.get(speaker) == own for speaker in seconds)
        for segment, seconds in voices.speech.in_segment.items()
    )
    # Without a rest all of the voice was named: there is nobody else who could sound like it, or not.
    return ("spread", None) if reaches or not rest else ("alone", SOUNDS_DIFFERENT)


def _judge_label(segment: StoredSegment | None, kept: KeptCorrection) -> tuple[str, str] | None:
    """Return why a correction is void: its segment was taken away, or has another label since; None where it has it."""
    if segment is None:
        return "void", NO_VOICE
    if kept.said.speaker_id is not None:
        has_label = segment.is_human_labelled and segment.speaker == speaker_name(kept.said.speaker_id)
    else:
        has_label = segment.person_id == kept.said.person_id
    return None if has_label else ("void", OVERRIDDEN)


def _judge_segment(
    kept: KeptCorrection,
    word: HumanWord | None,
    words: Sequence[HumanWord],
    voices: VoiceMap,
    person_of: Mapping[int, str],
) -> tuple[str, str | None]:
    wanted: Target = ("person", kept.said.person_id or "")
    if kept.said.speaker_id is not None:
        wanted = ("speaker", kept.said.speaker_id)
    local = voices.speech.loudest_in(kept.said.segment_id or "") if word is None else word.local
    voice = None if local is None else voices.voice_at.get(local)
    if voice is None:
        return "alone", NO_VOICE
    if word is not None and word.target != wanted:
        return "alone", CONTRADICTED
    if kept.said.speaker_id is None:
        is_that = person_of.get(voice) == kept.said.person_id
    else:
        is_that = voices.of_anchor(kept.anchor(kept.said.speaker_id)) == voice
    if is_that:
        return "spread", None
    others = telling_words([other for other in words if voices.voice_at.get(other.local) == voice])
    is_contradicted = any(other.target != wanted for other in others)
    return "alone", CONTRADICTED if is_contradicted else SOUNDS_DIFFERENT
