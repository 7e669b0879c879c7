"""One clock for many short stretches, between silences that were not sent: they lie as far apart as captured_at says.

A stretch of a few seconds is too short to find its place by its own words. So all of them are placed together. Where
captured_at is an estimate, how far it is off is the same for all, and each is then tried by itself near the place that
it has among the others. Where it is known, only those are placed together that found no place alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vps_bridge.labelling.align import Stretch, StretchClock
from vps_bridge.labelling.audio_clock import ClockPiece, Span
from vps_bridge.labelling.offset_search import STEP_S

STRAY_S = 1.5
"""One burst may be so much later than another: a stretch is looked for so far around its place among the others."""
_ALL = -1
_LONGEST_S = 86_400.0
"""Stretches farther apart are not placed together: one of them is of a clock that was not set, and would take all the
memory there is."""
_LONGEST_LOST_S = 14_400.0
"""The same of stretches whose times are known: so long takes two seconds."""

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
    clocks: dict[int, StretchClock] = {}
    for members in _groups([stretch for stretch in stretches if stretch.error_s], _LONGEST_S):
        joint = _find_joint(members, speech, heard, find)
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


def find_lost_clocks(
    lost: Sequence[Stretch],
    speech: Mapping[int, Sequence[Span]],
    heard: Mapping[int, Sequence[Span]],
    find: FindClock,
    confirm: FindClock,
) -> dict[int, StretchClock]:
    """Return the clocks, by index, of stretches that found no place alone, as far as they find one together.

    Each must confirm its place a little (`confirm`): one of which captured_at is wrong lies elsewhere than the others.
    """
    clocks: dict[int, StretchClock] = {}
    for members in _groups([stretch for stretch in lost if stretch.is_timed and not stretch.error_s], _LONGEST_LOST_S):
        joint = _find_joint(members, speech, heard, find) if len(members) > 1 else StretchClock((), None)
        for member in members:
            index, shared = member.stretch.index, _share(member, joint)
            if shared.offset_s is not None:
                own = confirm(
                    replace(member.stretch, prior_s=shared.offset_s), speech.get(index, ()), heard.get(index, ())
                )
                if own.offset_s is not None and abs(own.offset_s - shared.offset_s) < STRAY_S:
                    placed_s = sum(piece.end_s - piece.start_s for piece in shared.pieces)
                    is_all = placed_s > member.stretch.length_s - STEP_S
                    clocks[index] = StretchClock(shared.pieces, None) if is_all else shared
    return clocks


def _find_joint(
    members: Sequence[_Member],
    speech: Mapping[int, Sequence[Span]],
    heard: Mapping[int, Sequence[Span]],
    find: FindClock,
) -> StretchClock:
    """Return the clock of all members, in seconds of the first."""
    last = members[-1]
    whole = replace(members[0].stretch, index=_ALL, length_s=last.shift_s + last.stretch.length_s)
    return find(whole, _moved(members, speech), _moved(members, heard))


def _groups(stretches: Sequence[Stretch], longest_s: float) -> list[list[_Member]]:
    """Return the stretches in the order of captured_at, those that lie near together in one group.

    A group of which some overlap is left out: they are recordings of two devices, or the times are wrong.
    """
    timed = sorted(
        ((stretch.captured_s, stretch) for stretch in stretches if stretch.captured_s is not None),
        key=lambda pair: pair[0],
    )
    groups: list[list[_Member]] = []
    begin_s = 0.0
    for captured_s, stretch in timed:
        if not groups or captured_s + stretch.length_s - begin_s > longest_s:
            groups.append([])
            begin_s = captured_s
        groups[-1].append(_Member(stretch, captured_s - begin_s))
    return [group for group in groups if not any(_overlap(*pair) for pair in pairwise(group))]


def _overlap(before: _Member, after: _Member) -> bool:
    return after.shift_s < before.shift_s + before.stretch.length_s - STRAY_S


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
