"""What speech-to-text gives when it is run again: the same talk in other lines, under other ids."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.conversation import TranscriptSegment, Word

WAYS = ("new ids", "one line less", "one line more", "joined", "halved", "trimmed")
MORE_WAYS = (*WAYS, "later", "listeners", "listeners")
ODD_WAYS = (*MORE_WAYS, "drift", "other ids", "paragraphs", "as at first", "as at first")
LONG_S, SHORT_S, LATER_S, DRIFT = 3.0, 2.0, 1.3, 0.003
SILENT = "Hm."
COMMON = ("Yeah.", "Mhm.", "Okay, yeah.")
"""What many short lines say."""
Line = tuple[str, float, float, str]
"""Who speaks, from when to when (seconds of the transcript), and the text."""


@dataclass(frozen=True)
class Transcription:
    """Lines by id. In a line that nobody speaks, whoever speaks is empty."""

    lines: dict[str, Line]
    clock_s: float = 0.0
    """How much later its clock begins than the audio's."""
    drift: float = 0.0
    """By how much of the time that has passed its clock is fast."""
    first: tuple[Line, ...] = ()
    """The lines as they were transcribed first."""
    has_words: bool = False
    """Whether it tells the times of words."""

    @property
    def segments(self) -> tuple[TranscriptSegment, ...]:
        return tuple(
            TranscriptSegment(
                id=name,
                start_s=start_s,
                end_s=end_s,
                text=text,
                speaker="SPEAKER_00",
                words=_words(start_s, end_s, text) if self.has_words else None,
            )
            for name, (_, start_s, end_s, text) in self.lines.items()
        )

    @property
    def truth(self) -> dict[str, str]:
        return {name: who for name, (who, *_) in self.lines.items() if who}

    def is_clear(self, name: str) -> bool:
        """Whether a line is so long that whoever speaks in it is heard, whatever its clock, and beside a listener."""
        _, start_s, end_s, _ = self.lines[name]
        inside = [line for other, line in self.lines.items() if other != name and start_s < line[1] < end_s]
        if inside and end_s - start_s < 2 * LONG_S:
            return False
        return self.clock_s + self.drift * end_s == 0.0 or end_s - start_s >= SHORT_S

    def heard_at(self, name: str) -> tuple[float, float]:
        """Return when a line is heard, on the audio's clock."""
        _, start_s, end_s, _ = self.lines[name]
        return (start_s - self.clock_s) / (1 + self.drift), (end_s - self.clock_s) / (1 + self.drift)

    @property
    def silent(self) -> set[str]:
        """Lines at a time at which nobody is heard."""
        return {name for name, (*_, text) in self.lines.items() if text == SILENT}


def first_transcription(lines: Sequence[tuple[str, float, float]]) -> Transcription:
    said = tuple((*line, f"word {n}") for n, line in enumerate(lines))
    return Transcription(_numbered(said), first=said)


def with_common_words(before: Transcription, draw: random.Random) -> Transcription:
    """Return it with short lines that say the same."""
    said = tuple(
        (who, start_s, end_s, draw.choice(COMMON) if end_s - start_s < SHORT_S else text)
        for who, start_s, end_s, text in before.lines.values()
    )
    return Transcription(_numbered(said), first=said)


def transcribe_anew(before: Transcription, draw: random.Random, ways: Sequence[str] = WAYS) -> Transcription:
    way, lines = draw.choice(ways), list(before.lines.values())
    if way == "as at first":
        return replace(before, lines=_numbered(before.first), clock_s=0.0, drift=0.0)
    if way == "later":
        later = {name: (who, a + LATER_S, b + LATER_S, text) for name, (who, a, b, text) in before.lines.items()}
        return replace(before, lines=later, clock_s=before.clock_s + LATER_S)
    if way == "drift":
        fast = 1 + DRIFT
        drifted = {name: (who, a * fast, b * fast, text) for name, (who, a, b, text) in before.lines.items()}
        return replace(before, lines=drifted, drift=before.drift + DRIFT)
    if way == "other ids":
        ids = draw.sample(sorted(before.lines), len(before.lines))
        return replace(before, lines=dict(zip(ids, lines, strict=True)))
    if way == "trimmed":
        trimmed = {name: (who, a + 0.2, b, f"{text}!") for name, (who, a, b, text) in before.lines.items()}
        return replace(before, lines=trimmed)
    return replace(before, lines=_numbered(_other_lines(way, lines), "n" if way == "new ids" else "s"))


def _other_lines(way: str, lines: list[Line]) -> list[Line]:
    """Return the same talk in other lines."""
    if way == "listeners":
        return [one for line in lines for one in _with_listener(line)]
    if way == "one line less":
        return lines[1:]
    if way == "one line more":
        return [("", 0.0, 0.3, SILENT), *lines]
    if way == "joined":
        return _joined(lines)
    if way == "paragraphs":
        return _paragraphs(lines)
    return [half for line in lines for half in _halves(line)] if way == "halved" else lines


def _words(start_s: float, end_s: float, text: str) -> tuple[Word, ...]:
    said = text.split()
    length_s = (end_s - start_s) / len(said)
    return tuple(
        Word(text=word, start_s=start_s + n * length_s, end_s=start_s + (n + 0.9) * length_s)
        for n, word in enumerate(said)
    )


def _numbered(lines: Sequence[Line], letter: str = "s") -> dict[str, Line]:
    return {f"{letter}{n:02d}": line for n, line in enumerate(lines)}


def _joined(lines: Sequence[Line]) -> list[Line]:
    """Each person's lines that follow each other are one, where nobody else has one at the same time."""
    found: list[Line] = []
    for who, start_s, end_s, text in lines:
        if found and found[-1][0] == who and all(line[2] <= found[-1][1] for line in found[:-1]):
            found[-1] = (who, found[-1][1], end_s, f"{found[-1][3]} {text}")
        else:
            found.append((who, start_s, end_s, text))
    return found


def _paragraphs(lines: Sequence[Line]) -> list[Line]:
    """Each two lines are one, whoever speaks them: nobody in particular, where somebody else speaks meanwhile."""
    pairs = [lines[n : n + 2] for n in range(0, len(lines), 2)]
    found = []
    for pair in pairs:
        start_s, end_s = pair[0][1], max(line[2] for line in pair)
        people = {line[0] for line in lines if line[1] < end_s and line[2] > start_s}
        found.append((people.pop() if len(people) == 1 else "", start_s, end_s, " ".join(line[3] for line in pair)))
    return found


def _with_listener(line: Line) -> list[Line]:
    """A listener's word in the middle of a long line is a line of its own."""
    _, start_s, end_s, _ = line
    middle_s = (start_s + end_s) / 2
    return [line, ("", middle_s, middle_s + 0.4, "Mhm.")] if end_s - start_s > 2 * LONG_S else [line]


def _halves(line: Line) -> list[Line]:
    who, start_s, end_s, text = line
    if end_s - start_s < LONG_S:
        return [line]
    middle_s = (start_s + end_s) / 2
    return [(who, start_s, middle_s, f"{text} a"), (who, middle_s, end_s, f"{text} b")]
