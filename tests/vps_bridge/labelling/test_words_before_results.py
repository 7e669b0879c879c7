"""People split lines off and label some before any result has come, of drawn conversations whose jobs make mistakes."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from tests.vps_bridge.labelling.new_transcription import transcribe_anew
from tests.vps_bridge.labelling.person_who_corrects import PersonWhoCorrects, look
from tests.vps_bridge.labelling.test_person_who_corrects import FEW, MANY, placed

WRONG_ONCE = {
    "a later job took a line back": 270,
    "a second split of the same number took what the first had split off": 647,
    "lines without a number were split off nothing": 914,
}
"""By what was wrong: the seed."""
LEFT = {313}
"""Not put right yet: docs/adr/0042-a-person-who-corrects.md."""


@pytest.mark.parametrize(
    "seeds",
    [FEW, pytest.param(MANY, marks=pytest.mark.slow), *([seed] for seed in WRONG_ONCE.values())],
    ids=["few", "many", *WRONG_ONCE],
)
def test_what_people_say_before_any_result_holds_once_results_come(seeds: Collection[int]) -> None:
    for seed in seeds:
        drawn = DrawnConversation(seed, overlaps=seed % 3 == 0)
        if not drawn.alike and seed not in LEFT:
            say_and_hear(drawn, random.Random(seed + 31))


def say_and_hear(drawn: DrawnConversation, draw: random.Random) -> None:
    """Say what is true of an unheard transcript, hear all of it, see that it holds, and correct what is wrong."""
    numbering = draw.choice(["one number", "people", "people, with mistakes", "none"])
    early = EarlyWords(drawn, numbering, draw)
    with open_conversation(early.segments()) as found:
        found.relabel()
        for _ in range(draw.randint(1, 4)):
            early.say_something(found)
        jobs = 0
        while jobs < len(drawn.jobs):
            jobs = min(len(drawn.jobs), jobs + draw.randint(1, 3))
            found.hear(drawn.chunks, drawn.jobs[:jobs])
            assert {line: found.persons[line] for line in early.labelled} == early.labelled
        heard = drawn.heard(drawn.jobs, early.now)
        early.check_splits(found, heard)
        assert PersonWhoCorrects(found, early.now.truth, placed(found, heard), draw).correct_all()


@dataclass(frozen=True)
class Split:
    """Lines of one person, and those of others that showed the same number."""

    write: int
    ids: list[str]
    others: list[str]

    def under(self, ids: dict[str, str]) -> Split:
        """Return it with other ids of its lines."""
        return Split(self.write, [ids[one] for one in self.ids], [ids[one] for one in self.others])


@dataclass
class EarlyWords:
    """What people say of a transcript that nothing has been heard of; its numbers may be right or wrong."""

    drawn: DrawnConversation
    numbering: str
    draw: random.Random
    labelled: dict[str, str] = field(default_factory=dict)
    splits: list[Split] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.drawn.transcription

    def segments(self) -> tuple[TranscriptSegment, ...]:
        return tuple(one.model_copy(update={"speaker": self._number(one.id)}) for one in self.now.segments)

    def _number(self, line: str) -> str | None:
        number = 0 if self.numbering == "one number" else ord(self.now.truth[line]) - ord("A")
        if self.numbering == "people, with mistakes" and self.draw.random() < 0.25:
            number = self.draw.randint(0, 2)
        return None if self.numbering == "none" else f"SPEAKER_{number:02d}"

    def say_something(self, found: CorrectedConversation) -> None:
        chance = self.draw.random()
        if chance < 0.55:
            self._split(found)
        elif chance < 0.85:
            line = self.draw.choice(sorted(self.now.truth))
            self.labelled[line] = f"p-{self.now.truth[line]}"
            found.correct(kind="segment_is", segment_id=line, person_id=self.labelled[line])
        else:
            self._transcribe_anew(found)

    def _split(self, found: CorrectedConversation) -> None:
        truth, shown = self.now.truth, found.speakers
        number = self.draw.choice(sorted(set(shown.values()), key=str))
        lines = [line for line in shown if shown[line] == number and line not in self.labelled]
        free = [line for line in lines if not any(line in split.ids for split in self.splits)]
        person = self.draw.choice(sorted({truth[line] for line in free}) or [""])
        own, others = [one for one in free if truth[one] == person], [one for one in lines if truth[one] != person]
        if own and others:
            ids = own if self.draw.random() < 0.6 else sorted(self.draw.sample(own, max(1, len(own) - 1)))
            self.splits.append(Split(found.correct(kind="other_voice", segment_ids=ids), ids, others))

    def _transcribe_anew(self, found: CorrectedConversation) -> None:
        """The same lines under other ids: labels of single lines are void, splits are not."""
        before, self.now = self.now, transcribe_anew(self.now, self.draw, ("new ids",))
        ids = dict(zip(before.lines, self.now.lines, strict=True))
        self.labelled, self.splits = {}, [split.under(ids) for split in self.splits]
        found.transcribe_anew(self.segments())

    def check_splits(self, found: CorrectedConversation, heard: list[str]) -> None:
        """See that lines that were split off are one voice, and that somebody is left: or that it is told."""
        seen, outcomes = look(found), {write: outcome for write, outcome, _ in found.outcomes}
        free = {line for line in heard if not (seen[line].is_by_hand or seen[line].is_unclear)}
        for split in self.splits:
            if outcomes[split.write] != "void":
                voices = {seen[line].number for line in free.intersection(split.ids)}
                left = {seen[line].number for line in free.intersection(split.others)}
                assert len(voices) <= 1, f"{sorted(split.ids)} are one voice"
                assert not left or left - voices, f"a split leaves somebody: {sorted(split.others)}"
