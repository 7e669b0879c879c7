"""Labelled pieces are converted to turns within the recording. Needs no weights."""

from __future__ import annotations

import numpy as np

from mac_agent.engines.frames import FIVE_SECONDS, FRAME_S, TEN_SECONDS, count_frames, frame_time_s
from mac_agent.engines.reconstruction import (
    activity,
    as_turns,
    count_speakers,
    expect_speakers,
    first_frames,
    speaking,
    strongest,
)
from mac_agent.engines.tracks import Piece, Track


def test_frames_lie_within_the_recording() -> None:
    for n_samples in (1_000, 9_999, 80_000, 80_001, 123_457):
        n_frames = count_frames(n_samples)
        assert frame_time_s(n_frames, n_samples / 16_000) == n_samples / 16_000
        for grid in (FIVE_SECONDS, TEN_SECONDS):
            assert n_frames <= grid.covered_frames(grid.count_windows(n_samples)) + 2


def test_overlap_is_kept_and_the_exclusive_version_has_one_at_a_time() -> None:
    strength = np.array([[0.9, 0.0], [0.9, 0.6], [0.4, 0.8], [0.0, 0.9]], dtype=np.float32)
    count = np.array([1, 2, 2, 1], dtype=np.int8)
    chosen = speaking(strength, count)
    np.testing.assert_array_equal(chosen, [[True, False], [True, True], [True, True], [False, True]])
    exclusive = [[True, False], [True, False], [False, True], [False, True]]
    np.testing.assert_array_equal(strongest(chosen, strength), exclusive)


def test_a_speaker_too_weak_to_speak_is_left_out_even_where_more_are_counted() -> None:
    strength = np.array([[0.9, 0.01]], dtype=np.float32)
    np.testing.assert_array_equal(speaking(strength, np.array([3], dtype=np.int8)), [[True, False]])


def test_turns_are_runs_of_frames_sorted_by_start() -> None:
    chosen = np.zeros((100, 2), dtype=bool)
    chosen[10:20, 1] = chosen[15:30, 0] = chosen[50:60, 1] = True
    turns = as_turns(chosen, ["A", "B"], 60.0)
    assert [turn.speaker for turn in turns] == ["B", "A", "B"]
    np.testing.assert_allclose([turn.end_s - turn.start_s for turn in turns], np.array([10, 15, 10]) * FRAME_S)


def test_a_speaker_who_never_speaks_comes_last() -> None:
    chosen = np.zeros((5, 3), dtype=bool)
    chosen[3, 0] = chosen[1, 2] = True
    assert np.argsort(first_frames(chosen), kind="stable").tolist() == [2, 0, 1]


def test_the_strength_of_a_piece_is_the_mean_score_of_its_windows() -> None:
    n_frames = FIVE_SECONDS.covered_frames(2)
    scores = np.zeros((2, FIVE_SECONDS.window_frames, 3), dtype=np.float16)
    scores[0, 30:90, 1] = scores[1, :60, 2] = 1.0
    track = Track(0, 1, np.zeros(n_frames, np.float32), np.ones(n_frames, np.int16), FIVE_SECONDS)
    track.total[30:90] = 2.0
    strength = activity(2, FIVE_SECONDS, [track], [Piece(0, 0, 30, 90)], np.array([0]))
    np.testing.assert_allclose(strength[30:90, 0], 1.0)
    assert strength[:30].sum() == strength[90:].sum() == 0
    np.testing.assert_array_equal(count_speakers(scores, FIVE_SECONDS)[[29, 30, 89, 90]], [0, 1, 1, 0])


def test_windows_that_are_unsure_count_with_their_probability() -> None:
    """Two windows of the same second: sure of a voice, and nearly. Voting finds half a speaker, and rounds it away."""
    scores = np.zeros((2, FIVE_SECONDS.window_frames, 3), dtype=np.float16)
    scores[0, 100:200, 1], scores[1, 70:170, 2] = 0.9, 0.45
    assert count_speakers(scores, FIVE_SECONDS)[150] == 0
    assert expect_speakers(scores, FIVE_SECONDS)[150] == 1
    scores[1, 70:170, 2] = 0.05
    assert expect_speakers(scores, FIVE_SECONDS)[150] == 0
