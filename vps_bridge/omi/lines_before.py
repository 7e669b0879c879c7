"""What is known of a report's lines, also from the lines that they were before OMI gave them other ids. Pure."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.near_in_time import NearInTime
from vps_bridge.conversations.store import SAME_EXTENT_S, StoredSegment, is_same_extent, shared_s
from vps_bridge.ledger.told_segment import ELSEWHERE, ToldSegment
from vps_bridge.omi.api import OWNER

NOBODY = ""
"""Whom OMI has by itself where people there took away whom it had from us; no id of a person."""


@dataclass(frozen=True)
class LinesBefore:
    """The lines that a conversation had, and what is known of them."""

    lines: Sequence[StoredSegment]
    told: Mapping[str, ToldSegment]
    """By id what OMI was told of them, also as lines of other conversations."""
    named: Collection[str]
    """Those for which OMI has had somebody by itself, there too."""
    heard: Mapping[str, str]
    """Whom OMI had by itself in its last report."""
    elsewhere: Mapping[str, StoredSegment] = field(default_factory=dict)
    """By id the lines that another conversation has, of those that are new here."""


@dataclass(frozen=True)
class KnownLines:
    """What is known of the lines of a report."""

    told: dict[str, ToldSegment]
    named: set[str] = field(default_factory=set)
    """Those for which OMI had somebody by itself, or from us until people there took that away."""
    taken_away: set[str] = field(default_factory=set)
    """Those for which people there took away whom it had from us, as another conversation told it."""
    by_hand: dict[str, str] = field(default_factory=dict)
    """Whom a person named here in the line that it was, where OMI has that from us, or has nobody yet."""
    corrected: dict[str, str] = field(default_factory=dict)
    """Where OMI has whom it had by itself before: whom a person named here instead."""

    def find_taken_away(self, ours: Collection[str]) -> set[str]:
        """Return the segments for which people there took away whom it had from us; it has `ours` still.

        Where only another conversation told it of somebody, it may never have had that.
        """
        not_ours = self.told.keys() - set(ours)
        return {one for one in not_ours if self.told[one].ours != ELSEWHERE or one in self.taken_away}


def find_known(segments: Sequence[TranscriptSegment], before: LinesBefore, now: float) -> KnownLines:
    """Return what is known of the lines of a report that comes `now` (Unix time)."""
    found = KnownLines(dict(before.told), {one.id for one in segments if one.id in before.named})
    found.taken_away.update(one.id for one in segments if _is_taken_away(one, before.told.get(one.id), now))
    found.named.update(found.taken_away)
    changed = _find_changed(segments, before.lines)
    _follow_told(segments, changed, before, found, now)
    _follow_others(segments, changed, before, found, now)
    _follow_merged(segments, before, found, now)
    return found


def _find_changed(segments: Sequence[TranscriptSegment], lines: Sequence[StoredSegment]) -> list[StoredSegment]:
    """Return the lines that may be other lines now, where they lie now: those that are gone, or were cut.

    One that says the same under its id was not cut, wherever it lies: OMI puts an earlier conversation in front.
    """
    moves = _find_moves(segments, lines)
    moved = [_moved(one, moves) for one in lines]
    same = {one.id: one for one in segments}
    return [
        one
        for one in moved
        if (now := same.get(one.id)) is None
        or not (is_same_extent(one.span, _span_of(now)) or _words(one.text) == _words(now.text))
    ]


def _moved(line: StoredSegment, moves: Sequence[tuple[float, float]]) -> StoredSegment:
    """Return a line where it lies now: it has moved as far as the last one before it of which that is known."""
    place = bisect_right(moves, line.start_s, key=lambda move: move[0])
    by_s = moves[max(place - 1, 0)][1] if moves else 0.0
    return replace(line, start_s=line.start_s + by_s, end_s=line.end_s + by_s) if abs(by_s) > SAME_EXTENT_S else line


def _find_moves(segments: Sequence[TranscriptSegment], lines: Sequence[StoredSegment]) -> list[tuple[float, float]]:
    """Return from when on lines have moved, and how far: those that say what only one says, before and now.

    Two that follow each other have moved alike; one alone may be another that says the same.
    """
    starts, ends = (_only_ones((one.text, one.start_s) for one in some) for some in (lines, segments))
    moves = sorted((start_s, ends[text] - start_s) for text, start_s in starts.items() if text in ends)
    alike = [pair for pair in pairwise(moves) if abs(pair[0][1] - pair[1][1]) <= SAME_EXTENT_S]
    return sorted({move for pair in alike for move in pair})


def _only_ones(said: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return by text when it begins, of texts that are there once."""
    words = [(_words(text), start_s) for text, start_s in said]
    counts = Counter(text for text, _ in words)
    return {text: start_s for text, start_s in words if text and counts[text] == 1}


