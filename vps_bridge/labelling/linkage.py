"""Average linkage: which two groups of embeddings are most similar, while groups merge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Linkage:
    """The mean cosine similarity between groups, kept up to date while they merge.

    That of a merged group is the weighted mean of those of its parts (Lance and Williams), and so is -inf, which means
    that two may not be joined.
    """

    def __init__(self, means: Array, weights: Array, blocked: NDArray[np.bool_]) -> None:
        """Start with groups of these mean embeddings.

        Args:
            means: shape ``(groups, dim)``, of embeddings at unit length.
            weights: how much each counts, shape ``(groups,)``.
            blocked: the pairs that may not merge, shape ``(groups, groups)``; also each group with itself.
        """
        self._weights = weights
        # Rounded, so that two equally similar pairs stay equal in whatever order their members were added up.
        self._similarity = np.where(blocked, -np.inf, np.round(means @ means.T, 9))
        self._nearest = self._similarity.argmax(axis=1)  # of each row
        self._highest = self._similarity.max(axis=1)

    def best(self) -> tuple[float, int, int]:
        """Return the similarity and the rows of the most similar pair that may merge; -inf where there is none.

        Of several equally similar pairs it is the earliest.
        """
        i = int(self._highest.argmax())
        return float(self._highest[i]), i, int(self._nearest[i])

    def merge(self, i: int, j: int) -> None:
        """Join the groups of two rows; row `i` is that of both from now on."""
        total = self._weights[i] + self._weights[j]
        row = (self._weights[i] * self._similarity[i] + self._weights[j] * self._similarity[j]) / total
        row = np.round(row, 9)
        row[j] = -np.inf
        self._weights[i] = total
        self._similarity[i] = self._similarity[:, i] = row
        self._similarity[j] = self._similarity[:, j] = -np.inf
        is_nearer = (row > self._highest) | ((row == self._highest) & (i < self._nearest))
        is_stale = ((self._nearest == i) | (self._nearest == j)) & (self._highest > -np.inf) & ~is_nearer
        self._nearest[is_nearer], self._highest[is_nearer] = i, row[is_nearer]
        is_stale[[i, j]] = True
        changed = np.flatnonzero(is_stale)
        self._nearest[changed] = self._similarity[changed].argmax(axis=1)
        self._highest[changed] = self._similarity[changed, self._nearest[changed]]
