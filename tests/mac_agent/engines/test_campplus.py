"""CAM++: its layers, and how pieces are embedded from utterances. Random weights; needs no fetched ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="could not import torch: install the agent extra")

from mac_agent.engines.campplus import DIMENSION, CAMPPlus
from mac_agent.engines.campplus_rows import RowsOfCampplus
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


@pytest.mark.parametrize("fused", [True, False])
def test_utterances_side_by_side_have_the_frames_that_each_has_alone(
    network: CAMPPlus, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With convolutions and masks that look beyond a frame, at every length from one frame to several masks."""
    if not fused:
        monkeypatch.setattr("mac_agent.engines.campplus_rows.can_fuse", lambda: False)
    rows = RowsOfCampplus(copy.deepcopy(network), torch.device("cpu"))
    utterances = [torch.randn(frames, 80) for frames in (1, 2, 3, 99, 7, 250, 450, 100)]
    with torch.inference_mode():
        alone = [network.frames(bands[None])[0] for bands in utterances]
    torch.testing.assert_close(rows.frames(utterances), torch.cat(alone, dim=1), atol=1e-3, rtol=1e-3)


def test_a_span_is_pooled_as_the_network_pools_its_frames(network: CAMPPlus) -> None:
    rows = RowsOfCampplus(copy.deepcopy(network), torch.device("cpu"))
    frames = 3.0 + torch.randn(512, 300)
    spans = [(0, 1), (0, 300), (120, 200), (299, 300)]
    with torch.inference_mode():
        expected = torch.cat([network.pool(frames[None, :, first:last]) for first, last in spans])
    expected = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(rows.pool(frames, spans), expected, atol=1e-5, rtol=1e-5)


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
    rows = RowsOfCampplus(copy.deepcopy(network), torch.device("cpu"))
    embeddings, audio_s = embed_pieces(rows, bands, pieces, talkers, lambda _done: None)
    assert embeddings.shape == (3, DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)
    assert audio_s[0] == pytest.approx(40 * 0.016875, abs=0.03)
    own = torch.from_numpy(bands[19:86].astype(np.float32))
    with torch.inference_mode():
        alone = torch.nn.functional.normalize(network((own - own.mean(dim=0))[None]), dim=-1)[0].numpy()
    assert embeddings[0] @ alone > 0.99
