"""How well pieces of speech tell voices apart, for the linker: `python -m benchmarks.bench_piece_links`.

Ten LibriSpeech voices, each alone in a recording of its own: as read, by telephone and in a room. Its pieces
become parts of some seconds; two parts of one utterance are never compared, nor two of different conditions.
Numbers are fitted on five of the voices and tried on the other five, again and again with other halves: "others" are
voices that had no say in the choice.

- *Threshold*: from which cosine on two parts of 3 to 20 s are one voice (`EmbeddingSpace.threshold` and `chance_s`).
- *Little speech*: one to three pieces get the voice that they are most like of five (`nats_per_s`, `margin_nats`), and
  what becomes of them where their own voice is not among them ("strangers").
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from benchmarks import recordings
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording
from mac_agent.engines.embedded import EmbeddedEngine, StageTimer
from mac_agent.engines.frames import FIRST_FRAME_START_S, FRAME_S
from mac_agent.engines.registry import load_engine
from mac_agent.weights.models import EMBEDDED, GENERATIONS
from vps_bridge.labelling.embedding_spaces import EmbeddingSpace, space_of
from vps_bridge.labelling.piece_voices import PieceRules

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]

PAUSE_S = 0.5
MUCH_S, LITTLE_S = (3.0, 5.0, 10.0, 20.0), (0.8, 1.6, 2.4)
HALVES = 20
THRESHOLDS, CHANCES_S = np.arange(0.30, 0.91, 0.01), (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
NATS, MARGINS, LIKENESSES = np.arange(5.0, 121.0, 1.0), (0.0, 2.0, 3.0, 4.0, 6.0, 8.0), (0.0, 0.8, 0.9, 1.0, 1.1)
NEAR = 0.005


@dataclass(frozen=True, eq=False)
class Part:
    """Some seconds of one voice."""

    voice: int
    utterances: frozenset[int]
    clean_s: float
    total: Floats
    """Sum of the embeddings of its pieces, each weighted by its seconds of clean speech."""


@dataclass(frozen=True, eq=False)
class Spoken:
    """The pieces of one voice in one condition, in order of time."""

    voice: int
    embeddings: Floats
    clean_s: Floats
    utterance: Numbers

    def parts(self, length_s: float) -> Iterator[Part]:
        """Yield all of it in parts of so much clean speech; what is left over is left out."""
        first = 0
        for end in range(1, len(self.clean_s) + 1):
            rows = slice(first, end)
            clean_s = float(self.clean_s[rows].sum())
            if clean_s >= length_s - 0.01:
                utterances = frozenset(self.utterance[rows].tolist())
                yield Part(self.voice, utterances, clean_s, self.clean_s[rows] @ self.embeddings[rows])
                first = end

    def centroid(self, without: frozenset[int] = frozenset()) -> Floats:
        """Return the mean of all utterances but these, at length 1."""
        rows = ~np.isin(self.utterance, list(without))
        total: Floats = self.clean_s[rows] @ self.embeddings[rows]
        return total / float(np.linalg.norm(total))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=tuple(GENERATIONS), default=EMBEDDED)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OMI_DATA_DIR"))
    options = parser.parse_args()
    data_dir = options.data_dir or Path(platformdirs.user_data_dir("omi-diarization"))
    engine = load_engine(options.engine, data_dir=Path(data_dir), threads=1)
    assert isinstance(engine, EmbeddedEngine)
    space = space_of(f"{engine.info.embedding_model}@{engine.info.embedding_revision}")
    heard: dict[str, list[Spoken]] = {}
    for number, voice in enumerate(recordings.voices()):
        for recording in in_conditions(read_alone(voice)):
            heard.setdefault(recording.name, []).append(hear(engine, recording, number))
    print_thresholds(Pairs.of(heard.values()), space)
    print_little(list(heard.values()), space)


def read_alone(voice: str) -> Recording:
    """Return all utterances of a voice with pauses between them; the reference names each by its number."""
    parts, reference, at = list[NDArray[np.float32]](), list[tuple[float, float, str]](), 0
    for number, speech in enumerate(recordings.utterances(voice)):
        reference.append((at / SAMPLE_RATE_HZ, (at + len(speech)) / SAMPLE_RATE_HZ, str(number)))
        parts += [speech, np.zeros(int(PAUSE_S * SAMPLE_RATE_HZ), dtype=np.float32)]
        at += len(parts[-2]) + len(parts[-1])
    return Recording("read", np.concatenate(parts), tuple(reference))


def in_conditions(read: Recording) -> Iterator[Recording]:
    """Yield the recording as it is, by telephone and in a room: each the same for every voice."""
    yield read
    yield recordings.at_8_khz(read)
    yield recordings.with_reverberation(read)


def hear(engine: EmbeddedEngine, recording: Recording, voice: int) -> Spoken:
    """Return the engine's pieces of a recording of one voice."""
    output = engine.run_networks(recording.waveform, lambda _stage, _done: None, StageTimer())
    assert output is not None
    found = output.evidence
    middle_s = FIRST_FRAME_START_S + FRAME_S * np.array([(piece.first + piece.last) / 2 for piece in found.pieces])
    rows = np.flatnonzero(found.clean_s > 0)
    rows = rows[np.argsort(middle_s[rows], kind="stable")]
    utterance = np.searchsorted([start_s for start_s, _, _ in recording.reference], middle_s[rows]) - 1
    return Spoken(voice, found.embeddings[rows].astype(np.float64), found.clean_s[rows], np.maximum(utterance, 0))


