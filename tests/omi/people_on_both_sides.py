"""People who label a talk in OMI and here, in a drawn order, while reports are late, calls fail and OMI writes over."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from schemas.people import PersonEventType
from tests.hand_clock import HandClock
from tests.omi.labelled_talk import UID, LabelledTalk
from tests.omi.simulated_omi import OmiLine, SimulatedOmi
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from vps_bridge.omi.api import OWNER

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
class BothSides:
    """What happens, and what people said last of each line in OMI."""

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
    """Lines that OMI had from us under another id, or in another conversation: where nobody is named, they stay."""
    by_hand: dict[str, str] = field(default_factory=dict)
    """By line: whom a person said here, after what was said in OMI."""
    reports: list[tuple[float, list[dict[str, Any]]]] = field(default_factory=list)
    processing: tuple[float, dict[str, OmiLine]] | None = None
    names: dict[str, float] = field(default_factory=lambda: {"talk": 0.0})
    """The conversations that it was, and how much later than the first each is said to begin."""
    second: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=lambda: ["begin"])

    # ------------------------------------------------------------------------------------------------ steps

    def step(self) -> None:
        ways: list[Callable[[], None]] = [
            self.say_in_omi,
            self.say_in_omi,
            self.process,
            self.process,
            self.report,
            self.report,
            self.take_report,
            self.say_here,
            self.say_here,
            self.say_here,
            self.take_back,
            self.change_person,
            self.hear,
            self.send,
            self.send,
            self.wait,
            self.renumber,
            self.cut,
            self.join,
            self.merge,
            self.refuse,
            self.remove,
            self.name_twice,
            self.change_trouble,
            self.talk.start_again,
        ]
        way = self.draw.choice(ways)
        self.log.append(way.__name__)
        way()

    def say_in_omi(self) -> None:
        line = self.draw.choice(sorted(self.omi.lines))
        person = self.draw.choice([*self.known_there, None, OWNER])
        if person == self.omi.lines[line].person:
            return
        asked = self.omi.asked.get(line, [])
        is_recent = any(self.clock() - at < OLD_S and person in (None, who) for at, who in asked)
        is_recent |= bool(asked) and asked[-1][1] == person
        is_known = line in self.reported
        self.omi.say(line, person)
        self.log[-1] += f" {line} {person}"
        self.words[line] = person
        self.reported.discard(line)
        self.contested.discard(line)
        self.by_hand.pop(line, None)
        is_no_change = person is None and not asked and not is_known  # as if nobody had ever been there
        is_unsure = is_recent or is_no_change or self.may_be_asked(line, person)
        (self.unsure.add if is_unsure else self.unsure.discard)(line)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What OMI would report now."""
        return [line.row(names_its_source=self.names_source) for line in self.omi.lines.values()]

    @property
    def known_there(self) -> list[str]:
        return sorted(self.omi.people.keys() - {"second"})

    def may_be_asked(self, line: str, person: str | None) -> bool:
        """Whether a call whose answer was lost may have said it."""
        return self.omi.trouble > 0 and person in [who for _, who in self.omi.asked.get(line, [])]

    def process(self) -> None:
        if self.processing is None:
            self.processing = self.clock(), self.omi.begin_processing()
            self.log[-1] += " begins"
            return
        before = {one: line.person for one, line in self.omi.lines.items()}
        for line in self.omi.end_processing(self.processing[1]):
            if line in self.words and before[line] == self.words[line]:
                self.unsure.add(line)
        self.processing = None
        self.report()

    def report(self) -> None:
        self.reports.append((self.clock(), self.rows))
        if self.draw.random() < 0.6:
            self.take_report()

    def take_report(self) -> None:
        if self.reports:
            self.log[-1] += " taken"
            rows = self.reports.pop(0)[1]
            self.talk.report(rows, self.draw.choice([0, len(self.log)]), self.names[self.omi.name])
            has = {row["id"]: OWNER if row["is_user"] else row["person_id"] for row in rows}
            self.reported |= {line for line, said in self.words.items() if has.get(line) == said}

    def say_here(self) -> None:
        numbers = sorted({one for one in self.talk.numbers.values() if one is not None})
        person = self.draw.choice([f"p-{one}" for one in self.drawn.people] + self.known_there)
        kind = self.draw.choice(["voice_is", "voice_is", "segment_is", "voice_is_not", "same_voice", "other_voice"])
        if kind == "segment_is":
            line = self.draw.choice(sorted(self.talk.numbers))
            said: dict[str, Any] = {"segment_id": line, "person_id": person}
        elif kind == "other_voice":
            said = {"segment_ids": self.draw.sample(sorted(self.talk.numbers), 2)}
        elif kind == "same_voice":
            said = {"speaker_ids": numbers[:2]}
        else:
            said = {"speaker_id": self.draw.choice(numbers or [0]), "person_id": person}
        event_id = self.talk.correct(kind=kind, **said) if kind != "same_voice" or len(numbers) > 1 else None
        self.log[-1] += f" {kind} {said} {event_id}"
        self.events += [event_id] if event_id else []
        if event_id and kind == "segment_is" and self.is_heard_of(line):
            self.by_hand[said["segment_id"]] = person
        elif event_id and kind == "segment_is":  # OMI says otherwise, or its line has another id there already
            self.contested.add(line)
            self.left_there |= {one for one in self.omi.lines if one.split("-")[1:2] == line.split("-")[1:2]}

    def is_heard_of(self, line: str) -> bool:
        """Whether the bridge knows what OMI has of a line: what is said here then is said later."""
        return line in self.omi.lines and (line not in self.words or line in self.reported)

    def take_back(self) -> None:
        if self.events:
            self.by_hand.clear()
            way, event_id = self.draw.choice([self.talk.take_back, self.talk.bring_back]), self.draw.choice(self.events)
            self.log[-1] += f" {way.__name__} {event_id} {way(event_id)}"

    def change_person(self) -> None:
        person = f"p-{self.draw.choice(self.drawn.people)}"
        if self.draw.random() < 0.4:
            is_owner = self.draw.random() < 0.5
            self.talk.know(person, PersonEventType.OWNER, is_owner=is_owner)
            self.log[-1] += f" {person} owner {is_owner}"
            return
        name = self.draw.choice([*"ABCD", "Ed", "Flo"])
        self.talk.know(person, PersonEventType.NAMED, name=name)
        self.log[-1] += f" {person} {name}"

    def hear(self) -> None:
        self.talk.hear(self.drawn.jobs[: len(self.talk.jobs) + 1])

    def send(self) -> None:
        busy = self.omi.while_it_answers
        if self.draw.random() < 0.3:

            def meanwhile() -> None:
                self.omi.while_it_answers = busy
                self.log.append("  meanwhile:")
                self.draw.choice([self.say_in_omi, self.report, self.say_here, self.change_person, self.process])()

            self.omi.while_it_answers = meanwhile
        self.talk.send(self.draw.choice([1, 1, 5]))
        self.omi.while_it_answers = busy

    def wait(self) -> None:
        later_s = self.draw.choice([10.0, 100.0, 400.0])
        self.log[-1] += f" {later_s}"
        for began_at in [at for at, _ in self.reports]:
            if self.clock() + later_s - began_at >= OLD_S:
                self.take_report()
        if self.processing is not None and self.clock() + later_s - self.processing[0] >= OLD_S - 50:
            self.process()
        while self.reports and self.clock() + later_s - self.reports[0][0] >= OLD_S:
            self.take_report()
        self.clock.now_s += later_s

    def renumber(self) -> None:
        if self.draw.random() < 0.5 or self.processing is not None:
            return
        new = self.omi.renumber(f"n{len(self.log)}")

        def follow(lines: Iterable[str]) -> set[str]:
            return {new[one] for one in lines if one in new}

        self.words = {new[old]: said for old, said in self.words.items() if old in new}
        self.omi.asked = {new[old]: said for old, said in self.omi.asked.items() if old in new}
        self.reported, self.unsure = follow(self.reported), follow(self.unsure)
        self.left_there = follow(self.left_there | self.talk.by_hand)
        self.by_hand.clear()
        self.report()

    def cut(self) -> None:
        line = self.draw.choice(sorted(self.omi.lines))
        if self.processing is not None:
            return
        new_id = f"{line}-{len(self.log)}"
        self.omi.cut(line, new_id)
        self.log[-1] += f" {line}"
        if line in self.words:
            self.words[new_id] = self.words[line]
        if line in self.omi.asked:
            self.omi.asked[new_id] = self.omi.asked[line]
        for known in (self.unsure, self.left_there):
            known.update({new_id} if line in known else ())
        self.report()
        is_theirs = line in self.words or line in self.unsure or self.omi.lines[new_id].person in (None, OWNER)
        if line in self.by_hand and not is_theirs and not self.reports:  # a word from here goes along
            self.by_hand[new_id] = self.by_hand[line]

    def join(self) -> None:
        pairs = list(pairwise(self.omi.lines.values()))
        alike = [(a.id, b.id) for a, b in pairs if (a.person, a.is_manual) == (b.person, b.is_manual)]
        both = self.draw.choice(alike) if alike else ()
        if self.processing is not None or not both or not self.talk.by_hand.isdisjoint(both):
            return
        new_id = self.draw.choice([both[0], f"joined-{len(self.log)}"])
        self.log[-1] += f" {both} {new_id}"
        if len({self.words.get(one, "nobody") for one in both}) > 1 or not self.unsure.isdisjoint(both):
            self.unsure |= set(both)
        self.left_there |= set(both) & (self.left_there | self.unsure)
        self.omi.join(*both, new_id)
        for known in (self.unsure, self.left_there, self.reported):
            known.update({new_id} if both[0] in known else ())
        if both[0] in self.words:
            self.words[new_id] = self.words[both[0]]
        self.omi.asked[new_id] = [one for line in both for one in self.omi.asked.get(line, [])]
        self.report()

    def merge(self) -> None:
        """OMI has it as another conversation from now on, or as an earlier one again; what was said here stays."""
        if self.processing is not None or self.draw.random() < 0.5:
            return
        while self.reports:
            self.take_report()
        names = [*self.names, f"merged-{len(self.log)}"]
        self.omi.name = self.draw.choice([one for one in names if one != self.omi.name])
        self.names |= {self.omi.name: self.names.get(self.omi.name, self.draw.choice([-20.0, 0.0, 20.0]))}
        self.log[-1] += f" {self.omi.name}"
        self.left_there |= self.omi.lines.keys() - self.words.keys()
        self.by_hand.clear()
        self.events.clear()
        self.reported.clear()
        self.report_again()

    def refuse(self) -> None:
        self.omi.refused = set() if self.omi.refused else {self.draw.choice(sorted(self.omi.lines))}

    def remove(self) -> None:
        if self.processing is None and len(self.omi.lines) > 3:
            line = self.draw.choice(sorted(self.omi.lines))
            del self.omi.lines[line]
            self.words.pop(line, None)
            self.log[-1] += f" {line}"
            self.report()

    def name_twice(self) -> None:
        """Somebody makes a second person of a name in OMI; until one of them is gone nobody can tell who is meant."""
        name = self.draw.choice([*self.omi.people.values(), *"ABCD"])
        self.second = {} if self.second else {"second": name}
        self.omi.people.pop("second", None)
        self.omi.people |= self.second

    def change_trouble(self) -> None:
        self.omi.trouble = 0.0 if self.omi.trouble else self.draw.choice([0.2, 0.6])

    # --------------------------------------------------------------------------------------------- the end

    def settle(self) -> None:
        """All that waits is done, and OMI reports once more."""
        self.log.append("settle")
        if self.processing is not None:
            self.process()
        while self.reports:
            self.take_report()
        self.omi.trouble, self.omi.refused = 0.0, set()
        self.omi.people.pop("second", None)
        assert self.talk.send(), "it comes to an end"
        self.clock.now_s += OLD_S + 100
        self.report_again()
        assert self.talk.send(), "it comes to an end"

    def report_again(self) -> None:
        self.report()
        while self.reports:
            self.take_report()

    def is_same(self, here: str | None, said: str | None) -> bool:
        """Whether a person here is who was said in OMI: the same id, or somebody who has had that name."""
        return here == said or self.omi.people.get(said or "") in self.talk.names.get(here or "", set())

    def wanted(self) -> dict[str, str | None]:
        """Return whom OMI is to have in each line that nobody labelled there."""
        people = {one.person_id: one for one in self.talk.ledger.people.of_owner(UID)}
        wanted = defaultdict[str, str | None](lambda: None)
        for line, person in self.talk.persons.items():
            known = people.get(person or "")
            if person is None or (known is not None and known.is_owner):
                continue
            by_name = {name: one for one, name in self.omi.people.items()}
            wanted[line] = person if person in self.omi.people else by_name.get(known.name or "" if known else "")
        return wanted
