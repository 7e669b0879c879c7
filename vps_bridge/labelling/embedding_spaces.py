"""How embeddings are compared, by the model that they are of: each has a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_CLEAN_S = 0.5
"""Less clean speech counts as this much: nothing is divided by zero."""


@dataclass(frozen=True)
class EmbeddingSpace:
    """The rules for the embeddings of one model. `docs/adr/0021-embedding-spaces.md` says how they were measured."""

    word: str
    """In the name of the model."""
    threshold: float
    """The least average cosine similarity of the parts of a voice, of which each has much clean speech."""
    chance_s: float = 0.0
    """With this many seconds of clean speech, chance is as large in a mean embedding as the voice is."""
    nats_per_s: float = 50.0
    """Log-likelihood of a unit of cosine for a second of clean speech: how sharply pieces tell voices apart."""

    def certainty(self, clean_s: Floats) -> Floats:
        """Return how large the cosine of a mean embedding of this much speech is, beside that of much speech.

        Two means of one voice that chance moves apart have the cosine of the voices times the certainty of both
        (Spearman's correction for attenuation, the other way round).
        """
        heard_s = np.maximum(clean_s, LEAST_CLEAN_S)
        certainty: Floats = np.sqrt(heard_s / (heard_s + self.chance_s))
        return certainty

    def least_cosine(self, *clean_s: float) -> float:
        """Return the least cosine of two means of one voice that have these seconds of clean speech."""
        return float(self.threshold * np.prod(self.certainty(np.array(clean_s))))


MEASURED = (
    EmbeddingSpace("wespeaker", threshold=0.52),
    EmbeddingSpace("resemblyzer", threshold=0.78),
    EmbeddingSpace("campplus", threshold=0.54, chance_s=1.0, nats_per_s=27.0),
)
UNMEASURED = EmbeddingSpace("", threshold=0.8)
"""A model that was not measured gets a cautious threshold."""


def space_of(model: str) -> EmbeddingSpace:
    """Return the rules for an embedding model, by its name and revision."""
    name = model.lower()
    return next((space for space in MEASURED if space.word in name), UNMEASURED)
