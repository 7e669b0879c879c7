"""People who label a talk in OMI and here, in a drawn order, while reports are late, calls fail and OMI writes over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from schemas.people import PersonEventType
from tests.omi.changed_lines import ChangedLines
from tests.omi.labelled_talk import UID
from tests.omi.sides_of_a_talk import OLD_S
from vps_bridge.omi.api import OWNER


class Killed(BaseException):
    """The bridge's process ends."""


class BothSides(ChangedLines):
    """What happens, and what people said last of each line in OMI."""

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
            self.move,
            self.speak_at_once,
            self.transcribe_again,
            self.cut,
            self.join,
            self.merge,
            self.refuse,
            self.remove,
            self.bring_back,
            self.show_in_part,
            self.jump,
            self.forget,
            self.delete_there,
            self.name_twice,
            self.change_trouble,
            self.talk.start_again,
        ]
        way = self.draw.choice(ways)
        self.log.append(way.__name__)
        way()

    def say_in_omi(self) -> None:
        labelled = sorted(one for one, has in self.omi.lines.items() if has.person is not None)
        is_clearing = bool(labelled) and self.draw.random() < 0.4
        line = self.draw.choice(labelled if is_clearing else sorted(self.omi.lines))
        person = None if is_clearing else self.draw.choice([*self.known_there, None, OWNER])
        if person == self.omi.lines[line].person:
            return
        asked = self.omi.asked.get(line, [])
        is_recent = any(abs(self.clock() - at) < OLD_S and person in (None, who) for at, who in asked)
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
        read_at, self.processing = self.processing[0], None
        self.report(read_at)

    def say_here(self) -> None:
        kind = self.draw.choice(["voice_is", "voice_is", "segment_is", "voice_is_not", "same_voice", "other_voice"])
        self.say_of(kind, self.draw.choice(sorted(self.talk.numbers)))

    def say_of(self, kind: str, line: str) -> None:
        """Say something of this line, where it is of a single one."""
        numbers = sorted({one for one in self.talk.numbers.values() if one is not None})
        person = self.draw.choice([f"p-{one}" for one in self.drawn.people] + self.known_there)
        if kind == "segment_is":
            said: dict[str, Any] = {"segment_id": line, "person_id": person}
        elif kind == "other_voice":
            lines = sorted(self.talk.numbers)
            said = {"segment_ids": self.draw.sample(lines, min(2, len(lines)))}
        elif kind == "same_voice":
            said = {"speaker_ids": numbers[:2]}
        else:
            said = {"speaker_id": self.draw.choice(numbers or [0]), "person_id": person}
        event_id = self.talk.correct(kind=kind, **said) if kind != "same_voice" or len(numbers) > 1 else None
        self.log[-1] += f" {kind} {said} {event_id}"
        self.events |= {event_id: said.get("segment_id")} if event_id else {}
        if event_id and kind == "segment_is" and self.is_heard_of(line):
            self.by_hand[said["segment_id"]] = person
        elif event_id and kind == "segment_is":  # OMI says otherwise, or its line has another id there already
            self.contested.add(line)
            self.left_there |= self.made_of(line, self.omi.lines)
            for one in self.made_of(line, self.by_hand):
                del self.by_hand[one]

    def speak_at_once(self) -> None:
        """A line lies in another one: somebody else says something meanwhile. One is labelled by hand here."""
        lines = self.omi.lines.values()
        starts = [one.start_s for one in lines]
        long = [one for one in lines if one.end_s - one.start_s >= 4.0 and one.inside("").start_s not in starts]
        if self.processing is not None or not long:
            return
        new_id, line = f"inside-{len(self.log)}", self.draw.choice(long)
        self.omi.put_back(replace(line.inside(new_id), text=self.draw.choice(["Mhm.", "Yes."])))
        self.log[-1] += f" {line.id} {new_id}"
        self.report_again()
        self.say_of("segment_is", self.draw.choice([line.id, new_id]))
        if self.draw.random() < 0.5:
            self.renumber_all()
        self.report()

    def take_back(self) -> None:
        if not self.events:
            return
        way, event_id = self.draw.choice([self.talk.take_back, self.talk.bring_back]), self.draw.choice([*self.events])
        self.log[-1] += f" {way.__name__} {event_id} {way(event_id)}"
        line = self.events[event_id]
        if line is not None:  # of one that has another id by now this undoes nothing: see docs/omi.md
            about = self.made_of(line, self.by_hand)
            self.contested |= about
            for one in about:
                del self.by_hand[one]

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
                ways = [self.say_in_omi, self.report, self.say_here, self.change_person, self.process, self.kill]
                self.draw.choice(ways)()

            self.omi.while_it_answers = meanwhile
        try:
            self.talk.send(self.draw.choice([1, 1, 5]))
        except Killed:
            self.talk.start_again()
        self.omi.while_it_answers = busy

    def kill(self) -> None:
        """The bridge ends before it hears an answer."""
        self.log[-1] += " killed"
        raise Killed

    def wait(self) -> None:
        later_s = self.draw.choice([10.0, 100.0, 400.0])
        self.log[-1] += f" {later_s}"
        self._take_old(later_s)
        if self.processing is not None and self.clock() + later_s - self.processing[0] >= OLD_S - 50:
            self.process()
            self._take_old(later_s)
        self.clock.now_s += later_s

    def _take_old(self, later_s: float) -> None:
        while any(self.clock() + later_s - read_at >= OLD_S for read_at, _ in self.reports):
            self.take_report()

    def jump(self) -> None:
        """The bridge's clock is set, a day ahead or back. What was read before comes before: see docs/omi.md."""
        if self.processing is None and not self.reports:
            self.clock.now_s += self.draw.choice([-86_400.0, 86_400.0])

    def forget(self) -> None:
        """A person is deleted here; whom OMI has by that name stays there."""
        person = f"p-{self.draw.choice(self.drawn.people)}"
        self.left_there |= self.hidden | {line for line, said in self.talk.persons.items() if said == person}
        self.talk.forget(person)
        self.log[-1] += f" {person}"

    def delete_there(self) -> None:
        """A person is deleted in OMI; lines keep the id."""
        if len(self.known_there) > 1:
            person = self.draw.choice(self.known_there)
            self.deleted[person] = self.omi.people.pop(person)
            self.log[-1] += f" {person}"

    def refuse(self) -> None:
        self.omi.refused = set() if self.omi.refused else {self.draw.choice(sorted(self.omi.lines))}

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
        self.omi.people["somebody"] = "Zoe"  # while it lists nobody, lines of the nameless wait
        assert self.talk.send(), "it comes to an end"
        self.clock.now_s += OLD_S + 100
        self.report_again()
        assert self.talk.send(), "it comes to an end"

    def is_same(self, here: str | None, said: str | None) -> bool:
        """Whether a person here is who was said in OMI: the same id, or somebody who has had that name."""
        name = (self.omi.people | self.deleted).get(said or "")
        return here == said or name in self.talk.names.get(here or "", set())

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
