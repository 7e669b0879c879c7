"""Reconstruct who speaks at each frame from labelled pieces, and convert it to turns. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mac_agent.engines.engine import Turn
from mac_agent.engines.frames import frame_time_s
from mac_agent.engines.tracks import ACTIVE, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mac_agent.engines.frames import WindowGrid
    from mac_agent.engines.tracks import Piece, Track

FAINT = 0.05  # a speaker whose strength at a frame is below one window in twenty is not speaking there


def count_speakers(scores: NDArray[np.float16], grid: WindowGrid) -> NDArray[np.int8]:
    """Return how many speak at each frame: the rounded mean over the windows that contain it, shape ``(frames,)``."""
    total = np.zeros(grid.covered_frames(len(scores)), dtype=np.float32)
    for window, score in enumerate(scores):
        total[grid.frames_of(window)] += (score > ACTIVE).sum(axis=1)
    rounded: NDArray[np.int8] = np.rint(total / windows_per_frame(len(scores), grid)).astype(np.int8)
    return rounded


def expect_speakers(scores: NDArray[np.float16], grid: WindowGrid) -> NDArray[np.int8]:
    """Return how many speak at each frame: the rounded sum of the probabilities, averaged over its windows.

    Where one window is sure and another is not, each counts with its probability, not as a vote.
    """
    total = np.zeros(grid.covered_frames(len(scores)), dtype=np.float32)
    for window, score in enumerate(scores):
        total[grid.frames_of(window)] += score.astype(np.float32).sum(axis=1)
    rounded: NDArray[np.int8] = np.rint(total / windows_per_frame(len(scores), grid)).astype(np.int8)
    return rounded


def windows_per_frame(n_windows: int, grid: WindowGrid) -> NDArray[np.float32]:
    """Return how many windows contain each frame, shape ``(frames,)``."""
    windows = np.zeros(grid.covered_frames(n_windows), dtype=np.float32)
    for window in range(n_windows):
        windows[grid.frames_of(window)] += 1
    return windows


def activity(
    n_windows: int, grid: WindowGrid, tracks: Sequence[Track], pieces: Sequence[Piece], labels: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return the strength of each speaker at each frame: the mean score over the windows, ``(frames, speakers)``."""
    windows = windows_per_frame(n_windows, grid)
    strength = np.zeros((len(windows), int(labels.max(initial=-1)) + 1), dtype=np.float32)
    for piece, label in zip(pieces, labels.tolist(), strict=True):
        track = tracks[piece.track]
        span = track.total[piece.first - track.first_frame : piece.last - track.first_frame]
        strength[piece.first : piece.last, label] += span
    return strength / windows[:, None]


def speaking(strength: NDArray[np.float32], count: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Choose at each frame the ``count`` speakers of the greatest strength, shape ``(frames, speakers)``."""
    chosen = np.zeros(strength.shape, dtype=bool)
    order = np.argsort(-strength, axis=1, kind="stable")
    for rank in range(min(int(count.max(initial=0)), strength.shape[1])):
        frames = np.flatnonzero(count > rank)
        chosen[frames, order[frames, rank]] = True
    return chosen & (strength > FAINT)


def as_turns(chosen: NDArray[np.bool_], names: Sequence[str], duration_s: float) -> tuple[Turn, ...]:
    """Convert each speaker's runs of frames to turns, sorted by start."""
    turns = [
        Turn(frame_time_s(first, duration_s), frame_time_s(last, duration_s), names[speaker])
        for speaker in range(chosen.shape[1])
        for first, last in runs(chosen[:, speaker])
    ]
    kept = (turn for turn in turns if turn.end_s > turn.start_s)
    return tuple(sorted(kept, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker)))


def strongest(chosen: NDArray[np.bool_], strength: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Keep, where several speak at once, only the speaker of the greatest strength."""
    alone = np.zeros_like(chosen)
    if chosen.shape[1]:
        frames = np.flatnonzero(chosen.any(axis=1))
        alone[frames, np.where(chosen[frames], strength[frames], -1.0).argmax(axis=1)] = True
    return alone


def first_frames(chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the frame at which each speaker first speaks; the number of frames for one that never speaks."""
    return np.where(chosen.any(axis=0), chosen.argmax(axis=0), len(chosen))
