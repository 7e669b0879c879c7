"""Voices compared with prints, condition by condition: from the pieces of ten people, of every length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mac_agent.threshold import NOBODY, Trials
from vps_bridge.people.telephone import BEYOND_TELEPHONE, similarity_by_telephone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from benchmarks.people.conversations import SpokenVoice
    from benchmarks.people.pieces import Pieces

DRAWS, HALF = 6, 5
ENROLLED_S = (2.0, 5.0, 10.0, 30.0)
HEARD_S = (5.0, 30.0)


@dataclass(frozen=True)
class Condition:
    """How people were enrolled, and how they are heard."""

    enrolled: str
    heard: str
    enrolled_s: float
    heard_s: float


@dataclass(frozen=True, eq=False)
class Spoken:
    """A vector, and the clean seconds that it is the mean of."""

    vector: NDArray[np.float32]
    clean_s: float


@dataclass(frozen=True, eq=False)
class Draw:
    """Everybody's print from one half of what they say, and their voice from the other."""

    prints: Mapping[str, Spoken]
    voices: Mapping[str, Spoken]


def conditions(copies: Sequence[str]) -> list[tuple[str, str]]:
    """Return in which copies people are enrolled and heard: the same one, or one of them clean or by telephone."""
    crossed = [(one, other) for one in ("clean", "telephone") for other in copies if other != one and one in copies]
    return [(name, name) for name in copies] + crossed


def draw_all(pieces: Mapping[str, Mapping[str, Pieces]], condition: Condition, *, draws: int = DRAWS) -> list[Draw]:
    """Return drawn halves of every person's utterances, one for the print, one for the voice; the same at every run."""
    found = []
    for seed in range(draws):
        random = np.random.default_rng(seed)
        prints, heard = {}, {}
        for name in sorted(pieces[condition.enrolled]):
            order = random.permutation(2 * HALF).tolist()
            prints[name] = _speak(pieces[condition.enrolled][name], order[:HALF], condition.enrolled_s)
            heard[name] = _speak(pieces[condition.heard][name], order[HALF:], condition.heard_s)
        found.append(Draw(prints, heard))
    return found


def compare(draws: Sequence[Draw], space: str, strangers: Sequence[SpokenVoice] = ()) -> Trials:
    """Return every voice, and those of strangers, compared with the prints of its draw.

    Pairs that the telephone alone makes similar, have what is left beyond it.
    """
    people = sorted(draws[0].prints)
    rows: list[NDArray[np.float64]] = []
    speaker: list[int] = []
    for draw in draws:
        known = np.array([draw.prints[name].vector for name in people], dtype=np.float64)
        heard = np.array(
            [draw.voices[name].vector for name in people] + [each.vector for each in strangers], dtype=np.float64
        )
        similarity = heard @ known.T
        by_telephone = similarity_by_telephone(space, heard, known)
        if by_telephone is not None:
            beyond = similarity - by_telephone
            similarity = np.where(beyond >= BEYOND_TELEPHONE, similarity, np.minimum(similarity, beyond))
        rows.append(similarity)
        speaker += [*range(len(people)), *[NOBODY] * len(strangers)]
    return Trials(np.array(speaker, dtype=np.intp), np.concatenate(rows))


def _speak(pieces: Pieces, numbers: Sequence[int], most_s: float) -> Spoken:
    return Spoken(*pieces.voice(pieces.rows(numbers, most_s)))
