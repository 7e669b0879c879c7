"""The turns of a conversation as they are reported: by number, in seconds of the transcript."""

from __future__ import annotations

import math
from collections.abc import Sequence

from schemas.conversation import ConversationTurn
from vps_bridge.labelling.align import StretchClock
from vps_bridge.labelling.audio_clock import TOUCHING_S, ClockPiece, Span
from vps_bridge.labelling.evidence import AudioTimeline, ConversationEvidence
from vps_bridge.labelling.link import Partition


def number_turns(
    evidence: ConversationEvidence,
    timeline: AudioTimeline,
    clocks: Sequence[StretchClock],
    partition: Partition,
    numbers: Sequence[int | None],
) -> tuple[ConversationTurn, ...]:
    """Return who speaks when, under the voices' numbers; turns of one number that touch or overlap become one."""
    clocks = reported_clocks(evidence, timeline, clocks)
    number_of = {member: number for members, number in zip(partition, numbers, strict=True) for member in members}
    by_number: dict[int, list[Span]] = {}
    for turn in timeline.turns:
        number = number_of.get(timeline.speakers[turn.speaker_index].id)
        if number is None:
            continue
        spans = by_number.setdefault(number, [])
        for start_s, end_s in clocks[turn.stretch].move(turn.start_s, turn.end_s):
            if spans and start_s - spans[-1][1] < TOUCHING_S:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end_s))
            else:
                spans.append((start_s, end_s))
    return tuple(
        ConversationTurn(start_s=round(start_s, 3), end_s=round(end_s, 3), speaker_id=number)
        for start_s, end_s, number in sorted((*span, number) for number, spans in by_number.items() for span in spans)
    )


def reported_clocks(
    evidence: ConversationEvidence, timeline: AudioTimeline, clocks: Sequence[StretchClock]
) -> Sequence[StretchClock]:
    """Return the clocks that turns are reported by; without a transcript that is the audio clock."""
    if evidence.segments:
        return clocks
    return [StretchClock((ClockPiece(0.0, math.inf, origin_s),), None) for origin_s in timeline.origins]
