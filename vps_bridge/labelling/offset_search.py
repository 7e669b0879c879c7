"""Searching: at which offsets the speech of some audio and a transcript lie at the same moments.

Both are turned into signals in steps of 0.1 s: their activity, less the mean of the 10 s around, and their edges, where
speech begins or ends. So a pause in dense speech weighs much, and speech in dense speech little. What speaks for an
offset is the log likelihood ratio, in nats, of Gaussian signals with the correlation r of real pairs against signals
with none: for each step (r x y - r^2 (x^2 + y^2) / 2) / (1 - r^2) - log(1 - r^2) / 2, summed over both signals. It is
counted in blocks of 5 s, and a block says no more than `MAX_BLOCK_NATS` for an offset or against it, so that only
agreement in several places, at several pauses, makes an offset likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vps_bridge.labelling.audio_clock import Span

STEP_S = 0.1
BLOCK_STEPS = 50
BLOCK_S = STEP_S * BLOCK_STEPS
MAX_BLOCK_NATS = 4.0
WORD_CORRELATIONS = (0.6, 0.55)
"""Of activity and of edges, between real turns and real words at the right offset."""
SEGMENT_CORRELATIONS = (0.45, 0.4)
"""The same for segments without word times."""
_INDEPENDENT_STEPS = 8.0
"""One independent observation in so many steps: what makes the nats of unrelated speech those of chance."""
_REACH_STEPS = 50
"""So far on either side reaches the mean that is taken off the activity."""
_EDGE_STEPS = 3
_PARTNERS = [0, 1, 3, 2]  # each row is multiplied with this one of the other signal

Array = NDArray[np.float32]
Spectrum = NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True, eq=False)
class ActivitySignal:
    """When somebody speaks, from `origin_s` on, in steps of 0.1 s; zeros where nothing is known."""

    origin_s: float
    rows: Array
    """Shape (4, steps): activity, edges, what their energy costs, and where anything is known; scaled so that the nats
    of two signals are a sum of products (`step_nats`)."""

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return int(self.rows.shape[1])


def measure_activity(
    speech: Sequence[Span],
    known: Sequence[Span],
    origin_s: float,
    steps: int,
    correlations: tuple[float, float] = WORD_CORRELATIONS,
) -> ActivitySignal:
    """Return the signal of `steps` steps from `origin_s` on; outside the `known` spans nothing is known.

    Signals that are compared must be measured for the same correlations.
    """
    mask = _cover(known, origin_s, steps)
    active = _cover(speech, origin_s, steps) * mask
    sums = _running_sums(np.stack((mask, active)))
    known_around, active_around = _sum_around(sums, _REACH_STEPS)
    activity = (active - active_around / np.maximum(known_around, 1.0)) * mask
    edges = _edges(sums[1]) * (_sum_around(sums[0], _EDGE_STEPS) == 2 * _EDGE_STEPS)
    factors, costs, certain = _weigh(correlations)
    near_speech = float((mask * (active_around > 0)).sum())
    rows = _scale(np.stack((activity, edges)), near_speech) * factors
    energy = -(costs * rows**2).sum(axis=0)
    both = np.stack([*rows, energy / certain, mask * certain])
    return ActivitySignal(origin_s, both.astype(np.float32))


@lru_cache(maxsize=2)
def _weigh(correlations: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return what signals are multiplied with, what their squares cost, and the root of what every step is worth."""
    r = np.asarray(correlations)[:, None]
    certain = -0.5 * np.log(1 - r**2) / _INDEPENDENT_STEPS
    return np.sqrt(r / (1 - r**2) / _INDEPENDENT_STEPS), 0.5 * r, float(np.sqrt(certain.sum()))


def search_offsets(audio: ActivitySignal, transcript: ActivitySignal) -> tuple[NDArray[np.float64], Array]:
    """Return offsets in seconds, and the nats for each, blocks not bounded: every offset at which the two overlap.

    An offset is what is added to seconds of the audio to get seconds of the transcript.
    """
    count = audio.steps + transcript.steps
    size = 1 << (count - 1).bit_length()
    spectrum = _likelihood(np.fft.rfft(audio.rows, size), np.fft.rfft(transcript.rows, size))
    nats = np.fft.irfft(spectrum, size)
    shifts = np.arange(-audio.steps + 1, transcript.steps)
    first_s = transcript.origin_s - audio.origin_s
    return np.asarray(first_s + shifts * STEP_S, np.float64), nats[shifts].astype(np.float32)


