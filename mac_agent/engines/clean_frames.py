"""Choose the feature frames, a hundred a second, in which one voice is heard alone. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mac_agent.engines.frames import FIRST_FRAME_START_S, FRAME_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mac_agent.engines.tracks import Piece

FRAMES_PER_S = 100  # of the features of both speaker networks
_LEAST_CLEAN_S = 0.2  # in an utterance with less clean speech, all of it is used, overlap included


def count_talkers(pieces: Sequence[Piece]) -> NDArray[np.int16]:
    """Return how many pieces sound at each frame of the segmentation."""
    talkers = np.zeros(max((piece.last for piece in pieces), default=0), dtype=np.int16)
    for piece in pieces:
        talkers[piece.first : piece.last] += 1
    return talkers


def clean_seconds(piece: Piece, talkers: NDArray[np.integer]) -> float:
    """Return the seconds of a piece in which nobody else speaks."""
    return float(np.count_nonzero(talkers[piece.first : piece.last] == 1)) * FRAME_S


def find_clean_frames(first: int, last: int, talkers: NDArray[np.integer], n_frames: int) -> NDArray[np.intp]:
    """Return the feature frames of an utterance in which only one voice speaks, at least one frame.

    Args:
        first: first frame of the utterance in the segmentation.
        last: one past its last.
        talkers: how many speak at each frame of the segmentation.
        n_frames: how many feature frames the recording has.
    """
    start_s, end_s = (FIRST_FRAME_START_S + frame * FRAME_S for frame in (first, last))
    spoken = np.arange(int(np.ceil(start_s * FRAMES_PER_S)), int(end_s * FRAMES_PER_S))
    spoken = spoken[spoken < n_frames]
    if len(spoken) == 0:
        return np.array([min(n_frames - 1, int(start_s * FRAMES_PER_S))])
    alone = talkers[first:last] == 1
    if np.count_nonzero(alone) * FRAME_S < _LEAST_CLEAN_S:
        return spoken
    frame = ((spoken / FRAMES_PER_S - FIRST_FRAME_START_S) / FRAME_S).astype(int) - first
    clean = spoken[alone[np.clip(frame, 0, last - first - 1)]]
    return clean if len(clean) else spoken


def frames_around(frames: NDArray[np.intp], piece: Piece, most: int) -> slice:
    """Return which of an utterance's feature frames lie around the middle of a piece, at most so many."""
    centre = (FIRST_FRAME_START_S + (piece.first + piece.last) / 2 * FRAME_S) * FRAMES_PER_S
    middle = int(np.searchsorted(frames, centre))
    start = max(0, min(middle - most // 2, len(frames) - most))
    return slice(start, min(start + most, len(frames)))
