"""Who a voice belongs to: compare the voices of one conversation with the voiceprints of known people. Pure.

A wrong name is worse than none. A voice is *matched* only where it is as similar as the calibrated threshold of its
model asks, ahead of the next person by the margin, from enough clean speech, and where voice and person choose each
other. What falls short of that is a *suggestion*, which tells why. Cosine similarities of different models say nothing
about each other and are never compared. Where the numbers come from: docs/adr/0020-who-is-who.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vps_bridge.people.telephone import BEYOND_TELEPHONE, similarity_by_telephone

MOST_WEIGHT_S = 30.0
"""A print of more clean speech counts no more in the mean of a person: one long conversation in one room would."""
MAX_LOST_SHARE = 0.1
"""A print that loses more of its clean speech was partly somebody else's. Edges of turns that move cost less; with less
than a fifth of it nobody's voice is matched by it."""


@dataclass(frozen=True)
class MatchRules:
    """What a match needs in one embedding space; similarities are cosines."""

    threshold: float
    margin: float
    """So much more similar than the person who comes next."""
    min_clean_s: float
    """Clean speech of the voice, and of all prints of the person."""
    suggest_from: float
    """Below this similarity nothing is said at all, and a new print of a person is odd."""


CALIBRATED: Mapping[str, MatchRules] = {
    "3d-speaker/campplus@92f29b94e694/192": MatchRules(threshold=0.50, margin=0.10, min_clean_s=1.5, suggest_from=0.40),
    "campplus": MatchRules(threshold=0.74, margin=0.10, min_clean_s=3.0, suggest_from=0.40),
    "resemblyzer": MatchRules(threshold=0.92, margin=0.06, min_clean_s=3.0, suggest_from=0.76),
}
"""By embedding space, or by a word of the model's name. What a telephone explains is only known of the first: elsewhere
strangers by telephone set the threshold."""

UNCALIBRATED = MatchRules(threshold=1.0, margin=0.0, min_clean_s=0.0, suggest_from=0.6)
"""For models that nobody measured, which give suggestions only."""


@dataclass(frozen=True, eq=False)
class Print:
    """One voiceprint of a person."""

    person_id: str
    embedding_space: str
    """Model, revision and length of the vector, as in `labelling.evidence`."""
    vector: NDArray[np.float32]
    clean_s: float
    """Seconds of clean speech that it was made from."""


@dataclass(frozen=True, eq=False)
class HeardVoice:
    """A voice of a conversation."""

    voice: int
    embedding_space: str
    vector: NDArray[np.float32]
    clean_s: float


@dataclass(frozen=True)
class Match:
    """Who a voice is, or may be."""

    voice: int
    person_id: str
    identity: Literal["suggested", "matched"]
    similarity: float
    needed: float
    """The similarity from which on it could be a match."""
    runner_up: str | None
    """The most similar of the other people."""
    runner_up_similarity: float | None
    reason: str | None
    """Why it is only suggested: `below_threshold`, `margin`, `little_speech`, `not_mutual`, `not_calibrated`."""


def match_people(
    voices: Sequence[HeardVoice],
    prints: Sequence[Print],
    *,
    calibrated: Mapping[str, MatchRules] | None = None,
) -> tuple[Match, ...]:
    """Return who the voices of a conversation are, sorted by voice.

    No voice gets two people, and no person two voices, not even as a suggestion. The order of the arguments does not
    matter. Vectors that are not finite or zero are left out.

    Args:
        voices: of one conversation; a voice may be heard in several spaces.
        prints: of the people of the conversation's owner.
        calibrated: rules that go before the shipped ones; see `rules_for`.
    """
    heard = _mean_vectors((each.voice, each.embedding_space, each.vector, each.clean_s) for each in voices)
    known = _mean_vectors((each.person_id, each.embedding_space, each.vector, each.clean_s) for each in prints)
    found: list[Match] = []
    for space in sorted(heard.keys() & known.keys()):
        rules = rules_for(space[0], calibrated)
        by_telephone = similarity_by_telephone(space[0], heard[space].vectors, known[space].vectors)
        found.extend(_match_space(heard[space], known[space], rules, by_telephone))
    return tuple(_one_to_one(found))


def rules_for(embedding_space: str, calibrated: Mapping[str, MatchRules] | None = None) -> MatchRules | None:
    """Return the rules of an embedding space, None where nobody calibrated its model.

    Args:
        embedding_space: model, revision and length of the vector.
        calibrated: rules of one's own, by embedding space or by a word of the model's name; they go first.
    """
    model = embedding_space.split("@", maxsplit=1)[0].lower()
    for known in (calibrated or {}, CALIBRATED):
        if embedding_space in known:
            return known[embedding_space]
        for word, rules in known.items():
            if word in model:
                return rules
    return None


def is_odd_print(
    new: Print, others: Sequence[Print], *, calibrated: Mapping[str, MatchRules] | None = None
) -> float | None:
    """Return how similar a new print is to the person's other prints, where that is too little to take it unasked.

    None where it is similar enough, and where there is nothing to compare it with.
    """
    space = (new.embedding_space, new.vector.size)
    fresh = _mean_vectors([(0, new.embedding_space, new.vector, new.clean_s)]).get(space)
    known = _mean_vectors(
        (0, each.embedding_space, each.vector, each.clean_s) for each in others if each.person_id == new.person_id
    ).get(space)
    if fresh is None or known is None:
        return None
    similarity = float(fresh.vectors[0] @ known.vectors[0])
    least = (rules_for(new.embedding_space, calibrated) or UNCALIBRATED).suggest_from
    return similarity if similarity < least else None


