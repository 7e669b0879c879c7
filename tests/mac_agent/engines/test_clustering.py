"""Pieces are clustered into voices from embeddings and segmentation. The evidence is synthetic; needs no weights."""

from __future__ import annotations

import numpy as np
import pytest

from mac_agent.engines.clustering import (
    PieceEvidence,
    Policy,
    VoiceCount,
    cluster,
    join_utterances,
    uneven_cut,
)
from mac_agent.engines.frames import FIVE_SECONDS
from mac_agent.engines.rivals import find_rivals
from mac_agent.engines.tracks import Piece, Track

ANY = VoiceCount()
PIECE_FRAMES = 48


def track(first_window: int, last_window: int) -> Track:
    return Track(first_window, last_window, np.zeros(1, np.float32), np.zeros(1, np.int16), FIVE_SECONDS)


def talk(voices: list[int], *, seed: int = 0, cosine: float = 0.74, tracks: list[int] | None = None) -> PieceEvidence:
    """Return evidence with one utterance of four pieces per entry; `cosine` is the mean cosine within a voice.

    The directions of voices are random, so cosines between voices are near 0 before a shared part is added.
    """
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(voices, default=0) + 1, 256)) / 16
    centres = centres + random.standard_normal(256) / 16  # half of each centre is shared by all voices
    pieces, embeddings = [], []
    numbers = tracks or list(range(len(voices)))
    for utterance, voice in enumerate(voices):
        for part in range(4):
            first = utterance * 250 + part * PIECE_FRAMES
            pieces.append(Piece(numbers[utterance], utterance, first, first + PIECE_FRAMES))
            centre = centres[voice] / np.linalg.norm(centres[voice])
            noise = random.standard_normal(256) / 16
            piece = np.sqrt(cosine) * centre + np.sqrt(1 - cosine) * noise
            embeddings.append(piece / np.linalg.norm(piece))
    last = {number: numbers[::-1].index(number) for number in numbers}
    every = [
        track(numbers.index(number) * 250 // 30, (len(numbers) - last[number]) * 250 // 30)
        for number in range(max(numbers, default=-1) + 1)
    ]
    n = len(pieces)
    return PieceEvidence(pieces, every, np.array(embeddings, np.float32), np.full(n, 1.6), np.full(n, 0.81), np.ones(n))


def agree(labels: np.ndarray, voices: list[int]) -> bool:
    """Whether the labels are the voices, up to their numbering."""
    truth = np.repeat(voices, 4)
    return len(set(zip(labels.tolist(), truth.tolist(), strict=True))) == len(set(truth)) == len(set(labels.tolist()))


@pytest.mark.parametrize("cosine", [0.65, 0.74, 0.85])
@pytest.mark.parametrize("seed", range(5))
def test_voices_are_found_and_counted_on_every_channel(seed: int, cosine: float) -> None:
    voices = np.random.default_rng(seed).integers(0, 4, 24).tolist()
    assert agree(cluster(talk(voices, seed=seed, cosine=cosine), ANY, Policy()), voices)


def test_one_voice_is_one() -> None:
    assert set(cluster(talk([0] * 30), ANY, Policy()).tolist()) == {0}


def test_no_pieces_have_no_labels() -> None:
    empty = PieceEvidence([], [], np.empty((0, 256), np.float32), *np.empty((3, 0)))
    assert len(cluster(empty, ANY, Policy())) == 0


def test_a_single_piece_is_one_voice() -> None:
    whole = talk([0])
    single = PieceEvidence(
        whole.pieces[:1], whole.tracks, whole.embeddings[:1], np.array([0.1]), np.zeros(1), np.ones(1)
    )
    assert cluster(single, ANY, Policy()).tolist() == [0]


def test_a_cough_is_not_a_new_voice() -> None:
    evidence = talk([0, 1, 0, 1, 0, 1, 2])
    clean_s = evidence.clean_s.copy()
    clean_s[-4:] = 0.1
    faint = PieceEvidence(
        evidence.pieces, evidence.tracks, evidence.embeddings, evidence.audio_s, clean_s, evidence.heard
    )
    assert set(cluster(faint, ANY, Policy()).tolist()) == {0, 1}


def test_a_maximum_joins_the_closest_and_a_minimum_adds_no_voice() -> None:
    voices = [0, 1, 2] * 6
    assert len(set(cluster(talk(voices), VoiceCount(most=2), Policy()).tolist())) == 2
    assert len(set(cluster(talk(voices), VoiceCount(least=8), Policy()).tolist())) == 3


def test_a_long_recording_started_in_blocks_keeps_its_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    voices = np.random.default_rng(1).integers(0, 3, 60).tolist()
    monkeypatch.setattr("mac_agent.engines.clustering._BLOCK_PIECES", 40)
    assert agree(cluster(talk(voices), ANY, Policy()), voices)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_the_parts_of_an_unevenly_cut_normal_distribution_are_as_far_apart_as_computed(share: float) -> None:
    """The squared distance of the means of two parts of a sample, relative to that of its halves."""
    drawn = np.sort(np.random.default_rng(5).standard_normal(200_000))
    edge = int(share * len(drawn))
    halves = (drawn[100_000:].mean() - drawn[:100_000].mean()) ** 2
    apart = (drawn[edge:].mean() - drawn[:edge].mean()) ** 2
    assert uneven_cut(np.array([share, 1 - share]))[0, 1] == pytest.approx(apart / halves, rel=0.02)


def test_pieces_are_rivals_only_where_windows_contain_both() -> None:
    pieces = [Piece(0, 0, 100, 148), Piece(1, 1, 160, 208), Piece(1, 2, 900, 948)]
    rivals = find_rivals(pieces, [track(0, 3), track(0, 30)])
    assert rivals[0] == [(1, 1.0)]
    assert rivals[1] == [(0, 1.0)]
    assert rivals[2] == []


def test_two_voices_that_windows_separate_stay_two_where_embeddings_alone_would_join_them() -> None:
    """Two similar voices speak alternately: with contact they stay two, without it they are joined."""
    random = np.random.default_rng(3)
    base, lean = (vector / np.linalg.norm(vector) for vector in random.standard_normal((2, 256)))
    centres = [base, 0.9 * base + np.sqrt(1 - 0.81) * (lean - (lean @ base) * base)]
    pieces, vectors = [], []
    for turn in range(16):
        for part in range(3):
            first = turn * 160 + part * PIECE_FRAMES
            pieces.append(Piece(turn % 2, turn, first, first + PIECE_FRAMES))
            noise = random.standard_normal(256) / 16
            vector = np.sqrt(0.74) * centres[turn % 2] + np.sqrt(0.26) * noise
            vectors.append(vector / np.linalg.norm(vector))
    n, embeddings = len(pieces), np.array(vectors, np.float32)

    def count(tracks: list[Track]) -> int:
        evidence = PieceEvidence(pieces, tracks, embeddings, np.full(n, 1.6), np.full(n, 0.81), np.ones(n))
        return len(set(cluster(evidence, ANY, Policy(join_distance=0.12)).tolist()))

    together, apart = [track(0, 90), track(0, 90)], [track(0, 0), track(90, 90)]
    assert count(together) == 2
    assert count(apart) == 1


def test_utterances_that_sound_at_once_count_as_one_and_those_after_a_pause_do_not() -> None:
    """In noise windows disagree, and one voice is on several tracks at once: their pieces share audio."""
    spans = [(0, 0, 0, 40), (0, 0, 40, 80), (1, 1, 20, 60), (2, 2, 70, 100), (0, 3, 100, 140), (1, 4, 150, 190)]
    joined = join_utterances([Piece(*span) for span in spans])
    assert joined.tolist() == [0, 0, 0, 0, 1, 2]
