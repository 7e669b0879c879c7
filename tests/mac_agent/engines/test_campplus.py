"""CAM++: its layers, and how pieces are embedded from utterances. Random weights; needs no fetched ones."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="could not import torch: install the agent extra")

from mac_agent.engines.campplus import DIMENSION, CAMPPlus, fold_batch_norms
from mac_agent.engines.filterbank import filter_bank
from mac_agent.engines.tracks import Piece
from mac_agent.engines.utterances import embed_pieces


@pytest.fixture(scope="module")
def network() -> CAMPPlus:
    torch.manual_seed(1)
    built = CAMPPlus()
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return built.eval()


def test_the_state_has_the_tensors_of_the_published_checkpoint() -> None:
    """Which has 937: with another network, the strict loading of the real one fails."""
    state = CAMPPlus().state_dict()
    assert len(state) == 937
    assert state["xvector.block3.tdnnd16.linear1.weight"].shape == (128, 992, 1)
    assert state["xvector.dense.linear.weight"].shape == (DIMENSION, 1024, 1)


@pytest.mark.parametrize("frames", [1, 2, 99, 250])
def test_folding_batch_norms_changes_no_embedding(network: CAMPPlus, frames: int) -> None:
    bands = torch.randn(2, frames, 80)
    with torch.inference_mode():
        expected = network(bands)
    folded = CAMPPlus()
    folded.load_state_dict(network.state_dict())
    with torch.inference_mode():
        found = fold_batch_norms(folded.eval())(bands)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_filter_bank_of_a_piece_is_that_of_the_recording() -> None:
    """A minute is computed at a time, and where it is cut changes nothing."""
    noise = np.random.default_rng(0).standard_normal(65 * 16_000).astype(np.float32)
    whole = filter_bank(noise)
    np.testing.assert_allclose(whole[5990:6010], filter_bank(noise[5990 * 160 : 6020 * 160])[:20], atol=0.02)
    assert filter_bank(noise[:100]).shape == (1, 80)


def test_a_piece_of_an_utterance_of_its_own_has_the_embedding_of_its_audio(network: CAMPPlus) -> None:
    bands = np.random.default_rng(2).standard_normal((400, 80)).astype(np.float16)
    pieces = [Piece(0, 0, 10, 50), Piece(0, 1, 100, 140), Piece(0, 1, 140, 180)]
    talkers = np.zeros(200, dtype=np.int8)
    talkers[10:50] = talkers[100:180] = 1
    embeddings, audio_s = embed_pieces(network, bands, pieces, talkers, lambda _done: None)
    assert embeddings.shape == (3, DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    assert audio_s[0] == pytest.approx(40 * 0.016875, abs=0.03)
    own = torch.from_numpy(bands[19:86].astype(np.float32))
    with torch.inference_mode():
        alone = torch.nn.functional.normalize(network((own - own.mean(dim=0))[None]), dim=-1)[0].numpy()
    assert embeddings[0] @ alone > 0.99
