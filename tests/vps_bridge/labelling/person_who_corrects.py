"""A person who knows who spoke, looks at a conversation's labels, and corrects them until they are right."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.vps_bridge.labelling.corrected_conversation import CorrectedConversation
from vps_bridge.conversations.store import StoreError, speaker_number
from vps_bridge.errors import Refusal

Said = dict[str, Any]


@dataclass(frozen=True)
class SeenLine:
    """What is seen of a line."""

    number: int | None
    person: str | None
    is_by_hand: bool
    is_of_speech_to_text: bool = field(default=False, compare=False)
    """Its number is one that speech-to-text gave, and no voice bears it out."""
    is_unclear: bool = field(default=False, compare=False)
    """Its number, if it has one, is one that speech-to-text gave: a voice may bear that out, or not any more."""


def look(found: CorrectedConversation) -> dict[str, SeenLine]:
    """Return what is seen of each line."""
    reasons, written = (
        dict(found.found.left_alone),
        {line for voice in found.found.voices.voices for line in voice.segments},
    )
    return {
        one["id"]: SeenLine(
            speaker_number(one["speaker"]),
            one["person_id"],
            one["label_source"] == "manual",
            reasons.get(one["id"], "").startswith("clock.") or reasons.get(one["id"]) == "label.stale",
            one["id"] in reasons.keys() - written,
        )
        for one in found.segments
    }


class PersonWhoCorrects:
    """Corrects the lines that were heard, one fault after the other; which, and how, a seed draws."""

    def __init__(
        self, found: CorrectedConversation, truth: Mapping[str, str], heard: Collection[str], draw: random.Random
    ) -> None:
        self._found, self._heard, self._draw = found, heard, draw
        self._truth = {line: f"p-{who}" for line, who in truth.items()}

    def correct_all(self) -> bool:
        """Correct until nothing is wrong; return False where that does not come to an end."""
        for _ in range(4 * len(self._truth) + 10):
            faults = list(self._faults())
            if not faults:
                return True
            self._say(self._draw.choice(self._draw.choice(faults)))
        return False

    def _say(self, said: Said) -> None:
        try:
            self._found.correct(**said)
        except (Refusal, StoreError):
            return

    def _faults(self) -> Iterator[list[Said]]:
        """Yield for each fault what may be said of it."""
        seen, truth = look(self._found), self._truth
        heard = [line for line in self._heard if not seen[line].is_of_speech_to_text]
        voices = {voice.speaker_id for voice in self._found.found.voices.voices}
        lines_of = defaultdict[int, list[str]](list)
        for line in heard:
            if (number := seen[line].number) is not None:
                lines_of[number].append(line)
        mostly = {
            number: max(sorted(Counter(truth[line] for line in lines).items()), key=lambda item: item[1])[0]
            for number, lines in lines_of.items()
        }
        numbers_of = defaultdict[str, list[int]](list)
        for number, person in sorted(mostly.items()):
            if number in voices:
                numbers_of[person].append(number)
        main = {
            person: max(numbers, key=lambda number: (len(lines_of[number]), -number))
            for person, numbers in numbers_of.items()
        }
        for number, lines in lines_of.items():
            yield from self._faults_of_voice(number, lines, mostly[number], seen, main, is_known=number in voices)
        for numbers in numbers_of.values():
            if len(numbers) > 1:
                yield [{"kind": "same_voice", "speaker_ids": numbers}]
        for line in heard:
            if seen[line].person not in (None, truth[line]):
                yield [{"kind": "segment_is", "segment_id": line, "person_id": truth[line]}]

    def _faults_of_voice(
        self,
        number: int,
        lines: list[str],
        person: str,
        seen: Mapping[str, SeenLine],
        main: Mapping[str, int],
        *,
        is_known: bool,
    ) -> Iterator[list[Said]]:
        truth = self._truth
        wrong = [
            line
            for line in lines
            if truth[line] != person and not (seen[line].is_by_hand and seen[line].person == truth[line])
        ]
        for line in wrong:
            speaker = truth[line]
            ways: list[Said] = [{"kind": "segment_is", "segment_id": line, "person_id": speaker}]
            if main.get(speaker, number) != number:
                ways.append({"kind": "segment_is", "segment_id": line, "speaker_id": main[speaker]})
            if not seen[line].is_by_hand:
                own = [one for one in wrong if truth[one] == speaker]
                ways.append({"kind": "other_voice", "segment_ids": own})
            yield ways
        free = [line for line in lines if not seen[line].is_by_hand and not seen[line].is_unclear]
        names = {seen[line].person for line in free if truth[line] == person}
        if is_known and names and names != {person}:
            yield [{"kind": "voice_is", "speaker_id": number, "person_id": person}]


def draw_mistake(found: CorrectedConversation, people: str, heard: list[str], draw: random.Random) -> Said:
    """Return something that may well be wrong."""
    seen, numbers = look(found), [voice.speaker_id for voice in found.found.voices.voices]
    kind = draw.choice(["same_voice", "other_voice", "number", "person", "voice_is", "voice_is", "voice_is_not"])
    person = "p-" + draw.choice(people)
    if kind == "same_voice" and len(numbers) > 1:
        return {"kind": kind, "speaker_ids": draw.sample(numbers, min(len(numbers), draw.choice([2, 2, 3])))}
    if kind == "other_voice":
        number = draw.choice(numbers)
        own = [line for line in heard if seen[line].number == number and not seen[line].is_by_hand]
        if len(own) < 2:
            return draw_mistake(found, people, heard, draw)
        return {"kind": kind, "segment_ids": sorted(draw.sample(own, draw.randint(1, len(own) - 1)))}
    if kind == "number":
        return {"kind": "segment_is", "segment_id": draw.choice(heard), "speaker_id": draw.choice(numbers)}
    if kind == "person":
        return {"kind": "segment_is", "segment_id": draw.choice(heard), "person_id": person}
    kind = "voice_is_not" if kind == "voice_is_not" else "voice_is"
    return {"kind": kind, "speaker_id": draw.choice(numbers), "person_id": person}


def check_outcome(said: Said, outcome: str, before: Mapping[str, SeenLine], after: Mapping[str, SeenLine]) -> None:
    """Raise `AssertionError` where what a correction was told to have done is not what is seen."""
    changed = {
        line for line in after if (before[line].number, before[line].person) != (after[line].number, after[line].person)
    }
    if outcome == "void":
        assert not changed, "void: nothing of it"
        return
    check: Callable[..., None] = {
        "segment_is": _check_line,
        "other_voice": _check_split,
        "same_voice": _check_merge,
        "voice_is": _check_name,
        "voice_is_not": _check_name,
    }[said["kind"]]
    check(said, outcome, before, after, changed)


def _check_line(
    said: Said, outcome: str, before: Mapping[str, SeenLine], after: Mapping[str, SeenLine], changed: set[str]
) -> None:
    line = said["segment_id"]
    if outcome == "alone" and not before[line].is_by_hand:
        unnamed = {one for one in changed if after[one].number == before[one].number and after[one].person is None}
        assert changed <= {line} | unnamed, "alone: a contradicted voice may lose its name, nothing else changes"


def _check_split(
    said: Said, outcome: str, before: Mapping[str, SeenLine], after: Mapping[str, SeenLine], changed: set[str]
) -> None:
    named, free = set(said["segment_ids"]), {line for line in after if not before[line].is_by_hand}
    numbers = {before[line].number for line in named}
    left = {line for line in free - named if before[line].number in numbers and not before[line].is_unclear}
    if outcome == "spread" and named & free:
        new = {after[line].number for line in named & free}
        assert len(new) == 1, "the lines that were split off are one voice"
        assert not left or {after[line].number for line in left} != new, "a split leaves somebody"


def _check_merge(
    said: Said, outcome: str, before: Mapping[str, SeenLine], after: Mapping[str, SeenLine], changed: set[str]
) -> None:
    own = [line for line in after if before[line].number in said["speaker_ids"] and not before[line].is_by_hand]
    own = [line for line in own if not before[line].is_unclear and not after[line].is_unclear]
    assert outcome != "spread" or len({after[line].number for line in own}) <= 1, "voices that are one have one number"


def _check_name(
    said: Said, outcome: str, before: Mapping[str, SeenLine], after: Mapping[str, SeenLine], changed: set[str]
) -> None:
    number, person, is_so = said["speaker_id"], said["person_id"], said["kind"] == "voice_is"
    own = {line for line in after if before[line].number == number and not before[line].is_by_hand}
    own = {line for line in own if not before[line].is_unclear and not after[line].is_unclear}
    if outcome == "spread":
        assert {after[line].person == person for line in own} <= {is_so}, "a name is that of all lines of the voice"
    for line in changed:
        is_of_another = before[line].number != number and before[line].person != person
        if is_of_another and not before[line].is_unclear:  # such a number may be borne out by now
            assert after[line] == before[line], "a name changes nothing of a voice that does not have it"