def _follow_told(
    segments: Sequence[TranscriptSegment],
    changed: Sequence[StoredSegment],
    before: LinesBefore,
    found: KnownLines,
    now: float,
) -> None:
    """Find whom OMI has from us in lines that had other ids when it was told."""
    lines = NearInTime(changed, lambda one: one.span)
    for segment in segments:
        if segment.person_id is not None and segment.id not in before.told:
            near = [one for one in _find_near(segment, lines) if one.id in before.told]
            fitting = [one for one in near if before.told[one.id].may_be(segment.person_id, now)]
            line = _most_of(segment, fitting) or _most_of(segment, near)
            if line is None:
                continue
            told = before.told[line.id]
            if line.is_human_labelled and line.person_id is not None:
                found.by_hand[segment.id] = line.person_id
            elif line.is_human_labelled:  # of a voice that has no name by hand OMI keeps whom it has
                told = told._replace(ours=ELSEWHERE)
            found.told[segment.id] = told


def _follow_others(
    segments: Sequence[TranscriptSegment],
    changed: Sequence[StoredSegment],
    before: LinesBefore,
    found: KnownLines,
    now: float,
) -> None:
    """Find what was said there, and here, of lines that have another id now, or were cut."""
    ids = {one.id for one in before.lines}
    lines = NearInTime(changed, lambda one: one.span)
    for segment in segments:
        line = None if segment.id in ids else _most_of(segment, _find_near(segment, lines))
        if line is None or segment.id in found.told:
            continue
        told = before.told.get(line.id)
        if line.id in before.named or _is_taken_away(segment, told and told._replace(ours=ELSEWHERE), now):
            found.named.add(segment.id)
        goes_along = _is_open(segment, found) and _says_part_of(segment, line)
        _follow_word(segment, line, before, found, goes_along=goes_along)


def _follow_merged(segments: Sequence[TranscriptSegment], before: LinesBefore, found: KnownLines, now: float) -> None:
    """Find whom a person named here in a line of a conversation that OMI merged or split into this one."""
    for segment in segments:
        line, told = before.elsewhere.get(segment.id), before.told.get(segment.id)
        if line is not None:
            is_ours = told is not None and told.may_be(segment.person_id, now)
            _follow_word(segment, line, before, found, goes_along=_is_open(segment, found) or is_ours)


def _is_open(segment: TranscriptSegment, found: KnownLines) -> bool:
    """Whether OMI has nobody for a segment, and never had."""
    return segment.person_id is None and segment.id not in found.named


def _follow_word(
    segment: TranscriptSegment, line: StoredSegment, before: LinesBefore, found: KnownLines, *, goes_along: bool
) -> None:
    """Note whom a person named here in the line that a segment was: where it goes along, or over OMI's older word."""
    if line.label_source != "manual" or line.person_id is None:
        return
    has = OWNER if segment.is_user else segment.person_id or NOBODY
    if goes_along and has != OWNER:
        found.by_hand[segment.id] = line.person_id
    elif before.heard.get(line.id, NOBODY) == has and (has != NOBODY or _says_part_of(segment, line)):
        found.corrected[segment.id] = line.person_id


def _is_taken_away(segment: TranscriptSegment, told: ToldSegment | None, now: float) -> bool:
    """Whether OMI has nobody where another conversation told it of somebody, and it does so not for a while only."""
    if told is None or told.ours != ELSEWHERE or told.theirs is None:
        return False
    return segment.person_id is None and not segment.is_user and None not in (*told.tried, *told.had(now))


def _says_part_of(segment: TranscriptSegment, line: StoredSegment) -> bool:
    """Whether a segment says what a line said, or some of it."""
    return f" {_words(segment.text)} " in f" {_words(line.text)} "


def _words(text: str) -> str:
    """Return what a text says: another transcription has other capitals and punctuation."""
    said = "".join(one for one in text if one.isalnum() or not unicodedata.category(one).startswith("P"))
    return " ".join((said.strip() or text).casefold().split())


def _span_of(segment: TranscriptSegment) -> tuple[float, float]:
    return segment.start_s, segment.end_s


def _find_near(segment: TranscriptSegment, lines: NearInTime[StoredSegment]) -> list[StoredSegment]:
    """Return the lines that a segment may have been; where people speak at once, the one that lay just there alone."""
    near = lines.find(_span_of(segment))
    there = [one for one in near if is_same_extent(one.span, _span_of(segment))]
    return [one for one in there if _words(one.text) == _words(segment.text)] or there or near


def _most_of(segment: TranscriptSegment, lines: Sequence[StoredSegment]) -> StoredSegment | None:
    """Return the line that most of a segment lies in, where more than half of it lies in these lines together.

    One without length lies in a line that goes on there.
    """
    span = _span_of(segment)
    shared = [shared_s(one.span, span) for one in lines]
    length_s = segment.end_s - segment.start_s
    is_most = sum(shared) > length_s / 2 if length_s > 0 else max(shared, default=-1.0) >= 0
    return lines[shared.index(max(shared))] if is_most else None
