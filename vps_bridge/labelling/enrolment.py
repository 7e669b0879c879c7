"""Enrolment: whether a conversation that is to teach one person's voice holds one clear voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.voice_people import Enrolment
from vps_bridge.labelling.link import LocalSpeakerEvidence, Partition
from vps_bridge.people.match import HeardVoice, MatchRules, Print, is_odd_print, rules_for

LEARNED, TWO_VOICES, LITTLE_SPEECH, ASKS, NO_VOICE = "learned", "two_voices", "little_speech", "asks", "no_voice"
MIN_PRINT_S = 5.0
"""Clean speech that a voiceprint needs where nobody calibrated its model."""
MAX_OTHER_SHARE = 0.2
"""Beside the clearest voice, others may speak for this share of its time: a breath and a "yes" are no second person."""


Calibrated = Mapping[str, MatchRules]


def needed_clean_s(embedding_space: str, calibrated: Calibrated) -> float:
    """Return how much clean speech a voiceprint of this embedding space needs."""
    rules = rules_for(embedding_space, calibrated)
    return MIN_PRINT_S if rules is None else rules.min_clean_s


def judge_enrolment(
    person_id: str,
    heard: Mapping[int, HeardVoice],
    partition: Partition,
    speakers: Sequence[LocalSpeakerEvidence],
    prints: Sequence[Print],
    calibrated: Calibrated,
) -> tuple[Enrolment, Print | None]:
    """Return what becomes of an enrolment, and its voiceprint where it is one.

    Args:
        person_id: who is enrolled.
        heard: how the voices sound, by index of the partition.
        partition: the voices.
        speakers: the local speakers.
        prints: the owner's voiceprints until now.
        calibrated: rules of who is who that go before the shipped ones.
    """
    clearest = min(heard, key=lambda voice: (-heard[voice].clean_s, voice), default=None)
    if clearest is None:
        return Enrolment(person_id=person_id, outcome=NO_VOICE), None
    voice, own = heard[clearest], set(partition[clearest])
    other_s = sum(end_s - start_s for each in speakers if each.id not in own for start_s, end_s in each.turns)
    found = Print(person_id, voice.embedding_space, voice.vector, voice.clean_s)
    needed_s = needed_clean_s(voice.embedding_space, calibrated)
    others = [known for known in prints if known.person_id == person_id]
    similarity = is_odd_print(found, others, calibrated=calibrated)
    outcome = LEARNED
    if other_s > MAX_OTHER_SHARE * voice.clean_s:
        outcome = TWO_VOICES
    elif voice.clean_s < needed_s:
        outcome = LITTLE_SPEECH
    elif similarity is not None:
        outcome = ASKS
    told = Enrolment(
        person_id=person_id,
        outcome=outcome,
        clean_s=round(voice.clean_s, 2),
        needed_clean_s=needed_s,
        other_clean_s=round(other_s, 2),
        similarity=round(similarity, 4) if similarity is not None and outcome == ASKS else None,
    )
    return told, found if outcome == LEARNED else None
