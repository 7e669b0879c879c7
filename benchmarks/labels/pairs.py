"""Real pairs: who spoke when in a recording, and word times that a transcription service heard in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BRIDGED_S = 0.25
"""Words nearer than this to each other are one turn, where no reference of the turns exists."""


@dataclass(frozen=True)
class ReferenceTurn:
    """One speaker without a break, in seconds of the recording."""

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True)
class SpokenWord:
    """One word of a transcript, in seconds of the recording."""

    start_s: float
    end_s: float
    ends_sentence: bool = False


@dataclass(frozen=True)
class RealPair:
    """A recording's turns and one transcript of it."""

    name: str
    turns: tuple[ReferenceTurn, ...]
    words: tuple[SpokenWord, ...]
    kept_aside: bool
    """Thresholds were not chosen on it, but two were made stricter for it."""

    @property
    def length_s(self) -> float:
        """Seconds up to the last word or turn."""
        return max(self.turns[-1].end_s, self.words[-1].end_s)


def load_pairs(shared_dir: Path) -> tuple[RealPair, ...]:
    """Load two earnings calls and a talk, each with what several services heard.

    Turns of the calls are the reference's (RTTM); those of the talk are the words of one service, joined over gaps of
    less than 0.25 s, beside the words of another.
    """
    earnings = shared_dir / "transcripts" / "earnings21"
    formats = shared_dir / "transcripts" / "stt_formats"
    pairs = []
    for call, kept_aside in (("4366522", False), ("4330115", True)):
        turns = read_rttm(earnings / f"{call}.reference.rttm")
        for service in ("rev_kaldi", "google", "amazon", "speechmatics"):
            path = earnings / f"{call}.{service}.{'ctm' if service == 'rev_kaldi' else 'nlp'}"
            words = tuple(_read_ctm(path) if service == "rev_kaldi" else _read_nlp(path))
            pairs.append(RealPair(f"{call}/{service}", turns, words, kept_aside))
    talk = {
        "bbc_kaldi": tuple(_read_bbc_kaldi(formats / "bbcKaldiTranscriptWithSpeakerSegments.sample.json")),
        "ibm": tuple(_read_ibm(formats / "ibmTedTalkTranscript.sample.json")),
        "speechmatics": tuple(_read_speechmatics(formats / "speechmaticsTedTalkTranscript.sample.json")),
        "amazon": tuple(_read_amazon(formats / "amazonTranscribe.sample.json")),
    }
    for spoken, heard, kept_aside in (("ibm", "speechmatics", False), ("bbc_kaldi", "amazon", True)):
        pairs.append(RealPair(f"talk/{spoken}-{heard}", join_words(talk[spoken]), talk[heard], kept_aside))
    return tuple(pairs)


def read_rttm(path: Path) -> tuple[ReferenceTurn, ...]:
    """Read the turns of an RTTM file, sorted by start."""
    rows = (line.split() for line in path.read_text().splitlines() if line.startswith("SPEAKER"))
    turns = (ReferenceTurn(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows)
    return tuple(sorted(turns, key=lambda turn: (turn.start_s, turn.end_s)))


def join_words(words: Sequence[SpokenWord]) -> tuple[ReferenceTurn, ...]:
    """Join words to turns of one speaker."""
    spans: list[list[float]] = []
    for word in words:
        if spans and word.start_s - spans[-1][1] < BRIDGED_S:
            spans[-1][1] = max(spans[-1][1], word.end_s)
        else:
            spans.append([word.start_s, word.end_s])
    return tuple(ReferenceTurn(start_s, end_s, "0") for start_s, end_s in spans)


def _read_ctm(path: Path) -> Iterator[SpokenWord]:
    for row in (line.split() for line in path.read_text().splitlines()):
        if len(row) > 4 and not row[4].startswith("<"):
            yield SpokenWord(float(row[2]), float(row[2]) + float(row[3]))


def _read_nlp(path: Path) -> Iterator[SpokenWord]:
    for row in (line.split("|") for line in path.read_text().splitlines()[1:]):
        if row[2] and row[3]:
            yield SpokenWord(float(row[2]), float(row[3]), row[4] in (".", "?", "!"))


def _read_bbc_kaldi(path: Path) -> Iterator[SpokenWord]:
    for word in json.loads(path.read_text())["retval"]["words"]:
        yield SpokenWord(word["start"], word["end"], word["punct"][-1:] in ".?!")


def _read_ibm(path: Path) -> Iterator[SpokenWord]:
    for result in json.loads(path.read_text())["results"][0]["results"]:
        stamps = result["alternatives"][0]["timestamps"]
        for index, (_, start_s, end_s) in enumerate(stamps, start=1):
            yield SpokenWord(start_s, end_s, index == len(stamps))


def _read_speechmatics(path: Path) -> Iterator[SpokenWord]:
    for word in json.loads(path.read_text())["words"]:
        if word["name"] not in (".", ","):
            yield SpokenWord(float(word["time"]), float(word["time"]) + float(word["duration"]))


def _read_amazon(path: Path) -> Iterator[SpokenWord]:
    items: Iterable[dict] = json.loads(path.read_text())["results"]["items"]
    spoken: SpokenWord | None = None
    for item in items:
        if item["type"] == "pronunciation":
            if spoken is not None:
                yield spoken
            spoken = SpokenWord(float(item["start_time"]), float(item["end_time"]))
        elif spoken is not None:
            spoken = SpokenWord(spoken.start_s, spoken.end_s, ends_sentence=item["alternatives"][0]["content"] in ".?!")
    if spoken is not None:
        yield spoken