def is_other_voice(new: Print, old: Print, *, calibrated: Mapping[str, MatchRules] | None = None) -> bool:
    """Whether two voiceprints are less alike than a match asks, so that one cannot stand for the other.

    False where they cannot be compared, or nobody calibrated their model: then nothing was matched by them either.
    """
    rules = rules_for(new.embedding_space, calibrated)
    first, second = _unit(new.vector), _unit(old.vector)
    if rules is None or first is None or second is None:
        return False
    if (new.embedding_space, first.size) != (old.embedding_space, second.size):
        return False
    return float(first @ second) < rules.threshold


def is_of_less_speech(one: Print, other: Print) -> bool:
    """Whether a voiceprint is made of so much less speech than another that what it lacks may have been matched."""
    return one.clean_s < (1 - MAX_LOST_SHARE) * other.clean_s


_Space = tuple[str, int]
"""An embedding space, and the length of its vectors once more: whatever its name says, others cannot be compared."""
_Name = TypeVar("_Name", int, str)


@dataclass(frozen=True, eq=False)
class _Means(Generic[_Name]):
    """What is known of some voices or people in one space, sorted by name."""

    names: list[_Name]
    vectors: NDArray[np.float64]
    """A row of length 1 for each."""
    clean_s: list[float]


def _mean_vectors(
    vectors: Iterable[tuple[_Name, str, NDArray[np.float32], float]],
) -> dict[_Space, _Means[_Name]]:
    """Return by space the mean of each name's usable vectors, taken at unit length and weighted by clean speech."""
    parts: dict[_Space, dict[_Name, list[tuple[bytes, float]]]] = {}
    for name, space, vector, clean_s in vectors:
        unit = _unit(vector)
        if unit is not None and 0.0 < clean_s < np.inf:
            parts.setdefault((space, unit.size), {}).setdefault(name, []).append((unit.tobytes(), clean_s))
    means = {}
    for key, by_name in parts.items():
        kept = {name: mean for name in sorted(by_name) if (mean := _mean(by_name[name])) is not None}
        seconds = [math.fsum(clean_s for _, clean_s in by_name[name]) for name in kept]
        means[key] = _Means(list(kept), np.array(list(kept.values())).reshape(len(kept), key[1]), seconds)
    return means


def _mean(parts: list[tuple[bytes, float]]) -> NDArray[np.float64] | None:
    """Return the weighted mean at unit length, the same in whatever order; None where the vectors cancel out."""
    total = sum(min(clean_s, MOST_WEIGHT_S) * np.frombuffer(data) for data, clean_s in sorted(parts))
    return _unit(np.asarray(total))


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Return a vector at length 1; None where it is empty, zero or not finite."""
    exact = np.asarray(vector, dtype=np.float64).ravel()
    largest = float(np.abs(exact).max(initial=0.0))
    if not np.isfinite(largest) or largest == 0.0:
        return None
    scaled = exact / largest  # or the squares of very large and very small numbers are lost
    unit: NDArray[np.float64] = scaled / np.linalg.norm(scaled)
    return unit


def _match_space(
    heard: _Means[int], known: _Means[str], calibrated: MatchRules | None, by_telephone: NDArray[np.float64] | None
) -> Iterator[Match]:
    """Yield every pair of a voice and a person that could be one.

    A voice of too little speech never keeps a person from a voice of enough: its similarity is partly chance.
    """
    rules = calibrated or UNCALIBRATED
    similarity = np.clip(heard.vectors @ known.vectors.T, -1.0, 1.0)
    firm = similarity[[clean_s >= rules.min_clean_s for clean_s in heard.clean_s]]
    for row, column in np.argwhere(similarity >= rules.suggest_from).tolist():
        found, clean_s = float(similarity[row, column]), min(heard.clean_s[row], known.clean_s[column])
        others = [(float(similarity[row, place]), name) for place, name in enumerate(known.names) if place != column]
        next_similarity, next_person = max(others, default=(None, None))
        is_mutual = found >= similarity[row].max() and found >= firm[:, column].max(initial=-1.0)
        reason = None
        needed = rules.threshold
        if by_telephone is not None:
            needed = max(needed, float(by_telephone[row, column]) + BEYOND_TELEPHONE)
        if calibrated is None:
            reason = "not_calibrated"
        elif clean_s < rules.min_clean_s:
            reason = "little_speech"
        elif found < needed:
            reason = "below_threshold"
        elif not is_mutual:
            reason = "not_mutual"
        elif next_similarity is not None and found - next_similarity < rules.margin:
            reason = "margin"
        yield Match(
            voice=heard.names[row],
            person_id=known.names[column],
            identity="suggested" if reason else "matched",
            similarity=found,
            needed=needed,
            runner_up=next_person,
            runner_up_similarity=next_similarity,
            reason=reason,
        )


def _one_to_one(found: Iterable[Match]) -> list[Match]:
    """Return the pairs of which no two share a voice or a person, the surest first taken; sorted by voice."""
    kept: dict[int, Match] = {}
    taken: set[str] = set()

    def sureness(pair: Match) -> tuple[bool, bool, float, int, str]:
        ahead = pair.similarity - pair.needed  # what can be compared between spaces, if anything can
        return pair.reason is not None, pair.reason == "little_speech", -ahead, pair.voice, pair.person_id

    for pair in sorted(found, key=sureness):
        if pair.voice not in kept and pair.person_id not in taken:
            kept[pair.voice] = pair
            taken.add(pair.person_id)
    return [kept[voice] for voice in sorted(kept)]
