"""What speech-to-text gives when it is run again: the same talk in other lines, under other ids."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.conversation import TranscriptSegment

WAYS = ("new ids", "one line less", "one line more", "joined", "halved", "trimmed")
MORE_WAYS = (*WAYS, "later", "listeners", "listeners")
LONG_S, SHORT_S, LATER_S = 3.0, 2.0, 1.3
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

    @property
    def segments(self) -> tuple[TranscriptSegment, ...]:
        return tuple(
            TranscriptSegment(id=name, start_s=start_s, end_s=end_s, text=text, speaker="SPEAKER_00")
            for name, (_, start_s, end_s, text) in self.lines.items()
        )

    @property
    def truth(self) -> dict[str, str]:
        return {name: who for name, (who, *_) in self.lines.items() if who}

    def is_clear(self, name: str) -> bool:
        """Whether a line is so long that whoever speaks in it is heard, whatever its clock is."""
        _, start_s, end_s, _ = self.lines[name]
        return self.clock_s == 0.0 or end_s - start_s >= SHORT_S

    @property
    def silent(self) -> set[str]:
        """Lines at a time at which nobody is heard."""
        return {name for name, (*_, text) in self.lines.items() if text == SILENT}


def first_transcription(lines: Sequence[tuple[str, float, float]]) -> Transcription:
    return _number([(*line, f"word {n}") for n, line in enumerate(lines)])


def with_common_words(before: Transcription, draw: random.Random) -> Transcription:
    """Return it with short lines that say the same."""
    return Transcription(
        {
            name: (who, start_s, end_s, draw.choice(COMMON) if end_s - start_s < SHORT_S else text)
            for name, (who, start_s, end_s, text) in before.lines.items()
        }
    )


def transcribe_anew(before: Transcription, draw: random.Random, ways: Sequence[str] = WAYS) -> Transcription:
    way, lines = draw.choice(ways), list(before.lines.values())
    if way == "later":
        later = {name: (who, a + LATER_S, b + LATER_S, text) for name, (who, a, b, text) in before.lines.items()}
        return Transcription(later, before.clock_s + LATER_S)
    if way == "listeners":
        return _number([one for line in lines for one in _with_listener(line)])
    if way == "new ids":
        return _number(lines, "n")
    if way == "one line less":
        return _number(lines[1:])
    if way == "one line more":
        return _number([("", 0.0, 0.3, SILENT), *lines])
    if way == "joined":
        return _number(_joined(lines))
    if way == "halved":
        return _number([half for line in lines for half in _halves(line)])
    return Transcription({name: (who, a + 0.2, b, f"{text}!") for name, (who, a, b, text) in before.lines.items()})


def _number(lines: Sequence[Line], letter: str = "s") -> Transcription:
    return Transcription({f"{letter}{n:02d}": line for n, line in enumerate(lines)})


def _joined(lines: Sequence[Line]) -> list[Line]:
    found: list[Line] = []
    for who, start_s, end_s, text in lines:
        if found and found[-1][0] == who:
            found[-1] = (who, found[-1][1], end_s, f"{found[-1][3]} {text}")
        else:
            found.append((who, start_s, end_s, text))
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
