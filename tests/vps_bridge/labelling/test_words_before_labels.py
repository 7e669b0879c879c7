"""What is said before the labels show it, or a new transcription, ends as where each is shown before the next."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas.corrections import Correction
from tests.vps_bridge.labelling.corrected_conversation import NAME, CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.drawn_conversation import DrawnConversation
from tests.vps_bridge.labelling.new_transcription import WAYS, Transcription, transcribe_anew
from tests.vps_bridge.labelling.person_who_corrects import PersonWhoCorrects, SeenLine, look
from tests.vps_bridge.labelling.test_person_who_corrects import FEW, MANY, placed
from tests.vps_bridge.labelling.test_reused_ids import LINES, UPDATED, ids_of, labelled_call, named
from tests.vps_bridge.labelling.test_reused_ids import line as numbered_line
from tests.vps_bridge.labelling.test_reused_ids import transcribe_anew as shift_ids
from vps_bridge.errors import Refusal

WRONG_ONCE = {
    "a split was lost where lines had other ids first, and then other words": 104,
    "a line had the name of somebody else": 343,
}
"""By what was wrong: the seed."""
LEFT = {164, 171}
"""Labels by hand on lines that are cut, or have other ids: docs/adr/0042-a-person-who-corrects.md."""

Step = Transcription | dict[str, Any]
"""A new transcription, or something that a person says."""


def test_a_name_that_is_said_between_two_transcriptions_goes_to_no_line_whose_id_was_one_of_its_voices():
    with labelled_call() as call:
        of_a, split = ids_of("A"), ids_of("B")[-2:]
        number = int(str(call.speakers[of_a[0]])[-2:])
        say_unseen(call, {"kind": "other_voice", "segment_ids": split})
        under_new_ids = tuple(numbered_line(100 + n, n) for n in range(LINES))
        call.store.upsert_segments(NAME, 2, under_new_ids, removed=[str(n) for n in range(LINES)])
        say_unseen(call, {"kind": "voice_is", "speaker_id": number, "person_id": "anna"})
        call.store.upsert_segments(NAME, 3, (), removed=[one.id for one in under_new_ids])
        shift_ids(call, UPDATED)
        assert sorted(named(call, "anna")) == sorted(ids_of("A", dropped=1))
        off = {str(int(name) - 1) for name in split}
        numbers = {call.speakers[name] for name in off}
        assert len(numbers) == 1
        assert numbers.isdisjoint({call.speakers[name] for name in call.speakers if name not in off})


@pytest.mark.parametrize(
    "seeds",
    [FEW, pytest.param(MANY, marks=pytest.mark.slow), *([seed] for seed in WRONG_ONCE.values())],
    ids=["few", "many", *WRONG_ONCE],
)
def test_what_is_said_before_labels_show_it_ends_as_if_they_had(seeds: Collection[int]) -> None:
    for seed in seeds:
        drawn = DrawnConversation(seed)
        if not drawn.alike and seed not in LEFT:
            say_shown_and_unseen(drawn, seed)


def say_shown_and_unseen(drawn: DrawnConversation, seed: int) -> None:
    """Go through the same steps twice; the second time labels are worked out after the last one only."""
    shown, unseen = (Ending.of(drawn, random.Random(seed + 43), is_shown=is_shown) for is_shown in (True, False))
    lines = [line for line in shown.placed if line in unseen.placed and shown.last.is_clear(line)]
    fitting = {line: (None, f"p-{shown.last.truth[line]}", shown.seen[line].person) for line in lines}
    wrong = {line: unseen.seen[line].person for line in lines if unseen.seen[line].person not in fitting[line]}
    assert not wrong or unseen.voids > shown.voids, f"{wrong}: and nothing tells it"


@dataclass(frozen=True)
class Ending:
    """What is seen in the end."""

    seen: dict[str, SeenLine]
    placed: list[str]
    last: Transcription
    voids: int
    """How many statements are told to have done nothing."""

    @classmethod
    def of(cls, drawn: DrawnConversation, draw: random.Random, *, is_shown: bool) -> Ending:
        with open_conversation(drawn.segments) as found:
            words = Words.begin(found, drawn, draw)
            for step in words.steps():
                take(found, step)
                if is_shown:
                    found.relabel()
            found.relabel()
            heard = placed(found, drawn.heard(drawn.jobs, words.now))
            voids = sum(outcome == "void" for _, outcome, _ in found.outcomes)
            ending = cls(look(found), heard, words.now, voids)
            assert PersonWhoCorrects(found, words.now.truth, heard, draw).correct_all()
            return ending


def take(found: CorrectedConversation, step: Step) -> None:
    """Take a step; no label shows it yet."""
    if isinstance(step, Transcription):
        found.send_unseen(step.segments)
        return
    try:
        say_unseen(found, step)
    except Refusal:
        return


def say_unseen(call: CorrectedConversation, said: dict[str, Any]) -> None:
    """Say something before the labels show it, or what came before it."""
    call.corrections.correct(NAME, f"unseen-{id(said)}", [Correction.model_validate(said)], by="anna")


@dataclass
class Words:
    """True things that a person says, who saw the labels once, of voices as they were and of lines as they are."""

    drawn: DrawnConversation
    draw: random.Random
    voices: dict[int, list[str]]
    """By number its lines, as the person saw them."""
    now: Transcription = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.drawn.transcription

    @classmethod
    def begin(cls, found: CorrectedConversation, drawn: DrawnConversation, draw: random.Random) -> Words:
        """Hear all; in some histories all is right, in some two voices are said to be one."""
        found.hear(drawn.chunks, drawn.jobs)
        if draw.random() < 0.6:
            assert PersonWhoCorrects(found, drawn.truth, drawn.heard(drawn.jobs), draw).correct_all()
        numbers = sorted(see_voices(found, drawn))
        if len(numbers) > 1 and draw.random() < 0.6:
            found.correct(kind="same_voice", speaker_ids=draw.sample(numbers, 2))
        return cls(drawn, draw, see_voices(found, drawn))

    def steps(self) -> Iterator[Step]:
        for _ in range(self.draw.randint(2, 6)):
            if self.draw.random() < 0.4:
                self.now = transcribe_anew(self.now, self.draw, WAYS)
                yield self.now
            elif said := self._say_something():
                yield said

    def _say_something(self) -> dict[str, Any] | None:
        lines = [line for line in self.drawn.heard(self.drawn.jobs, self.now) if self.now.is_clear(line)]
        kind, truth = self.draw.choice(["other_voice", "voice_is", "voice_is", "segment_is"]), self.now.truth
        if kind == "segment_is" and lines:
            line = self.draw.choice(lines)
            return {"kind": kind, "segment_id": line, "person_id": f"p-{truth[line]}"}
        if kind == "segment_is" or not self.voices:
            return None
        number = self.draw.choice(sorted(self.voices))
        people = [self.drawn.truth[line] for line in self.voices[number]]
        person = max(sorted(set(people)), key=people.count)
        if kind == "voice_is":
            return {"kind": kind, "speaker_id": number, "person_id": f"p-{person}"}
        own = [line for line in lines if self._is_of(line, number)]
        others = sorted({truth[line] for line in own} - {person})
        other = self.draw.choice(others) if others else None
        return {"kind": kind, "segment_ids": [line for line in own if truth[line] == other]} if other else None

    def _is_of(self, line: str, number: int) -> bool:
        start_s, end_s = self.now.heard_at(line)
        spans = [self.drawn.transcription.heard_at(one) for one in self.voices[number]]
        return any(min(end_s, last_s) - max(start_s, first_s) > 0.5 for first_s, last_s in spans)


def see_voices(found: CorrectedConversation, drawn: DrawnConversation) -> dict[int, list[str]]:
    """Return by number the lines that show it by their voice."""
    seen, voices = look(found), defaultdict[int, list[str]](list)
    for line in drawn.heard(drawn.jobs):
        number = seen[line].number
        if number is not None and not (seen[line].is_by_hand or seen[line].is_unclear):
            voices[number].append(line)
    return dict(voices)