def block_nats(audio: ActivitySignal, transcript: ActivitySignal, offsets_s: NDArray[np.float64]) -> Array:
    """Return the nats of each block of audio at each offset, bounded; shape (blocks, offsets)."""
    blocks = -(-audio.steps // BLOCK_STEPS)
    steps = blocks * BLOCK_STEPS
    shifts = np.rint((audio.origin_s + offsets_s - transcript.origin_s) / STEP_S)
    shifts = shifts.clip(-steps, transcript.steps).astype(int)  # beyond these there is nothing to compare
    first, last = int(shifts.min()), int(shifts.max())
    ours = _window(audio.rows, 0, steps)[:, None]
    reached = _window(transcript.rows, first, last - first + steps)
    theirs = np.lib.stride_tricks.sliding_window_view(reached, steps, axis=1)[:, shifts - first]
    nats = (ours * theirs[_PARTNERS]).sum(axis=0) + ours[3] * theirs[3]
    found = nats.reshape(len(shifts), blocks, BLOCK_STEPS).sum(axis=2).T
    return np.asarray(found.clip(-MAX_BLOCK_NATS, MAX_BLOCK_NATS), np.float32)


def step_nats(audio: ActivitySignal, transcript: ActivitySignal, offset_s: float, first: int, last: int) -> Array:
    """Return the nats of each step of audio from `first` to before `last` at one offset; 0 where one is unknown."""
    shift = round((audio.origin_s + offset_s - transcript.origin_s) / STEP_S)
    ours, theirs = (
        _window(signal.rows, begin, last - first) for signal, begin in ((audio, first), (transcript, first + shift))
    )
    return np.asarray((ours * theirs[_PARTNERS]).sum(axis=0) + ours[3] * theirs[3], np.float32)


def block_nats_around(audio: ActivitySignal, transcript: ActivitySignal, offset_s: float, reach_steps: int) -> Array:
    """Return the same for every offset within `reach_steps` of one; shape (blocks, 2 * reach_steps + 1)."""
    blocks = -(-audio.steps // BLOCK_STEPS)
    padded = np.zeros((4, blocks * BLOCK_STEPS), np.float32)
    padded[:, : audio.steps] = audio.rows
    first = round((audio.origin_s + offset_s - transcript.origin_s) / STEP_S) - reach_steps
    width = BLOCK_STEPS + 2 * reach_steps
    other = _window(transcript.rows, first, padded.shape[1] + 2 * reach_steps)
    windows = np.lib.stride_tricks.sliding_window_view(other, width, axis=1)[:, ::BLOCK_STEPS]
    size = 1 << (width - 1).bit_length()
    pieces = padded.reshape(4, blocks, BLOCK_STEPS)
    nats = np.fft.irfft(_likelihood(np.fft.rfft(pieces, size), np.fft.rfft(windows, size)), size)
    return np.clip(nats[:, : 2 * reach_steps + 1], -MAX_BLOCK_NATS, MAX_BLOCK_NATS).astype(np.float32)


def _likelihood(audio: Spectrum, transcript: Spectrum) -> Spectrum:
    """Return the spectrum of the nats at every shift of the audio along the transcript."""
    products = np.conj(audio) * transcript[_PARTNERS]
    return np.asarray(products.sum(axis=0) + np.conj(audio[3]) * transcript[3])


def _window(rows: Array, first: int, steps: int) -> Array:
    """Return `steps` steps from `first` on, zeros beyond both ends."""
    found = np.zeros((len(rows), steps), np.float32)
    begin, end = max(0, first), min(rows.shape[1], first + steps)
    if end > begin:
        found[:, begin - first : end - first] = rows[:, begin:end]
    return found


def _cover(spans: Sequence[Span], origin_s: float, steps: int) -> NDArray[np.float64]:
    """Return 1 for every step that a span covers, else 0."""
    if not spans:
        return np.zeros(steps)
    bounds = np.minimum(np.maximum(np.rint((np.asarray(spans) - origin_s) / STEP_S), 0), steps).astype(int)
    begun, ended = (np.bincount(column, minlength=steps + 1)[:steps] for column in bounds.T)
    return (np.cumsum(begun - ended) > 0).astype(float)


def _running_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of what lies before each step and after the last, for rows of steps.

    On either side follow `_REACH_STEPS` more, as if nothing lay there.
    """
    begin, end = _REACH_STEPS + 1, _REACH_STEPS + 1 + values.shape[-1]
    sums = np.zeros((*values.shape[:-1], end + _REACH_STEPS))
    np.cumsum(values, axis=-1, out=sums[..., begin:end])
    sums[..., end:] = sums[..., end - 1 : end]
    return sums


def _sum_around(sums: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Return the sum over `half` steps on either side of each step, of running sums."""
    return _from(sums, half) - _from(sums, -half)


def _edges(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much more speech is in the 0.3 s behind each step than in the 0.3 s before it."""
    return _from(sums, _EDGE_STEPS) - 2 * _from(sums, 0) + _from(sums, -_EDGE_STEPS)


def _from(sums: NDArray[np.float64], moved: int) -> NDArray[np.float64]:
    """Return for each step the running sum `moved` steps later."""
    begin, steps = _REACH_STEPS + moved, sums.shape[-1] - 2 * _REACH_STEPS - 1
    return sums[..., begin : begin + steps]


def _scale(rows: NDArray[np.float64], near_speech: float) -> NDArray[np.float64]:
    """Return rows of variance 1 over so many steps, those near speech; all 0 where they never change.

    Minutes of silence do not count: over them the same speech would weigh more the longer they last, and small
    differences in it would speak against the right offset.
    """
    spreads = np.sqrt((rows**2).sum(axis=-1, keepdims=True) / max(1.0, near_speech))
    return np.asarray(rows / np.where(spreads > 0, spreads, 1.0))