def halves() -> Iterator[tuple[Numbers, Numbers]]:
    """Yield drawn halves of the voices: those that numbers are fitted on, and the others."""
    n_voices = len(recordings.voices())
    for seed in range(HALVES):
        drawn = np.random.default_rng(seed).permutation(n_voices)
        yield drawn[: n_voices // 2], drawn[n_voices // 2 :]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of parts with much speech. All arrays have a row for each."""

    voices: Numbers
    """Shape ``(pairs, 2)``."""
    cosine: Floats
    clean_s: Floats
    """Shape ``(pairs, 2)``."""

    @classmethod
    def of(cls, conditions: Iterable[list[Spoken]]) -> Pairs:
        """Return all pairs of parts of one condition; two of one voice share no utterance."""
        voices, cosine, clean_s = list[tuple[int, int]](), list[float](), list[tuple[float, float]]()
        for condition in conditions:
            parts = [part for spoken in condition for length_s in MUCH_S for part in spoken.parts(length_s)]
            unit = np.array([part.total / np.linalg.norm(part.total) for part in parts])
            cosines = unit @ unit.T
            for (i, a), (j, b) in combinations(enumerate(parts), 2):
                if a.voice != b.voice or a.utterances.isdisjoint(b.utterances):
                    voices.append((a.voice, b.voice))
                    cosine.append(float(cosines[i, j]))
                    clean_s.append((a.clean_s, b.clean_s))
        return cls(np.array(voices), np.array(cosine), np.array(clean_s))

    def among(self, voices: Numbers) -> Pairs:
        """Return the pairs of these voices only."""
        rows = np.isin(self.voices, voices).all(axis=1)
        return Pairs(self.voices[rows], self.cosine[rows], self.clean_s[rows])

    def errors(self, chance_s: float, thresholds: Floats) -> Floats:
        """Return for each threshold the mean of two shares: one voice taken for two, and two for one."""
        certainty = EmbeddingSpace("", threshold=1.0, chance_s=chance_s).certainty(self.clean_s).prod(axis=1)
        is_one = self.voices[:, 0] == self.voices[:, 1]
        one, two = (np.sort((self.cosine / certainty)[rows]) for rows in (is_one, ~is_one))
        missed = np.searchsorted(one, thresholds) / len(one)
        taken = 1 - np.searchsorted(two, thresholds) / len(two)
        mean: Floats = (missed + taken) / 2
        return mean


def print_thresholds(pairs: Pairs, space: EmbeddingSpace) -> None:
    """Print how often two parts are told rightly, with numbers of other voices and with those set."""
    n_one = np.count_nonzero(pairs.voices[:, 0] == pairs.voices[:, 1])
    divided = [(pairs.among(fitted_on), pairs.among(others)) for fitted_on, others in halves()]
    print(f"\n## Threshold: {n_one} pairs of one voice, {len(pairs.cosine) - n_one} of two\n")
    print(
        f"| `chance_s` | threshold fitted (least to most) | error, fitted on | others | others at {space.threshold:g} |"
    )
    print("|---|---|---|---|---|")
    for chance_s in CHANCES_S:
        fits = [_fit_threshold(own, others, chance_s, space.threshold) for own, others in divided]
        chosen, own_error, other_error, at_set = np.array(fits).T
        spread = f"{np.median(chosen):.2f} ({chosen.min():.2f} to {chosen.max():.2f})"
        print(
            f"| {chance_s:g} s | {spread} | {own_error.mean():.2%} | {other_error.mean():.2%} | {at_set.mean():.2%} |"
        )
    errors = pairs.errors(space.chance_s, THRESHOLDS)
    good, (at_set,) = (
        THRESHOLDS[errors <= errors.min() + NEAR],
        pairs.errors(space.chance_s, np.array([space.threshold])),
    )
    print(f"\nAll voices, {space.chance_s:g} s: {errors.min():.2%} at best, at most {NEAR:.1%} more from")
    print(f"{good.min():.2f} to {good.max():.2f}, {at_set:.2%} at {space.threshold:g}, as set.")


def _fit_threshold(own: Pairs, others: Pairs, chance_s: float, as_set: float) -> tuple[float, float, float, float]:
    errors = own.errors(chance_s, THRESHOLDS)
    best = np.flatnonzero(errors <= errors.min() + 1e-9)
    at = int(best[len(best) // 2])  # the middle of the best ones
    fitted = float(THRESHOLDS[at])
    other_error, at_set = others.errors(chance_s, np.array([fitted, as_set])).tolist()
    return fitted, float(errors[at]), other_error, at_set


@dataclass(frozen=True, eq=False)
class Compared:
    """Parts with little speech, and how near each is to each of some voices. All arrays have a row for each part."""

    own: Numbers
    """The column of its own voice; -1 where that is not among them."""
    products: Floats
    likeness: Floats
    """The cosine, in parts of the least one that two means of one voice must have."""

    @classmethod
    def of(cls, condition: Sequence[Spoken], voices: Numbers, space: EmbeddingSpace, *, with_own: bool) -> Compared:
        """Compare all parts of these voices with them: with their own by what it says in other utterances."""
        own, products, likeness = list[int](), list[Floats](), list[Floats]()
        all_of = {number: condition[number].centroid() for number in voices.tolist()}
        for number, length_s in product(voices.tolist(), LITTLE_S):
            listed = [n for n in voices.tolist() if with_own or n != number]
            for part in condition[number].parts(length_s):
                rows = [condition[n].centroid(part.utterances) if n == number else all_of[n] for n in listed]
                own.append(listed.index(number) if with_own else -1)
                products.append(np.array(rows) @ part.total)
                likeness.append(products[-1] / np.linalg.norm(part.total) / space.least_cosine(part.clean_s))
        return cls(np.array(own), np.array(products), np.array(likeness))

    def log_likelihood(self, nats_per_s: float) -> float:
        """Return the mean log-likelihood of the own voice among those compared."""
        nats = nats_per_s * self.products
        return float(np.mean(nats[np.arange(len(nats)), self.own] - np.logaddexp.reduce(nats, axis=1)))

    def choose(self, nats_per_s: float, margin_nats: float, likeness: float) -> Numbers:
        """Return the column of the voice that each gets; -1 where it gets none."""
        best, rows = self.products.argmax(axis=1), np.arange(len(self.products))
        ahead = nats_per_s * np.diff(np.sort(self.products, axis=1)[:, -2:], axis=1)[:, 0]
        chosen: Numbers = np.where((ahead >= margin_nats) & (self.likeness[rows, best] >= likeness), best, -1)
        return chosen


def print_little(conditions: Sequence[Sequence[Spoken]], space: EmbeddingSpace) -> None:
    """Print how sharp pieces are, and which voice one to three of them get."""
    fitted, at_fitted, at_set = list[float](), list[float](), list[float]()
    known, strangers = list[Compared](), list[Compared]()
    for fitted_on, others in list(halves())[::4]:
        seen = [Compared.of(condition, fitted_on, space, with_own=True) for condition in conditions]
        unseen = [Compared.of(condition, others, space, with_own=True) for condition in conditions]
        fitted.append(float(NATS[np.argmax([np.mean([c.log_likelihood(nats) for c in seen]) for nats in NATS])]))
        at_fitted.append(float(np.mean([c.log_likelihood(fitted[-1]) for c in unseen])))
        at_set.append(float(np.mean([c.log_likelihood(space.nats_per_s) for c in unseen])))
        known += unseen
        strangers += [Compared.of(condition, others, space, with_own=False) for condition in conditions]
    print(f"\n## Little speech, {' to '.join(f'{s:g}' for s in LITTLE_S[::2])} s\n")
    print(
        f"Nats fitted: {np.median(fitted):.0f} ({min(fitted):.0f} to {max(fitted):.0f}). Mean log-likelihood of others:"
    )
    print(f"{np.mean(at_fitted):.4f} with these, {np.mean(at_set):.4f} with the {space.nats_per_s:g} set.\n")
    print("| margin, nats | likeness asked | own voice found | wrong | strangers taken for a known voice |")
    print("|---|---|---|---|---|")
    for margin, asked in product(MARGINS, LIKENESSES):
        pairs = [(each.choose(space.nats_per_s, margin, asked), each.own) for each in known]
        found = np.mean(np.concatenate([chosen == own for chosen, own in pairs]))
        wrong = np.mean(np.concatenate([(chosen >= 0) & (chosen != own) for chosen, own in pairs]))
        taken = np.mean(np.concatenate([each.choose(space.nats_per_s, margin, asked) >= 0 for each in strangers]))
        mark = "**" if margin == PieceRules().margin_nats and asked == 1.0 else ""
        cells = (f"{margin:g}", f"{asked:g}", f"{found:.1%}", f"{wrong:.2%}", f"{taken:.1%}")
        print(f"| {' | '.join(f'{mark}{cell}{mark}' for cell in cells)} |")


if __name__ == "__main__":
    main()
