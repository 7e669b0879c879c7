"""Real transcripts with word times and true speakers, cut into segments as backends cut them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from benchmarks.labels.pairs import ReferenceTurn, read_rttm

CALLS = ("4366522", "4330115")
SERVICES = ("amazon", "google", "speechmatics")  # the others tell no word times
SENTENCE_ENDS = (".", "?", "!")
PAUSE_S = 0.5
BLOCK_S = 30.0


@dataclass(frozen=True)
class HeardWord:
    """A word as a service heard it, and who truly said it (None: the reference has no such word)."""

    text: str
    start_s: float
    end_s: float
    speaker: str | None
    ends_sentence: bool


@dataclass(frozen=True)
class RealTranscript:
    """One service's words of one recording, and the recording's true turns."""

    name: str
    words: tuple[HeardWord, ...]
    turns: tuple[ReferenceTurn, ...]
    """Of the reference; sorted; they may overlap."""


def read_transcripts(shared: Path) -> list[RealTranscript]:
    """Read both earnings calls as three services and Rev's recogniser heard them."""
    folder = shared / "transcripts" / "earnings21"
    found = []
    for call in CALLS:
        turns = read_rttm(folder / f"{call}.reference.rttm")
        reference = [(row["token"], row["speaker"]) for row in _rows(folder / f"{call}.reference.nlp")]
        for service in SERVICES:
            heard = [
                (row["token"], float(row["ts"]), float(row["endTs"]), row["punctuation"] in SENTENCE_ENDS)
                for row in _rows(folder / f"{call}.{service}.nlp")
                if row["ts"]
            ]
            found.append(RealTranscript(f"{call} {service}", _with_speakers(heard, reference), turns))
    return found


def cut_at_pauses(words: Sequence[HeardWord]) -> list[list[HeardWord]]:
    """Cut where nobody speaks for half a second."""
    return _cut(words, lambda before, after, _: after.start_s - before.end_s >= PAUSE_S)


def cut_at_sentences(words: Sequence[HeardWord]) -> list[list[HeardWord]]:
    """Cut where the service ended a sentence."""
    return _cut(words, lambda before, _, __: before.ends_sentence)


def cut_into_blocks(words: Sequence[HeardWord]) -> list[list[HeardWord]]:
    """Merge all that is said into blocks of about half a minute."""
    return _cut(words, lambda _, after, block: after.end_s - block[0].start_s > BLOCK_S)


CUTS = {"cut at pauses": cut_at_pauses, "a service's own": cut_at_sentences, "merged blocks": cut_into_blocks}


def _cut(
    words: Sequence[HeardWord], ends: Callable[[HeardWord, HeardWord, Sequence[HeardWord]], bool]
) -> list[list[HeardWord]]:
    segments: list[list[HeardWord]] = []
    for word in words:
        if not segments or ends(segments[-1][-1], word, segments[-1]):
            segments.append([])
        segments[-1].append(word)
    return segments


def _with_speakers(
    heard: Sequence[tuple[str, float, float, bool]], reference: Sequence[tuple[str, str]]
) -> tuple[HeardWord, ...]:
    """Give each heard word the speaker of the reference word that it matches, in order."""
    heard_tokens, true_tokens = [_plain(row[0]) for row in heard], [_plain(row[0]) for row in reference]
    matcher = SequenceMatcher(None, heard_tokens, true_tokens, autojunk=False)
    speakers: dict[int, str] = {}
    for first, there, length in matcher.get_matching_blocks():
        speakers |= {first + step: reference[there + step][1] for step in range(length)}
    return tuple(
        HeardWord(text, start_s, end_s, speakers.get(place), ends)
        for place, (text, start_s, end_s, ends) in enumerate(heard)
    )


def _plain(token: str) -> str:
    return "".join(letter for letter in token.lower() if letter.isalnum())


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="|", quoting=csv.QUOTE_NONE))
