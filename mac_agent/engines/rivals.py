"""Find the pieces that the segmentation network tells apart, in windows that contain both. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mac_agent.engines.tracks import Piece, Track

_SURELY_APART_WINDOWS = 3  # two pieces that are separated in this many windows count as rivals in full


def find_rivals(pieces: Sequence[Piece], tracks: Sequence[Track]) -> list[list[tuple[int, float]]]:
    """Return, for every piece, the pieces that the network separates from it in windows that contain both.

    Returns:
        Per piece, (index of the other piece, strength 0..1), where the strength is 1 from three common windows on.
    """
    rivals: list[list[tuple[int, float]]] = [[] for _ in pieces]
    order = sorted(range(len(pieces)), key=lambda index: (pieces[index].first, index))
    for position, left in enumerate(order):
        one = pieces[left]
        for right in order[position + 1 :]:
            other = pieces[right]
            if other.first - one.first > tracks[one.track].grid.window_frames:
                break
            if other.track == one.track:
                continue
            strength = min(1.0, _common_windows(one, other, tracks) / _SURELY_APART_WINDOWS)
            if strength > 0:
                rivals[left].append((right, strength))
                rivals[right].append((left, strength))
    return rivals


def _common_windows(one: Piece, other: Piece, tracks: Sequence[Track]) -> int:
    """Return the number of windows in which both tracks exist and that contain both pieces completely."""
    grid = tracks[one.track].grid
    ends = max(one.last, other.last)
    earliest = max(
        tracks[one.track].first_window,
        tracks[other.track].first_window,
        -(-(ends - grid.window_frames) // grid.hop_frames),
    )
    starts = min(one.first, other.first)
    latest = min(tracks[one.track].last_window, tracks[other.track].last_window, starts // grid.hop_frames)
    return max(0, latest - earliest + 1)
