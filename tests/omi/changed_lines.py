"""What OMI does to the lines of a talk, and what people's words are about then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tests.omi.sides_of_a_talk import JOINED, SidesOfATalk
from tests.omi.simulated_omi import OmiLine

SILENCE_S = 60.0


class ChangedLines(SidesOfATalk):
    """Lines get other ids, are cut and joined, go, come back, and are shown in part; conversations merge."""

    def renumber(self) -> None:
        if self.draw.random() < 0.5 or self.processing is not None:
            return
        self.renumber_all()
        self.report()

    def renumber_all(self) -> None:
        new = self.omi.renumber(f"n{len(self.log)}")

        def follow(lines: Iterable[str]) -> set[str]:
            return {new[one] for one in lines if one in new}

        self.lose_sight(self.hidden)
        self.words = {new[old]: said for old, said in self.words.items() if old in new}
        self.omi.asked = {new[old]: said for old, said in self.omi.asked.items() if old in new}
        self.by_hand = {new[old]: said for old, said in self.by_hand.items() if old in new}
        self.reported, self.unsure = follow(self.reported), follow(self.unsure)
        self.left_there = follow(self.left_there | self.talk.by_hand)
        self.hidden = follow(self.hidden)

    def lose_sight(self, lines: Iterable[str]) -> None:
        """Note that these get other ids while no report shows them: nobody can tell that they are the same lines."""
        for line in lines:
            self.by_hand.pop(line, None)
            self.unsure.add(line)

    def cut(self) -> None:
        line = self.draw.choice(sorted(self.omi.lines))
        if self.processing is not None or len(self.omi.lines[line].text.split()) == 1:
            return
        new_id = f"{line}-{len(self.log)}"
        self.omi.cut(line, new_id)
        self.log[-1] += f" {line}"
        if line in self.hidden:
            self.lose_sight([new_id])
        elif line in self.by_hand:
            self.by_hand[new_id] = self.by_hand[line]
        if line in self.words:
            self.words[new_id] = self.words[line]
        if line in self.omi.asked:
            self.omi.asked[new_id] = self.omi.asked[line]
        for known in (self.unsure, self.left_there):
            known.update({new_id} if line in known else ())
        self.report()

    def join(self) -> None:
        ids, many = list(self.omi.lines), self.draw.choice([2, 2, 3])
        label = {one.id: (one.person, one.is_manual) for one in self.omi.lines.values()}
        neighbours = [ids[place : place + many] for place in range(len(ids) - many + 1)]
        alike = [some for some in neighbours if len({label[one] for one in some}) == 1]
        some = self.draw.choice(alike) if alike else []
        if self.processing is not None or not some:
            return
        new_id = self.draw.choice([some[0], f"{JOINED}-{len(self.log)}"])
        self.log[-1] += f" {some} {new_id}"
        if new_id not in some:
            self.lose_sight(self.hidden.intersection(some))
        if len({self.words.get(one, "nobody") for one in some}) > 1 or not self.unsure.isdisjoint(some):
            self.unsure |= set(some)
        self.left_there |= set(some) & (self.left_there | self.unsure)
        said = {self.by_hand.pop(one, None) for one in some}
        self.omi.join(some, new_id)
        for known in (self.unsure, self.left_there, self.reported):
            known.update({new_id} if some[0] in known else ())
        if some[0] in self.words:
            self.words[new_id] = self.words[some[0]]
        self.omi.asked[new_id] = [one for line in some for one in self.omi.asked.get(line, [])]
        person = said.pop()
        # Where only some of them were labelled it may be either; before OMI is told it has to be said again, as
        # docs/corrections.md says of lines that are other lines now.
        is_told = self.omi.lines[new_id].person is not None
        if person is not None and not said and (is_told or new_id in some):
            self.by_hand[new_id] = person
        self.report()

    def merge(self) -> None:
        """OMI has it as another conversation from now on, or as an earlier one again; what was said here stays."""
        if self.processing is not None or self.draw.random() < 0.5:
            return
        while self.reports:
            self.take_report()
        names = [*self.names, f"merged-{len(self.log)}"]
        self.omi.name = self.draw.choice([one for one in names if one != self.omi.name])
        is_new = self.omi.name not in self.names
        self.names |= {self.omi.name: self.names.get(self.omi.name, self.draw.choice([-20.0, 0.0, 20.0]))}
        self.log[-1] += f" {self.omi.name}"
        self.left_there |= self.omi.lines.keys() - self.words.keys()
        if not is_new:  # it has its own labels, of before
            self.by_hand.clear()
        self.events.clear()
        self.reported.clear()
        self.report_again()

    def move_all(self, by_s: float) -> None:
        """The transcript begins so much earlier."""
        self.omi.lines = {
            one: replace(line, start_s=line.start_s + by_s, end_s=line.end_s + by_s)
            for one, line in self.omi.lines.items()
        }
        self.names[self.omi.name] -= by_s

    def move(self) -> None:
        """All lines come later, some under other ids; or an earlier talk is put in front, where one of them lay."""
        if self.processing is not None:
            return
        place = self.draw.choice(list(self.omi.lines.values()))
        is_in_front = self.draw.random() < 0.5
        self.move_all(200.0 if is_in_front else self.draw.choice([8.0, 200.0]))
        if is_in_front:
            new_id, said = f"front-{len(self.log)}", self.draw.choice([None, *self.known_there])
            self.omi.put_back(OmiLine(new_id, place.start_s, place.end_s, "quite other words", said, said is not None))
            self.words |= {} if said is None else {new_id: said}
            self.log[-1] += f" {place.id} {new_id} {said}"
        elif self.draw.random() < 0.5:
            self.renumber_all()
        self.report()

    def transcribe_again(self) -> None:
        """Other punctuation and capitals, or a silence in the middle is left in, or out; with other ids or the same."""
        if self.processing is not None:
            return
        lines = sorted(self.omi.lines.values(), key=lambda one: one.start_s)
        if self.draw.random() < 0.5:
            changed = [replace(one, text=f"{one.text.capitalize().removesuffix('.')}!") for one in lines]
        else:
            earlier, later = lines[: len(lines) // 2], lines[len(lines) // 2 :]
            silence_s = later[0].start_s - max((one.end_s for one in earlier), default=0.0)
            by_s = -SILENCE_S if silence_s > SILENCE_S else SILENCE_S
            changed = [replace(one, start_s=one.start_s + by_s, end_s=one.end_s + by_s) for one in later]
        self.omi.lines |= {one.id: one for one in changed}
        if self.draw.random() < 0.5:
            self.renumber_all()
        self.report()

    def remove(self) -> None:
        if self.processing is None and len(self.omi.lines) > 3:
            line = self.draw.choice(sorted(self.omi.lines))
            self.gone[line] = self.omi.lines.pop(line)
            self.log[-1] += f" {line}"
            self.report()

    def bring_back(self) -> None:
        """A line that was gone is there again, as it was, under its id or another one."""
        if self.processing is not None or not self.gone:
            return
        old = self.draw.choice(sorted(self.gone))
        new_id = self.draw.choice([old, old, f"back-{len(self.log)}"])
        line = replace(self.gone.pop(old), id=new_id)
        self.log[-1] += f" {old} {new_id}"
        self.omi.put_back(line)
        if new_id != old:
            self.follow_back(old, new_id)
        self.report()

    def follow_back(self, old: str, new_id: str) -> None:
        if old in self.words:
            self.words[new_id] = self.words[old]
        if old in self.omi.asked:
            self.omi.asked[new_id] = self.omi.asked[old]
        self.unsure.add(new_id)
        self.left_there.add(new_id)

    def show_in_part(self) -> None:
        """A report shows some of the lines only."""
        while self.reports:
            self.take_report()
        self.take_rows([row for row in self.rows if self.draw.random() < 0.5])
