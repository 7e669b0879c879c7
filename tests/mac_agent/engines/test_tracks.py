"""Local speakers are followed through windows, and tracks are cut at pauses. Needs no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from mac_agent.engines.frames import FIVE_SECONDS, LOCAL_SPEAKERS, TEN_SECONDS, WindowGrid
from mac_agent.engines.tracks import LONGEST_PIECE_FRAMES, bridge, cut_pieces, follow, match_windows, runs

if TYPE_CHECKING:
    from collections.abc import Sequence


def score_windows(
    activity: np.ndarray, orders: Sequence[tuple[int, ...]], grid: WindowGrid = FIVE_SECONDS
) -> np.ndarray:
    """Return the scores of one window per order, from activity of shape (frames, 3); an order permutes the speakers."""
    windows = [activity[grid.frames_of(w), list(order)] for w, order in enumerate(orders)]
    return np.stack(windows).astype(np.float16)


def speech(n_windows: int, *turns: tuple[int, int, int], grid: WindowGrid = FIVE_SECONDS) -> np.ndarray:
    activity = np.full((grid.covered_frames(n_windows), LOCAL_SPEAKERS), 0.02)
    for speaker, first, last in turns:
        activity[first:last, speaker] = 0.95
    return activity


ORDERS = [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 0, 1), (0, 1, 2), (1, 0, 2)]


@pytest.mark.parametrize("grid", [FIVE_SECONDS, TEN_SECONDS])
def test_a_voice_is_followed_whatever_number_each_window_gives_it(grid: WindowGrid) -> None:
    activity = speech(8, (0, 10, 200), (1, 210, 330), (0, 340, 480), grid=grid)
    tracks = follow(score_windows(activity, ORDERS, grid), grid)
    assert len(tracks) == 2
    spoken = [np.flatnonzero(track.total / np.maximum(track.windows, 1) > 0.5) + track.first_frame for track in tracks]
    assert {(int(frames[0]), int(frames[-1]) + 1) for frames in spoken} == {(10, 480), (210, 330)}


def test_matching_finds_the_order_of_the_next_window() -> None:
    activity = speech(2, (0, 40, 120), (1, 130, 200), (2, 210, 280))
    partner, agreement = match_windows(score_windows(activity, [(0, 1, 2), (2, 0, 1)]), FIVE_SECONDS.hop_frames)
    np.testing.assert_array_equal(partner, [[1, 2, 0]])
    np.testing.assert_allclose(agreement, 1.0, atol=1e-6)


def test_a_track_ends_where_neighbouring_windows_disagree() -> None:
    scores = score_windows(speech(2, (0, 0, 300)), [(0, 1, 2), (0, 1, 2)])
    scores[1, :, 0] = 0.02
    scores[1, 200:230, 1] = 0.95  # in the second window somebody speaks for a short time only
    assert len(follow(scores, FIVE_SECONDS)) == 2


def test_silence_has_no_tracks() -> None:
    assert follow(score_windows(speech(4), ORDERS[:4]), FIVE_SECONDS) == []


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_blocks_do_not_change_the_matching(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    scores = np.random.default_rng(0).random((8, FIVE_SECONDS.window_frames, LOCAL_SPEAKERS)).astype(np.float16)
    expected = match_windows(scores, FIVE_SECONDS.hop_frames)
    monkeypatch.setattr("mac_agent.engines.tracks._BLOCK_WINDOWS", block)
    for one, other in zip(match_windows(scores, FIVE_SECONDS.hop_frames), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pieces_end_at_pauses_and_are_short() -> None:
    activity = speech(8, (0, 20, 150), (0, 154, 180), (0, 220, 230))
    pieces = cut_pieces(follow(score_windows(activity, ORDERS), FIVE_SECONDS))
    assert (pieces[0].first, pieces[0].last) == (20, 60)
    assert all(0 < piece.last - piece.first <= LONGEST_PIECE_FRAMES for piece in pieces)
    # Four frames are no pause, forty are.
    spans: dict[int, list[int]] = {}
    for piece in pieces:
        spans.setdefault(piece.utterance, []).extend((piece.first, piece.last))
    assert [(min(ends), max(ends)) for ends in spans.values()] == [(20, 180), (220, 230)]


def test_runs_and_bridges() -> None:
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, dtype=bool)) == []
    assert bridge([(0, 2), (3, 4), (9, 10)], 1) == [(0, 4), (9, 10)]
