"""The lines of one event of the backend: whether one that was there before has another id among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.near_in_time import NearInTime
from vps_bridge.conversations.store import SAME_EXTENT_S, SHORT_S, is_same_extent, is_same_place


class _Row(Protocol):
    def __getitem__(self, column: str, /) -> Any:  # noqa: ANN401 - what a column holds
        ...


class SentLines:
    """The lines that an event names with their times."""

    def __init__(self, segments: Iterable[TranscriptSegment]) -> None:
        """Look among these."""
        timed = [one for one in segments if one.has_times]
        self._spans = {one.id: (one.start_s, one.end_s) for one in timed}
        self._texts = {one.id: one.text for one in timed}
        by_text = defaultdict[str, list[str]](list)
        for name, text in self._texts.items():
            by_text[text].append(name)
        self._by_text = {text: NearInTime(names, self._spans.__getitem__) for text, names in by_text.items()}

    def have_under_another_id(self, row: _Row) -> bool:
        """Whether what a segment said is said under another id: where it lay, or anywhere if it is long and said once.

        What has no text is the same where it begins and ends as before.
        """
        before, name, text = (row["start_s"], row["end_s"]), row["segment_id"], row["text"]
        alike = self._by_text.get(text)
        if alike is None:
            return False
        is_same = is_same_place if text else is_same_extent
        if self._texts.get(name) == text and is_same(before, self._spans[name]):
            return False
        near = alike.find((before[0] - SAME_EXTENT_S, before[1] + SAME_EXTENT_S))
        if any(is_same(before, self._spans[one]) for one in near):
            return True
        return bool(text) and len(alike.items) == 1 and alike.items[0] != name and before[1] - before[0] >= SHORT_S
