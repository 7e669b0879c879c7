"""The lines of one event of the backend: whether one that was there before has another id among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.store import SHORT_S, is_same_extent, is_same_place


class _Row(Protocol):
    def __getitem__(self, column: str, /) -> Any:  # noqa: ANN401 - what a column holds
        ...


class SentLines:
    """The lines that an event names with their times."""

    def __init__(self, segments: Iterable[TranscriptSegment]) -> None:
        """Look among these."""
        self._by_text = defaultdict[str, list[TranscriptSegment]](list)
        self._silent_from = defaultdict[int, list[TranscriptSegment]](list)
        for one in segments:
            if one.has_times and one.text:
                self._by_text[one.text].append(one)
            elif one.has_times:
                self._silent_from[int(one.start_s)].append(one)

    def have_under_another_id(self, row: _Row) -> bool:
        """Whether what a segment said is said under another id: where it lay, or anywhere if it is long and said once.

        What has no text is the same where it begins and ends as before.
        """
        before, name = (row["start_s"], row["end_s"]), row["segment_id"]
        if not row["text"]:
            near = [one for at in (-1, 0, 1) for one in self._silent_from.get(int(before[0]) + at, ())]
            there = [one.id for one in near if is_same_extent(before, (one.start_s, one.end_s))]
            return bool(there) and name not in there
        alike = self._by_text.get(row["text"], [])
        there = [one.id for one in alike if is_same_place(before, (one.start_s, one.end_s))]
        if there:
            return name not in there
        return len(alike) == 1 and alike[0].id != name and before[1] - before[0] >= SHORT_S
