"""OMI in memory: its people, one of its conversations, and what its app, its processing and its API do to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vps_bridge.omi.api import OWNER, ApiFailed, ApiGone, ApiRefused


@dataclass(frozen=True)
class OmiLine:
    """A segment as OMI has it. `person`: a person's id, `OWNER` or None."""

    id: str
    start_s: float
    end_s: float
    text: str
    person: str | None = None
    is_manual: bool = False

    def row(self, *, names_its_source: bool) -> dict[str, Any]:
        """Return it as OMI reports it; older backends do not say who labelled it."""
        is_owner = self.person == OWNER
        known = {"speaker_label_source": "manual"} if self.is_manual and names_its_source else {}
        person = None if is_owner else self.person
        times = {"start": self.start_s, "end": self.end_s}
        return {"id": self.id, "text": self.text, "is_user": is_owner, "person_id": person, **times, **known}

    def inside(self, new_id: str) -> OmiLine:
        """Return a line that somebody else says in the middle of this one, and that nobody labelled."""
        fourth_s = (self.end_s - self.start_s) / 4
        start_s, end_s = self.start_s + fourth_s, self.end_s - fourth_s
        return OmiLine(new_id, start_s, end_s, "mhm")


@dataclass
class SimulatedOmi:
    """One user, one conversation; each method of `OmiApi` that labels need does here what OMI does."""

    lines: dict[str, OmiLine]
    people: dict[str, str]
    draw: random.Random
    name: str = "talk"
    """The conversation's id."""
    trouble: float = 0.0
    """How likely a call fails; half of those that fail were done all the same."""
    while_it_answers: Callable[[], None] = lambda: None
    """What happens between what a PATCH does and its answer."""
    refused: set[str] = field(default_factory=set)
    """Segments that no PATCH may name."""

    # ------------------------------------------------------------------------------- what the bridge calls

    def list_people(self, _uid: str) -> dict[str, str]:
        self._may_fail()
        return dict(self.people)

    def add_person(self, _uid: str, name: str) -> str:
        self._may_fail()
        self.people.setdefault(f"omi-{name}", name)
        self._may_fail()
        return f"omi-{name}"

    def read_labels(self, _uid: str, conversation_id: str) -> dict[str, str | None]:
        self._may_fail()
        self._find(conversation_id)
        return {line.id: line.person for line in self.lines.values()}

    def assign(self, _uid: str, conversation_id: str, segment_ids: Sequence[str], person_id: str | None) -> None:
        self._may_fail()
        self._find(conversation_id)
        if not set(segment_ids) <= self.lines.keys() or not self.refused.isdisjoint(segment_ids):
            raise ApiRefused("PATCH 127.0.0.1 answered 409")
        for one in segment_ids:
            self.lines[one] = replace(self.lines[one], person=person_id, is_manual=True)
        self.while_it_answers()
        self._may_fail()

    def _find(self, conversation_id: str) -> None:
        if conversation_id != self.name:
            raise ApiGone("GET 127.0.0.1 answered 404")

    def _may_fail(self) -> None:
        if self.draw.random() < self.trouble / 2:
            raise ApiFailed("PATCH 127.0.0.1 answered 503")

    # ------------------------------------------------------------------------------- what happens in OMI

    def say(self, segment_id: str, person: str | None) -> None:
        """A person labels a line in the app, or clears its label."""
        self.lines[segment_id] = replace(self.lines[segment_id], person=person, is_manual=True)

    def begin_processing(self) -> dict[str, OmiLine]:
        """Return what OMI read before it writes a summary."""
        return dict(self.lines)

    def end_processing(self, read: dict[str, OmiLine]) -> list[str]:
        """Write what was read over what came meanwhile, and return the lines whose label that changes."""
        changed = [one for one, line in read.items() if one in self.lines and self.lines[one].person != line.person]
        if read.keys() == self.lines.keys():
            self.lines = dict(read)
            return changed
        return []

    def renumber(self, letter: str) -> dict[str, str]:
        """Give all lines other ids; their labels go along. Return the new ids by the old ones."""
        new = {old: f"{letter}-{old.rpartition('-')[2]}" for old in self.lines}
        self.lines = {new[old]: replace(line, id=new[old]) for old, line in self.lines.items()}
        return new

    def cut(self, segment_id: str, new_id: str) -> None:
        """Make two of a line, of which the second has another id; the label is both's."""
        line = self.lines[segment_id]
        middle_s, words = (line.start_s + line.end_s) / 2, line.text.split()
        half = (len(words) + 1) // 2
        first = replace(line, end_s=middle_s, text=" ".join(words[:half]))
        second = replace(line, id=new_id, start_s=middle_s, text=" ".join(words[half:]))
        self._put_in_place({segment_id: (first, second)})

    def join(self, segment_ids: Sequence[str], new_id: str) -> None:
        """Make one of lines that lie side by side and have one label; their ids are gone."""
        lines = [self.lines[one] for one in segment_ids]
        text = " ".join(line.text for line in lines)
        joined = replace(lines[0], id=new_id, end_s=lines[-1].end_s, text=text)
        self._put_in_place({line.id: () for line in lines} | {lines[0].id: (joined,)})

    def put_back(self, line: OmiLine) -> None:
        """Have a line again that was gone."""
        lines = sorted([*self.lines.values(), line], key=lambda one: one.start_s)
        self.lines = {one.id: one for one in lines}

    def _put_in_place(self, changed: dict[str, tuple[OmiLine, ...]]) -> None:
        now = [one for line in self.lines.values() for one in changed.get(line.id, (line,))]
        self.lines = {line.id: line for line in now}
