"""Pieces of one person's speech with their embeddings, of which voices of any length are put together.

The networks run once over all utterances of a person. The vector that the engine would send for some of them is the
mean of their pieces, weighed as in `mac_agent.engines.embedded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.people.copies import COPIES
from benchmarks.recordings import SAMPLE_RATE_HZ, Recording, utterances
from mac_agent.engines.clustering import FULL_PIECE_S
from mac_agent.engines.embedded import StageTimer
from mac_agent.engines.frames import FIRST_FRAME_START_S, FRAME_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mac_agent.engines.embedded import EmbeddedEngine

PAUSE_S = 0.5


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of one person's speech in one copy, in order of time."""

    vectors: NDArray[np.float32]
    weights: NDArray[np.float64]
    clean_s: NDArray[np.float64]
    utterance: NDArray[np.int64]

    def voice(self, rows: Sequence[int]) -> tuple[NDArray[np.float32], float]:
        """Return the vector and the clean seconds of some of the pieces, as one speaker of a job."""
        total = self.weights[rows] @ self.vectors[rows].astype(np.float64)
        return (total / np.linalg.norm(total)).astype(np.float32), float(self.clean_s[rows].sum())

    def rows(self, numbers: Iterable[int], most_s: float = np.inf) -> list[int]:
        """Return the pieces of some utterances, in the order given, up to so much clean speech."""
        found: list[int] = []
        for number in numbers:
            for row in np.flatnonzero(self.utterance == number).tolist():
                if found and self.clean_s[found].sum() >= most_s - self.clean_s[row] / 2:
                    return found
                found.append(row)
        return found


def solo(voice: str) -> Recording:
    """One person's utterances with pauses between; the reference names their numbers instead of speakers."""
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE_HZ), dtype=np.float32)
    parts: list[NDArray[np.float32]] = []
    reference: list[tuple[float, float, str]] = []
    at = 0
    for number, speech in enumerate(utterances(voice)):
        reference.append((at / SAMPLE_RATE_HZ, (at + len(speech)) / SAMPLE_RATE_HZ, str(number)))
        parts += [speech, pause]
        at += len(speech) + len(pause)
    return Recording(voice, np.concatenate(parts), tuple(reference))


def embed(engine: EmbeddedEngine, recording: Recording) -> Pieces:
    """Return the pieces that the engine finds in a recording of one person."""
    output = engine.run_networks(recording.waveform, lambda *_: None, StageTimer())
    if output is None:
        raise ValueError(f"Nobody is heard in {recording.name}.")
    evidence = output.evidence
    middle_s = FIRST_FRAME_START_S + FRAME_S * np.array([(each.first + each.last) / 2 for each in evidence.pieces])
    begins = np.array([start_s for start_s, _, _ in recording.reference])
    return Pieces(
        vectors=evidence.embeddings,
        weights=evidence.clean_s * np.minimum(evidence.audio_s / FULL_PIECE_S, 1.0),
        clean_s=evidence.clean_s,
        utterance=np.maximum(np.searchsorted(begins, middle_s) - 1, 0),
    )


def embed_all(
    engine: EmbeddedEngine, names: Sequence[str], cache: Path, who: Sequence[str], *, seeds: int = 2
) -> dict[str, dict[str, Pieces]]:
    """Return the pieces of LibriSpeech voices, by copy and voice; what lies in the cache is not made again.

    Each voice has its own seed of rooms and noise in each of `seeds` sets, so that nobody is known by the room.
    """
    found: dict[str, dict[str, Pieces]] = {}
    for name in names:
        for number, voice in enumerate(who):
            path = cache / f"{engine.info.name} {name} {voice}.npz"
            if not path.is_file():
                pieces = embed(engine, COPIES[name](solo(voice), number % seeds))
                np.savez(path, **vars(pieces))
            with np.load(path) as kept:
                found.setdefault(name, {})[voice] = Pieces(**kept)
    return found
