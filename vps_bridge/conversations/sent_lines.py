"""The lines of one event of the backend: whether one that was there before has another id among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.near_in_time import NOTHING, NearInTime
from vps_bridge.conversations.store import (
    SAME_EXTENT_S,
    SHORT_S,
    find_move,
    is_same_extent,
    is_same_place,
    is_same_span,
)


class _Row(Protocol):
    def __getitem__(self, column: str, /) -> Any:  # noqa: ANN401 - what a column holds
        ...


class SentLines:
    """The lines that an event names with their times."""

    def __init__(self, segments: Iterable[TranscriptSegment], known: Mapping[str, _Row]) -> None:
        """Look among these; `known` are the segments that the store has."""
        timed = [one for one in segments if one.has_times]
        self._spans = {one.id: (one.start_s, one.end_s) for one in timed}
        self._saying = {one.id for one in timed if "text" in one.model_fields_set}
        self._texts = {one.id: one.text for one in timed}
        by_text = defaultdict[str, list[str]](list)
        for name, text in self._texts.items():
            by_text[text].append(name)
        self._by_text = {text: NearInTime(names, self._spans.__getitem__) for text, names in by_text.items()}
        self._all, there = NearInTime(self._spans, self._spans.__getitem__), dict[str, _Row]()
        said = defaultdict[str, list[str]](list)
        for name, row in known.items():
            if not row["removed"]:
                there[name] = row
                said[row["text"]].append(name)
        self._moved_s = self._find_move(there, said)
        self._before = {name: self._place(row) for name, row in there.items()}
        self._said_before = {text: NearInTime(names, self._before.__getitem__) for text, names in said.items()}

    def have_under_another_id(self, row: _Row) -> bool:
        """Whether what a segment said is said under another id: where it lay, or anywhere if it is long and said once.

        It was said once, too: what somebody else said as well may be said by them now.

        What has no text is the same where it begins and ends as before. So is what says something else, where its own
        id is a line around it or in it now: a listener has lines while somebody speaks. Where its id is just what
        another one was, or where it says something else and lies elsewhere than all lines that have moved by as much,
        it is not its own line, whether that is there or not.
        """
        before, name, text = self._place(row), row["segment_id"], row["text"]
        is_same = is_same_place if text else is_same_extent
        if self._texts.get(name) == text and is_same(before, self._spans[name]):
            return False
        alike = self._by_text.get(text, NOTHING)
        near = alike.find((before[0] - SAME_EXTENT_S, before[1] + SAME_EXTENT_S))
        if any(is_same(before, self._spans[one]) for one in near):
            return True
        is_once = len(alike.items) == 1 and len(self._said_before.get(text, NOTHING).items) == 1
        is_found = is_once and alike.items[0] != name and before[1] - before[0] >= SHORT_S
        if (text and is_found) or name not in self._saying or self._texts[name] == text:
            return bool(text) and is_found
        return self._is_inside_out(row) or self._is_what_another_was(row) or self._is_left_behind(row)

    def _place(self, row: _Row) -> tuple[float, float]:
        """Return where a line lies now."""
        return row["start_s"] + self._moved_s, row["end_s"] + self._moved_s

    def _find_move(self, there: Mapping[str, _Row], said: Mapping[str, list[str]]) -> float:
        """Return by how much all lines have moved that say something once and of any length; 0 where they have not."""
        once = {text: names[0] for text, names in said.items() if text and len(names) == 1}
        pairs = [(there[once[text]], found.items) for text, found in self._by_text.items() if text in once]
        moved_s = [
            self._spans[names[0]][0] - row["start_s"]
            for row, names in pairs
            if len(names) == 1 and row["end_s"] - row["start_s"] >= SHORT_S
        ]
        return find_move(moved_s)

    def _is_left_behind(self, row: _Row) -> bool:
        """Whether what an id says now does not lie where its line does, as all lines have moved."""
        return bool(self._moved_s) and not is_same_place(self._place(row), self._spans[row["segment_id"]])

    def _is_inside_out(self, row: _Row) -> bool:
        """Whether an id lies otherwise than before, and another one, which did not lie there, just so."""
        before = self._place(row)
        if is_same_extent(before, self._spans[row["segment_id"]]):
            return False
        return any(
            is_same_span(before, self._spans[one]) and not self._lay_there(one) for one in self._all.find(before)
        )

    def _is_what_another_was(self, row: _Row) -> bool:
        """Whether an id says and lies just as another one did."""
        name = row["segment_id"]
        text, span = self._texts[name], self._spans[name]
        near = self._said_before.get(text, NOTHING).find(span) if text else ()
        return any(one != name and is_same_span(self._before[one], span) for one in near)

    def _lay_there(self, name: str) -> bool:
        return name in self._before and is_same_extent(self._before[name], self._spans[name])
