"""The rearranged speaker network computes what pyannote's computes, for both kinds of block."""

from __future__ import annotations

import pytest
import torch
from pyannote.audio.models.embedding.wespeaker.resnet import BasicBlock, Bottleneck, ResNet

from mac_agent.engines import speaker_network
from mac_agent.engines.speaker_network import FusedBlock, can_fuse, prepare_network

CPU = torch.device("cpu")


@pytest.fixture(params=[BasicBlock, Bottleneck])
def resnet(request: pytest.FixtureRequest) -> ResNet:
    """A small network whose batch norms have values like those of a trained network."""
    torch.manual_seed(5)
    network = ResNet(request.param, [2, 1, 2, 1], m_channels=16, feat_dim=80, embed_dim=32).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    return network


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("shape", [(1, 298, 80), (3, 61, 80)])
def test_prepared_network_is_the_same_function(
    resnet: ResNet, shape: tuple[int, ...], is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_fused and not can_fuse():
        pytest.skip("torch was built without oneDNN here: blocks are not fused")
    monkeypatch.setattr(speaker_network, "can_fuse", lambda: is_fused)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        expected = resnet.forward_frames(features)
        prepared = prepare_network(resnet, CPU)
        found = prepared.forward_frames(features)
        again = prepared.forward_frames(features)
        assert torch.equal(resnet.forward_frames(features), expected), "the network that was passed in is unchanged"
    assert isinstance(prepared.layer1[0], FusedBlock) == is_fused
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(found, again)
