"""Voice samples: an embedding for each short piece of speech, with which all jobs of a conversation are clustered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SAMPLES = 1_500  # what a result message holds; a job of 120 s has 110 windows with 1 to 3 speakers each
STEP_S = 0.1


@dataclass(frozen=True, eq=False)
class SpeechSamples:
    """The samples of one recording, sorted by start; all arrays have a row for each."""

    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    clean_s: NDArray[np.float64]
    """Seconds in which nobody else speaks."""
    embeddings: NDArray[np.float32]
    """Shape ``(samples, dim)``, as the network gave them."""
    speech: NDArray[np.bool_] | None = None
    """Whether the speaker speaks in each ``STEP_S`` from the start on; None where it does from start to end."""
    plda: NDArray[np.float64] | None = None
    """The embeddings in the space of the pipeline's PLDA, shape ``(samples, 128)``."""
    phi: NDArray[np.float64] | None = None
    """The between-speaker variances of that space, shape ``(128,)``."""
    every: int = 1
    """Of how many windows one was kept."""

    def __len__(self) -> int:
        return len(self.start_s)

    def keep(self, rows: NDArray[np.bool_]) -> SpeechSamples:
        """Return some of the samples."""
        return replace(
            self,
            start_s=self.start_s[rows],
            end_s=self.end_s[rows],
            clean_s=self.clean_s[rows],
            embeddings=self.embeddings[rows],
            speech=None if self.speech is None else self.speech[rows],
            plda=None if self.plda is None else self.plda[rows],
        )

    def thin(self, most: int = MOST_SAMPLES) -> SpeechSamples:
        """Return at most so many samples: those of every n-th window, with the smallest n that is enough."""
        window = np.unique(self.start_s, return_inverse=True)[1]
        for every in range(max(1, len(self) // max(most, 1)), len(self) + 1):
            rows = window % every == 0
            if np.count_nonzero(rows) <= most:
                return replace(self.keep(rows), every=self.every * every)
        return self.keep(np.zeros(len(self), dtype=bool))


def sample_windows(
    segmentations: NDArray[np.float32], embeddings: NDArray[np.float32], *, window_s: float, hop_s: float
) -> SpeechSamples:
    """Return a sample for every window and slot that speaks and has a finite embedding.

    Args:
        segmentations: 0 or 1 (NaN is 0), shape ``(windows, frames, slots)``.
        embeddings: shape ``(windows, slots, dim)``.
        window_s: length of a window.
        hop_s: from the start of one window to that of the next.
    """
    spoken = np.nan_to_num(segmentations) > 0.5  # noqa: PLR2004 - halfway between silence and speech
    n_frames = spoken.shape[1]
    alone_s = (spoken & (spoken.sum(axis=2, keepdims=True) == 1)).sum(axis=1) * window_s / n_frames
    edges = np.linspace(0, n_frames, round(window_s / STEP_S), endpoint=False).astype(int)
    in_step = np.add.reduceat(spoken.astype(np.int32), edges, axis=1)
    speech = 2 * in_step >= np.diff(edges, append=n_frames)[:, None]
    window, slot = np.nonzero(spoken.any(axis=1) & np.isfinite(embeddings).all(axis=2))
    return SpeechSamples(
        start_s=(window * hop_s).astype(np.float64),
        end_s=(window * hop_s + window_s).astype(np.float64),
        clean_s=alone_s[window, slot],
        embeddings=embeddings[window, slot],
        speech=speech[window, :, slot],
    )
