"""The voice samples that are clustered together, and the rules of that; apart from `cluster`, which needs scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]


@dataclass(frozen=True)
class SampleRules:
    """How voice samples are clustered. The numbers of VBx are those of community-1's published configuration."""

    max_clustered: int = 2_000
    """More samples than this are merged first, the most alike of each job."""
    min_clean_s: float = 2.0
    """Samples with less clean speech get a voice but make none: 20 % of the window, as in pyannote."""
    start_distance: float = 0.6
    """Euclidean, between embeddings of unit length."""
    fa: float = 0.07
    fb: float = 0.8
    max_rounds: int = 20
    min_gain: float = 1e-4
    """VBx ends where a round gains less."""
    start_sharpness: float = 7.0
    min_share: float = 1e-7
    """A voice with a smaller share of the samples is none."""


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Samples that can be compared: of one embedding model, job by job. All arrays have a row for each."""

    job: Labels
    """Index of the job."""
    start_s: Floats
    """Start in the job; samples of one job with one start are of one window."""
    clean_s: Floats
    weight: Floats
    """Of how many windows this is the sample."""
    embeddings: NDArray[np.float32]
    plda: NDArray[np.float32]
    phi: Floats

    def __len__(self) -> int:
        return len(self.job)


def unit_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the rows at length 1; a row of zeros stays."""
    scaled: NDArray[Any] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return scaled
