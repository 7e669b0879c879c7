"""Follow local speakers from window to window, and cut the tracks into pieces of one voice. Pure functions.

A *track* is a local speaker followed through overlapping windows. Within a window the network separates voices well;
over minutes a track drifts from one voice to another, mostly at pauses. So clustering works on *pieces*: at most 0.8 s
of one track, never across a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

import numpy as np

from mac_agent.engines.frames import LOCAL_SPEAKERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mac_agent.engines.frames import WindowGrid

ACTIVE = 0.5  # the network was trained with binary cross-entropy: a score above one half means that somebody speaks
MAYBE_ACTIVE = 0.35  # where some windows hear a voice and others do not; how many speak is then decided elsewhere
SAME_TRACK = 0.5  # intersection over union on the shared 4.4 s; above half, "same speaker" is likelier than "another"
LEAST_ACTIVE_FRAMES = 3  # 0.05 s; less than that in a window of five seconds is noise
BRIDGED_FRAMES = 6  # 0.1 s: a closure inside a word, not a pause between utterances
LONGEST_PIECE_FRAMES = 48  # 0.8 s: half of the audio from which the encoder embeds the piece
_BLOCK_WINDOWS = 512

_PERMUTATIONS = np.array(list(permutations(range(LOCAL_SPEAKERS))))


@dataclass(frozen=True, eq=False)
class Track:
    """One local speaker followed through consecutive windows."""

    first_window: int
    last_window: int
    total: NDArray[np.float32]
    """Sum of its scores in all its windows, per frame from ``first_frame`` on."""
    windows: NDArray[np.int16]
    """How many of its windows cover each of these frames."""
    grid: WindowGrid

    @property
    def first_frame(self) -> int:
        """Frame of the recording at which ``total`` starts."""
        return self.grid.hop_frames * self.first_window


@dataclass(frozen=True)
class Piece:
    """A short stretch of one track in which it speaks without a pause."""

    track: int
    utterance: int
    """Pieces of one utterance follow each other without a pause."""
    first: int
    """First frame of the recording."""
    last: int
    """One past the last frame."""


def match_windows(scores: NDArray[np.float16], hop_frames: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Match the local speakers of each window with those of the next, on the frames that both windows contain.

    Args:
        scores: shape ``(windows, frames, 3)``.
        hop_frames: from one window to the next.

    Returns:
        For every window but the last, which local speaker of the next window each local speaker becomes, shape
        ``(windows - 1, 3)``, and how well they agree (soft intersection over union), same shape.
    """
    n_pairs = len(scores) - 1
    partner = np.empty((n_pairs, LOCAL_SPEAKERS), dtype=np.intp)
    agreement = np.empty((n_pairs, LOCAL_SPEAKERS), dtype=np.float32)
    for start in range(0, n_pairs, _BLOCK_WINDOWS):
        block = scores[start : min(start + _BLOCK_WINDOWS, n_pairs) + 1].astype(np.float32)
        block[block <= ACTIVE] = 0.0
        before, after = block[:-1, hop_frames:], block[1:, :-hop_frames]
        shape = (len(before), LOCAL_SPEAKERS, LOCAL_SPEAKERS)
        both, either = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        for left in range(LOCAL_SPEAKERS):
            for right in range(LOCAL_SPEAKERS):
                both[:, left, right] = np.minimum(before[..., left], after[..., right]).sum(axis=1)
                either[:, left, right] = np.maximum(before[..., left], after[..., right]).sum(axis=1)
        rows = np.arange(LOCAL_SPEAKERS)
        best = both[:, rows, _PERMUTATIONS].sum(axis=2).argmax(axis=1)
        chosen = _PERMUTATIONS[best]
        stop = start + len(before)
        partner[start:stop] = chosen
        index = np.arange(len(before))[:, None], rows, chosen
        agreement[start:stop] = both[index] / np.maximum(either[index], 1e-6)
    return partner, agreement


def follow(scores: NDArray[np.float16], grid: WindowGrid) -> list[Track]:
    """Return the tracks: each local speaker, followed for as long as neighbouring windows agree about it."""
    partner, agreement = match_windows(scores, grid.hop_frames)
    active = (scores > ACTIVE).sum(axis=1) >= LEAST_ACTIVE_FRAMES
    paths: list[tuple[int, list[int]]] = []
    current = np.full(LOCAL_SPEAKERS, -1)
    for window in range(len(scores)):
        following = np.full(LOCAL_SPEAKERS, -1)
        if window > 0:
            for left in range(LOCAL_SPEAKERS):
                if current[left] >= 0 and agreement[window - 1, left] >= SAME_TRACK:
                    following[partner[window - 1, left]] = current[left]
        for speaker in range(LOCAL_SPEAKERS):
            if not active[window, speaker]:
                following[speaker] = -1
            elif following[speaker] < 0:
                following[speaker] = len(paths)
                paths.append((window, [speaker]))
            else:
                paths[following[speaker]][1].append(speaker)
        current = following
    return [_gather(scores, grid, first, path) for first, path in paths]


def cut_pieces(tracks: list[Track], active: float = ACTIVE) -> list[Piece]:
    """Cut every track at its pauses, and each utterance into equal pieces of at most 0.8 s; sorted by track, time.

    Args:
        tracks: as `follow` returns them.
        active: the mean score of a track above which it speaks.
    """
    pieces: list[Piece] = []
    utterance = 0
    for number, track in enumerate(tracks):
        mean = track.total / np.maximum(track.windows, 1)
        for first, last in bridge(runs(mean > active), BRIDGED_FRAMES):
            parts = -(-(last - first) // LONGEST_PIECE_FRAMES)
            edges = np.linspace(first, last, parts + 1).round().astype(int) + track.first_frame
            pieces += [Piece(number, utterance, a, b) for a, b in pairwise(edges.tolist())]
            utterance += 1
    return pieces


def heard_shares(pieces: Sequence[Piece], tracks: Sequence[Track], windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for every piece the share of the windows around it in which its track exists.

    Where windows disagree, the same audio is on several tracks; the shares of its pieces add up to one.

    Args:
        pieces: cut from the tracks.
        tracks: as `follow` returns them.
        windows: how many windows contain each frame of the recording.
    """
    shares = np.empty(len(pieces))
    for number, piece in enumerate(pieces):
        track = tracks[piece.track]
        own = track.windows[piece.first - track.first_frame : piece.last - track.first_frame]
        shares[number] = np.mean(own / windows[piece.first : piece.last])
    return shares


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the (first, one past last) of every run of True."""
    steps = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))


def bridge(spans: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Join spans that are at most ``gap`` apart."""
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _gather(scores: NDArray[np.float16], grid: WindowGrid, first: int, path: list[int]) -> Track:
    length = grid.covered_frames(len(path))
    total = np.zeros(length, dtype=np.float32)
    windows = np.zeros(length, dtype=np.int16)
    for step, speaker in enumerate(path):
        span = grid.frames_of(step)
        total[span] += scores[first + step, :, speaker]
        windows[span] += 1
    return Track(first, first + len(path) - 1, total, windows, grid)
