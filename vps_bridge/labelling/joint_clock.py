"""One clock for stretches whose captured_at is an estimate: how far it is off is the same for all of them.

Such a stretch is often a few seconds long, between two silences that were not sent, and too short to find its place by
its own words. So all of them are placed together, as far apart as captured_at says, and each is then tried by itself
near the place that it has among the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vps_bridge.labelling.align import Stretch, StretchClock
from vps_bridge.labelling.audio_clock import ClockPiece, Span

STRAY_S = 1.5
"""One burst may be so much later than another: a stretch is looked for so far around its place among the others."""
_ALL = -1

FindClock = Callable[[Stretch, Sequence[Span], Sequence[Span]], StretchClock]
"""Finds the clock of a stretch, given its speech and what of it was heard, in its seconds."""


@dataclass(frozen=True)
class _Member:
    stretch: Stretch
    shift_s: float
    """Where its second 0 lies on the common clock."""


def find_joint_clocks(
    stretches: Sequence[Stretch],
    speech: Mapping[int, Sequence[Span]],
    heard: Mapping[int, Sequence[Span]],
    find: FindClock,
) -> dict[int, StretchClock]:
    """Return the clocks of the stretches whose captured_at is an estimate, by their index; of no others."""
    members = _members(stretches)
    if not members:
        return {}
    first, last = members[0].stretch, members[-1]
    whole = replace(first, index=_ALL, length_s=last.shift_s + last.stretch.length_s)
    joint = find(whole, _moved(members, speech), _moved(members, heard))
    clocks: dict[int, StretchClock] = {}
    for member in members:
        index, shared = member.stretch.index, _share(member, joint)
        own = None
        if shared.offset_s is not None:
            near = replace(member.stretch, prior_s=shared.offset_s, is_timed=True, error_s=STRAY_S)
            own = find(near, speech.get(index, ()), heard.get(index, ()))
            if own.offset_s is None or abs(own.offset_s - shared.offset_s) > STRAY_S:
                own = None
        clocks[index] = own or shared
    return clocks


def _members(stretches: Sequence[Stretch]) -> list[_Member]:
    """Return the stretches in the order of the common clock; none of them overlap there."""
    timed = sorted(
        ((stretch.captured_s, stretch) for stretch in stretches if stretch.error_s and stretch.captured_s is not None),
        key=lambda pair: pair[0],
    )
    if not timed or any(after[0] < before[0] + before[1].length_s - STRAY_S for before, after in pairwise(timed)):
        return []
    return [_Member(stretch, captured_s - timed[0][0]) for captured_s, stretch in timed]


def _moved(members: Sequence[_Member], spans: Mapping[int, Sequence[Span]]) -> list[Span]:
    return [
        (start_s + member.shift_s, end_s + member.shift_s)
        for member in members
        for start_s, end_s in spans.get(member.stretch.index, ())
    ]


def _share(member: _Member, joint: StretchClock) -> StretchClock:
    """Return what the common clock says of one stretch, in its own seconds."""
    pieces = []
    for piece in joint.pieces:
        start_s = max(0.0, piece.start_s - member.shift_s)
        end_s = min(member.stretch.length_s, piece.end_s - member.shift_s)
        if end_s > start_s:
            pieces.append(ClockPiece(start_s, end_s, piece.offset_s + member.shift_s))
    return StretchClock(tuple(pieces), joint.reason, joint.detail)
