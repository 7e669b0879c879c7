"""From which similarity on a voice is taken for a known person: chosen from recordings of known speakers. Pure.

The rule is the bridge's: the most similar person, if the similarity reaches the threshold and that of every other
person is lower by the margin. Every voice is tried twice: with its speaker among the known people, and without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv, ndtri

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

NOBODY = -1
MOST_FALSE = 0.01
CONFIDENCE = 0.95
SUGGESTED_STRANGERS = 0.05
MARGINS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
STEP = 0.01
"""Thresholds are rounded up to this."""
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Trials:
    """Voices, each compared with what is known of every person from other audio."""

    speaker: NDArray[np.intp]
    """Whose voice it is, as the index of a column; `NOBODY` for people who are in no column."""
    similarity: NDArray[np.float64]
    """Shape ``(voices, people)``; NaN where there is nothing to compare with."""

    def keep(self, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> Trials:
        """Return some of the voices and some of the people; voices of people who are left out become nobody's."""
        place = np.where(columns, np.cumsum(columns) - 1, NOBODY)
        speaker = np.where(self.speaker == NOBODY, NOBODY, place[self.speaker])
        return Trials(speaker[rows], self.similarity[np.ix_(rows, columns)])


@dataclass(frozen=True)
class Rate:
    """How often something happened, and between which shares its true rate lies with `CONFIDENCE`."""

    count: int
    trials: int

    @property
    def share(self) -> float:
        """The share that was seen; 0 where nothing was tried."""
        return self.count / self.trials if self.trials else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of Clopper and Pearson. It takes every trial as independent of all others."""
        tail, k, n = (1 - CONFIDENCE) / 2, self.count, self.trials
        low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
        return low, high

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.count + other.count, self.trials + other.trials)


@dataclass(frozen=True)
class Errors:
    """What a threshold and a margin did to some trials."""

    strangers_named: Rate
    """Of the voices whose speaker is not among the people: those that were given a name."""
    wrong_person: Rate
    """Of the voices whose speaker is: those that were given somebody else's name."""
    false_rejects: Rate
    """Of the same: those that were given no name."""

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.strangers_named + other.strangers_named,
            self.wrong_person + other.wrong_person,
            self.false_rejects + other.false_rejects,
        )


NO_ERRORS = Errors(Rate(0, 0), Rate(0, 0), Rate(0, 0))


@dataclass(frozen=True)
class Choice:
    """A threshold and a margin."""

    threshold: float
    margin: float


def count_errors(trials: Trials, choice: Choice) -> Errors:
    """Return what a choice does to these trials."""
    similarity = np.nan_to_num(trials.similarity, nan=-1.0)
    known = np.flatnonzero(trials.speaker != NOBODY)
    named = _names(_without_speakers(trials), choice) != NOBODY
    given, true = _names(similarity[known], choice), trials.speaker[known]
    return Errors(
        strangers_named=Rate(int(named.sum()), len(named)),
        wrong_person=Rate(int(((given != NOBODY) & (given != true)).sum()), len(known)),
        false_rejects=Rate(int((given == NOBODY).sum()), len(known)),
    )


def choose(trials: Sequence[Trials], *, most_false: float = MOST_FALSE) -> Choice:
    """Return the threshold and margin that name most voices rightly, with few enough false names in each of the sets.

    Of margins that cost no names it is the largest, and of thresholds the one halfway between the least and the last:
    the strangers who were not recorded may be more similar.

    False names of each set are at most `most_false` of its voices, and fewer by the normal distribution of the highest
    similarities of strangers: of a hundred voices the most similar stranger is seen by chance only.

    Args:
        trials: one set for each condition.
        most_false: of the voices of strangers that are named, and of known voices that are given another name.
    """
    fitting = [Choice(_least_threshold(trials, margin, most_false), margin) for margin in MARGINS]
    least = min(fitting, key=lambda each: (_rejected(trials, each), -each.margin, each.threshold))
    halfway = (least.threshold + min(_lowest_named(each, least) for each in trials)) / 2
    return Choice(max(least.threshold, round(math.floor(round(halfway / STEP, 6)) * STEP, 6)), least.margin)


