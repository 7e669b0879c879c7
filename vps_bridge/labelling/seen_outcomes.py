"""What became of corrections, as the labels show it: whatever is told, nothing counts as done that nobody sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from schemas.conversation import SegmentLabel
from schemas.corrections import CorrectionKind, CorrectionOutcome
from vps_bridge.labelling.corrections import KeptCorrection
from vps_bridge.labelling.people_in_voices import CONTRADICTED, OVERRIDDEN
from vps_bridge.labelling.vote import Vote, VoteOutcome

_Told = tuple[str, str]


def as_seen(
    outcomes: Sequence[CorrectionOutcome],
    corrections: Sequence[KeptCorrection],
    labels: Iterable[SegmentLabel],
    votes: Iterable[Vote],
) -> tuple[CorrectionOutcome, ...]:
    """Return the outcomes, in which what the labels do not show is told as overridden or contradicted.

    `votes`: of the same segments. Those in which one voice is clearly heard, and that nobody labelled, tell something.
    """
    clear = {vote.segment_id for vote in votes if vote.outcome is VoteOutcome.CLEAR}
    shown = {label.id: label for label in labels if label.id in clear}
    found = []
    for outcome, kept in zip(outcomes, corrections, strict=True):
        told = None if outcome.outcome == "void" else _look(kept, shown)
        found.append(outcome if told is None else outcome.model_copy(update={"outcome": told[0], "reason": told[1]}))
    return tuple(found)


def _look(kept: KeptCorrection, shown: Mapping[str, SegmentLabel]) -> _Told | None:
    """Return what is to be told of a correction that is not seen to hold; None where it is, or nothing tells."""
    if kept.said.kind is CorrectionKind.OTHER_VOICE:
        return _look_at_split(kept, shown)
    if kept.said.kind is CorrectionKind.SAME_VOICE:
        numbers = [_numbers_of(kept, number, shown) for number in kept.said.speaker_ids]
        numbers = [some for some in numbers if some]
        holds = not numbers or bool(set.intersection(*numbers))
    elif kept.said.kind in (CorrectionKind.VOICE_IS, CorrectionKind.VOICE_IS_NOT):
        persons = [shown[line].person_id for line in _lines_of(kept, kept.said.speaker_id, shown)]
        has_it = [person == kept.said.person_id for person in persons]
        is_so = kept.said.kind is CorrectionKind.VOICE_IS
        holds = not has_it or (any(has_it) if is_so else not all(has_it))
    else:
        holds = True
    return None if holds else ("void", OVERRIDDEN)


def _look_at_split(kept: KeptCorrection, shown: Mapping[str, SegmentLabel]) -> _Told | None:
    off = {shown[line].speaker_id for line in kept.said.segment_ids if line in shown}
    left = {shown[line].speaker_id for line in kept.lines_left if line in shown}
    if len(off) > 1:
        return "alone", CONTRADICTED
    return ("void", OVERRIDDEN) if off and off == left else None


def _lines_of(kept: KeptCorrection, number: int | None, shown: Mapping[str, SegmentLabel]) -> list[str]:
    """Return the segments that a voice had when the correction was said."""
    voice = None if number is None else kept.anchor(number)
    return [line for line in voice.segments if line in shown] if voice else []


def _numbers_of(kept: KeptCorrection, number: int, shown: Mapping[str, SegmentLabel]) -> set[int | None]:
    return {shown[line].speaker_id for line in _lines_of(kept, number, shown)}
