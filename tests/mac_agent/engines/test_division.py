"""A voice that holds two is divided, and one that does not stays whole. The embeddings are drawn; needs no weights."""

from __future__ import annotations

import numpy as np
import pytest

from mac_agent.engines.clustering import VoiceCount, cluster
from mac_agent.engines.division import cut_in_two, find_second_voice, gain_of_cut
from mac_agent.engines.embedded_networks import CAMPPLUS_POLICY
from mac_agent.engines.frames import TEN_SECONDS
from mac_agent.engines.tracks import Piece, Track, heard_shares
from tests.mac_agent.engines.test_clustering import talk

LEAST_GAIN = CAMPPLUS_POLICY.divide_gain or 0.0


def draw(voices: list[int], between: float, within: float = 0.6, seed: int = 0) -> np.ndarray:
    """Return an embedding for each entry: so alike on average within a voice, and between two of them."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.standard_normal((192, max(voices) + 2)))[0].T
    voice = np.sqrt(between) * axes[0] + np.sqrt(within - between) * axes[1:]
    noise = random.standard_normal((len(voices), 192)) / np.sqrt(192)
    drawn = voice[voices] + np.sqrt(1 - within) * noise
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_two_alike_voices_are_told_apart(seed: int) -> None:
    voices = np.repeat(np.random.default_rng(seed).integers(0, 2, 20), 4).tolist()
    embeddings = draw(voices, between=0.42, seed=seed)
    second = find_second_voice(embeddings, np.ones(80), np.repeat(np.arange(20), 4), LEAST_GAIN)
    assert second is not None
    assert abs(np.corrcoef(second, voices)[0, 1]) > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_one_voice_has_no_second(seed: int) -> None:
    embeddings = draw([0] * 80, between=0.0, seed=seed)
    assert find_second_voice(embeddings, np.ones(80), np.repeat(np.arange(20), 4), LEAST_GAIN) is None


def test_a_single_utterance_says_nothing_about_a_second_voice() -> None:
    """All speech on either side of the cut is of the same breath, so there is none to try it on."""
    embeddings = draw([0, 1] * 20, between=0.1)
    utterance = np.zeros(40, dtype=np.intp)
    assert gain_of_cut(embeddings, np.ones(40), utterance, cut_in_two(embeddings, np.ones(40))) == 0.0
    assert find_second_voice(embeddings, np.ones(40), utterance, LEAST_GAIN) is None
    assert find_second_voice(embeddings[:3], np.ones(3), utterance[:3], 0.0) is None


def test_equal_pieces_are_not_cut() -> None:
    same = np.repeat(draw([0], between=0.0), 8, axis=0)
    assert len(set(cut_in_two(same, np.ones(8)).tolist())) <= 2
    assert gain_of_cut(same, np.ones(8), np.arange(8), np.zeros(8, dtype=bool)) == 0.0


def test_the_engine_divides_what_average_linkage_joined_and_no_further_than_it_is_asked_to() -> None:
    voices = [0, 1] * 12
    evidence = talk(voices, cosine=0.55)
    alike = draw(np.repeat(voices, 4).tolist(), between=0.40)
    object.__setattr__(evidence, "embeddings", alike.astype(np.float32))
    assert len(set(cluster(evidence, VoiceCount(), CAMPPLUS_POLICY).tolist())) == 2
    assert len(set(cluster(evidence, VoiceCount(most=1), CAMPPLUS_POLICY).tolist())) == 1


def test_audio_on_several_tracks_counts_once() -> None:
    """Ten windows hear a frame: where seven have it on one track and three on another, its pieces count 0.7 and 0.3."""
    tracks = []
    for first, last in ((0, 6), (7, 9)):
        frames = TEN_SECONDS.covered_frames(last - first + 1)
        windows = np.zeros(frames, dtype=np.int16)
        for window in range(last - first + 1):
            windows[TEN_SECONDS.frames_of(window)] += 1
        tracks.append(Track(first, last, np.zeros(frames, np.float32), windows, TEN_SECONDS))
    covering = np.zeros(TEN_SECONDS.covered_frames(10), dtype=np.float32)
    for window in range(10):
        covering[TEN_SECONDS.frames_of(window)] += 1
    pieces = [Piece(0, 0, 545, 585), Piece(1, 1, 545, 585)]
    assert heard_shares(pieces, tracks, covering) == pytest.approx([0.7, 0.3])