def suggest_from(trials: Sequence[Trials], *, suggested: float = SUGGESTED_STRANGERS) -> float:
    """Return from which similarity on a person is suggested: of all strangers together, at most this share is then."""
    strangers = [_best_of_others(each) for each in trials]
    return round(math.ceil(round(float(np.quantile(np.concatenate(strangers), 1 - suggested)) / STEP, 6)) * STEP, 6)


def cross_validate(trials: Sequence[Trials], *, folds: int = FOLDS, most_false: float = MOST_FALSE) -> list[Errors]:
    """Return for each set what choices do to voices of speakers who had no part in the choice.

    The people are divided into folds. For each fold a choice is made without its speakers' voices and prints, and tried
    on their voices: against their own prints, and as strangers against everybody else's.
    """
    people = trials[0].similarity.shape[1]
    found = [NO_ERRORS] * len(trials)
    for fold in range(min(folds, people)):
        held_out = np.arange(people) % folds == fold
        choice = choose([each.keep(~_is_one_of(each, held_out), ~held_out) for each in trials], most_false=most_false)
        tried = (each.keep(_is_one_of(each, held_out), np.full(people, fill_value=True)) for each in trials)
        found = [errors + count_errors(each, choice) for errors, each in zip(found, tried, strict=True)]
    return found


def _without_speakers(trials: Trials) -> NDArray[np.float64]:
    """Return the similarities of every voice to other people than its speaker: -1 to its speaker."""
    similarity: NDArray[np.float64] = np.nan_to_num(trials.similarity, nan=-1.0)
    known = np.flatnonzero(trials.speaker != NOBODY)
    similarity[known, trials.speaker[known]] = -1.0
    return similarity


def _best_of_others(trials: Trials) -> NDArray[np.float64]:
    best: NDArray[np.float64] = _without_speakers(trials).max(axis=1, initial=-1.0)
    return best


def _is_one_of(trials: Trials, people: NDArray[np.bool_]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (trials.speaker != NOBODY) & people[trials.speaker]
    return found


def _names(similarity: NDArray[np.float64], choice: Choice) -> NDArray[np.intp]:
    """Return which person each row of similarities is given, or `NOBODY`."""
    if similarity.shape[1] == 0:
        return np.full(len(similarity), NOBODY)
    order = np.sort(similarity, axis=1)
    is_named = order[:, -1] >= choice.threshold
    if similarity.shape[1] > 1:
        is_named &= order[:, -1] - order[:, -2] >= choice.margin
    return np.where(is_named, similarity.argmax(axis=1), NOBODY)


def _least_threshold(trials: Iterable[Trials], margin: float, most_false: float) -> float:
    """Return the least threshold that fits all sets at this margin."""
    least = 0.0
    for each in trials:
        similarity = np.nan_to_num(each.similarity, nan=-1.0)
        known = np.flatnonzero(each.speaker != NOBODY)
        strangers = _best_of_others(each)
        is_named = _names(_without_speakers(each), Choice(-1.0, margin)) != NOBODY
        given = _names(similarity[known], Choice(-1.0, margin))
        is_wrong = (given != NOBODY) & (given != each.speaker[known])
        least = max(
            least,
            _above(strangers[is_named], int(most_false * len(strangers))),
            _above(similarity[known].max(axis=1, initial=-1.0)[is_wrong], int(most_false * len(known))),
            float(strangers.mean() + ndtri(1 - most_false) * strangers.std()) if len(strangers) else 0.0,
        )
    return round(math.ceil(round(least / STEP, 6)) * STEP, 6)


def _above(similarities: NDArray[np.float64], allowed: int) -> float:
    """Return the least threshold that all but so many of the similarities are below."""
    if len(similarities) <= allowed:
        return 0.0
    return float(np.nextafter(np.sort(similarities)[-allowed - 1], np.inf))


def _lowest_named(trials: Trials, choice: Choice) -> float:
    """Return the lowest similarity by which somebody gets the own name; without any, the threshold."""
    known = np.flatnonzero(trials.speaker != NOBODY)
    similarity = np.nan_to_num(trials.similarity[known], nan=-1.0)
    is_right = _names(similarity, choice) == trials.speaker[known]
    return float(similarity[is_right].max(axis=1).min()) if is_right.any() else choice.threshold


def _rejected(trials: Iterable[Trials], choice: Choice) -> int:
    return sum(count_errors(each, choice).false_rejects.count for each in trials)
