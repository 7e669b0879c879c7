"""The segmentation network with shared first layers computes what pyannote's published network computes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="could not import torch: install the agent extra")

from benchmarks.recordings import load_sample
from mac_agent.engines.frames import HOP_SAMPLES, WINDOW_SAMPLES
from mac_agent.errors import ModelMissing

if TYPE_CHECKING:
    from pathlib import Path

    from pyannote.audio.models.segmentation import PyanNet


@pytest.fixture(scope="module")
def network(data_dir: Path) -> PyanNet:
    from mac_agent.engines.segmentation import load_segmentation

    try:
        return load_segmentation(data_dir, torch.device("cpu"))
    except ModelMissing as error:
        pytest.skip(f"the weights of the embedded engine are not here: {error}")


@pytest.mark.long
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.001, 0.0), (1.0, 0.3)])
def test_sharing_layers_does_not_change_the_scores(network: PyanNet, gain: float, offset: float) -> None:
    """Each window's own normalisation removes a gain and an offset, so both are tested.

    In double precision, because in single precision the published network is itself 0.006 off for quiet speech.
    """
    speech = torch.from_numpy(load_sample().waveform[: WINDOW_SAMPLES + 6 * HOP_SAMPLES]).double() * gain + offset
    exact = copy.deepcopy(network).double()
    with torch.inference_mode():
        shared = exact(speech)
        exact.sincnet = exact.sincnet.sincnet  # type: ignore[assignment] # the network as published
        plain = exact(speech.unfold(0, WINDOW_SAMPLES, HOP_SAMPLES).unsqueeze(1))
        single = network(speech.float())
    assert shared.shape == plain.shape == (7, 293, 3)
    np.testing.assert_allclose(shared.numpy(), plain.numpy(), atol=1e-9)
    np.testing.assert_allclose(single.numpy(), plain.numpy(), atol=0.01)


@pytest.mark.parametrize("samples", [1, 16_000, WINDOW_SAMPLES, WINDOW_SAMPLES + 1, WINDOW_SAMPLES + 40 * HOP_SAMPLES])
def test_every_sample_is_in_a_window(network: PyanNet, samples: int) -> None:
    from mac_agent.engines.segmentation import segment

    scores = segment(network, np.zeros(samples, dtype=np.float32), lambda _done: None)
    assert scores.shape[1:] == (293, 3)
    assert (len(scores) - 1) * HOP_SAMPLES + WINDOW_SAMPLES >= samples
    assert np.isfinite(scores).all()
