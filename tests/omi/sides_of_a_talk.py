"""A talk in OMI and here: what people said last of its lines, and the reports on their way."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.hand_clock import HandClock
from tests.omi.labelled_talk import LabelledTalk
from tests.omi.simulated_omi import OmiLine, SimulatedOmi
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from vps_bridge.omi.api import OWNER

JOINED = "joined"
OLD_S = 300.0
"""As long as a report of what OMI had read before may take: `OLD_REPORT_S` of the ledger."""


@dataclass
class WatchedOmi(SimulatedOmi):
    """Notes when it was asked to have whom in which line."""

    clock: HandClock = field(default_factory=HandClock)
    asked: dict[str, list[tuple[float, str | None]]] = field(default_factory=dict)

    def assign(self, uid: str, conversation_id: str, segment_ids: Sequence[str], person_id: str | None) -> None:
        for one in segment_ids:
            self.asked.setdefault(one, []).append((self.clock(), person_id))
        super().assign(uid, conversation_id, segment_ids, person_id)


@dataclass
class SidesOfATalk:
    """What both sides have, and what is known of it."""

    talk: LabelledTalk
    omi: WatchedOmi
    drawn: DrawnConversation
    draw: random.Random
    clock: HandClock
    names_source: bool = True
    words: dict[str, str | None] = field(default_factory=dict)
    """By line: whom a person said in OMI, where nobody could take it for what came from here."""
    contested: set[str] = field(default_factory=set)
    """Lines of which something was said here before the bridge heard what OMI has: which is later, nobody knows."""
    reported: set[str] = field(default_factory=set)
    """Those of them that the bridge has heard of."""
    unsure: set[str] = field(default_factory=set)
    """Lines whose word may count as ours, or was lost by OMI itself."""
    left_there: set[str] = field(default_factory=set)
    """Lines that OMI had from us under another id, or in another conversation, or of somebody who was deleted here:
    where nobody is named, they stay."""
    by_hand: dict[str, str] = field(default_factory=dict)
    """By line: whom a person said here, after what was said in OMI."""
    hidden: set[str] = field(default_factory=set)
    """Lines that the last report did not show."""
    gone: dict[str, OmiLine] = field(default_factory=dict)
    """Lines that OMI has not any more, and may have again."""
    reports: list[tuple[float, list[dict[str, Any]]]] = field(default_factory=list)
    processing: tuple[float, dict[str, OmiLine]] | None = None
    names: dict[str, float] = field(default_factory=lambda: {"talk": 0.0})
    """The conversations that it was, and how much later than the first each is said to begin."""
    deleted: dict[str, str] = field(default_factory=dict)
    """Whom OMI does not know any more: lines that it was told of them stay as they are."""
    second: dict[str, str] = field(default_factory=dict)
    events: dict[str, str | None] = field(default_factory=dict)
    """What people said here of this conversation, and of which line alone."""
    log: list[str] = field(default_factory=lambda: ["begin"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What OMI would report now."""
        return [line.row(names_its_source=self.names_source) for line in self.omi.lines.values()]

    @property
    def known_there(self) -> list[str]:
        return sorted(self.omi.people.keys() - {"second"})

    def is_heard_of(self, line: str) -> bool:
        """Whether the bridge knows what OMI has of a line: what is said here then is said later."""
        return line in self.omi.lines and (line not in self.words or line in self.reported)

    @staticmethod
    def made_of(line: str, among: Iterable[str]) -> set[str]:
        """Return what may be a line under other ids: it, or a part of it, or one that was joined of it and others."""
        return {one for one in among if one.split("-")[1:2] == line.split("-")[1:2] or one.startswith(JOINED)}

    def report(self, read_at: float | None = None) -> None:
        """OMI makes a report, of what it has or wrote back as it had read it then (Unix time)."""
        self.reports.append((self.clock() if read_at is None else read_at, self.rows))
        if self.draw.random() < 0.6:
            self.take_report()

    def take_report(self) -> None:
        if self.reports:
            self.log[-1] += " taken"
            self.take_rows(self.reports.pop(0)[1])

    def take_rows(self, rows: list[dict[str, Any]]) -> None:
        self.talk.report(rows, self.draw.choice([0, len(self.log)]), self.names[self.omi.name])
        has = {row["id"]: OWNER if row["is_user"] else row["person_id"] for row in rows}
        self.reported |= {line for line, said in self.words.items() if has.get(line) == said}
        self.hidden = self.omi.lines.keys() - has.keys()
        for line in self.by_hand.keys() - has.keys():  # a line that is gone takes its label along: docs/corrections.md
            del self.by_hand[line]

    def report_again(self) -> None:
        self.report()
        while self.reports:
            self.take_report()
