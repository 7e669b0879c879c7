"""Scoring what people were shown of a conversation: labels in steps of 10 ms, at first, at last and in between."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

STEP_S = 0.01

Spoken = dict[Hashable, NDArray[np.bool_]]
"""By speaker, whether it speaks in each step."""


def to_steps(turns: Iterable[tuple[float, float, Hashable]], n_steps: int) -> Spoken:
    """Return turns (start_s, end_s, speaker) as steps."""
    spoken: Spoken = {}
    for start_s, end_s, who in turns:
        row = spoken.setdefault(who, np.zeros(n_steps, dtype=bool))
        row[max(0, round(start_s / STEP_S)) : max(0, round(end_s / STEP_S))] = True
    return spoken


def error_rate(reference: Spoken, found: Spoken, heard: NDArray[np.bool_]) -> float:
    """Return the diarization error rate over the steps heard: no collar, overlap scored."""
    truth, named = _stack(reference, heard), _stack(found, heard)
    n_truth, n_named = truth.sum(axis=0), named.sum(axis=0)
    together = truth.astype(np.float32) @ named.astype(np.float32).T
    right = together[linear_sum_assignment(-together)].sum()
    return float((np.maximum(n_truth, n_named).sum() - right) / max(1, n_truth.sum()))


def _stack(spoken: Spoken, heard: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows = [row & heard for row in spoken.values()]
    return np.array(rows) if rows else np.zeros((1, len(heard)), dtype=bool)


@dataclass
class ShownLabels:
    """What was shown while a conversation went on."""

    n_steps: int
    first: Spoken = field(default_factory=dict)
    """What each step was shown under when it got its first label."""
    last: Spoken = field(default_factory=dict)
    _ever: NDArray[np.bool_] = field(init=False)
    _changed: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._ever, self._changed = np.zeros(self.n_steps, dtype=bool), np.zeros(self.n_steps, dtype=bool)

    def show(self, labels: Spoken) -> None:
        """Show these labels instead of the last ones."""
        nothing = np.zeros(self.n_steps, dtype=bool)
        for who, before in self.last.items():
            self._changed |= before & ~labels.get(who, nothing)
        now = np.any(list(labels.values()), axis=0) if labels else nothing
        for who, row in labels.items():
            self.first[who] = self.first.get(who, nothing) | (row & ~self._ever)
        self._ever |= now
        self.last = labels

    @property
    def changed_share(self) -> float:
        """Share of the steps ever labelled whose label was taken away or became another, at any time."""
        return float(self._changed.sum() / max(1, self._ever.sum()))
