"""Our segmentation networks, with shared first layers, compute what pyannote.audio computes with the same weights."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="could not import torch: install the agent extra")

from benchmarks.recordings import load_sample
from mac_agent.engines.frames import FIVE_SECONDS, TEN_SECONDS, WindowGrid
from mac_agent.errors import ModelMissing

if TYPE_CHECKING:
    from pathlib import Path

    from pyannote.audio.models.segmentation import PyanNet

    from mac_agent.engines.segmentation import SegmentationNetwork


@pytest.fixture(scope="module", params=[TEN_SECONDS, FIVE_SECONDS], ids=["segmentation-3.0", "of 2022"])
def grid(request: pytest.FixtureRequest) -> WindowGrid:
    found: WindowGrid = request.param
    return found


@pytest.fixture(scope="module")
def network(data_dir: Path, grid: WindowGrid) -> SegmentationNetwork:
    from mac_agent.engines.segmentation import load_segmentation, load_segmentation_3

    load = load_segmentation_3 if grid == TEN_SECONDS else load_segmentation
    try:
        return load(data_dir, torch.device("cpu"))
    except ModelMissing as error:
        which = "the first generation of the embedded engine, which is optional," if grid == FIVE_SECONDS else "it"
        pytest.skip(f"{which} is not here: {error}")


def as_published(network: SegmentationNetwork, grid: WindowGrid) -> PyanNet:
    """Return pyannote's own network with these weights."""
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.segmentation import PyanNet

    published = PyanNet(lstm={"num_layers": 4})
    published.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION if grid == TEN_SECONDS else Problem.MULTI_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=grid.window_samples / 16_000,
        classes=["a", "b", "c"],
        permutation_invariant=True,
        powerset_max_classes=2 if grid == TEN_SECONDS else None,
    )
    published.build()
    published.load_state_dict(network.state_dict(), strict=True)
    published.activation = network.activation
    return published.eval()


@pytest.mark.long
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.001, 0.0), (1.0, 0.3)])
def test_sharing_layers_does_not_change_the_scores(
    network: SegmentationNetwork, grid: WindowGrid, gain: float, offset: float
) -> None:
    """Each window's own normalisation removes a gain and an offset, so both are tested.

    In double precision, because in single precision the published network is itself 0.006 off for quiet speech.
    """
    speech = (
        torch.from_numpy(load_sample().waveform[: grid.window_samples + 2 * grid.hop_samples]).double() * gain + offset
    )
    published = as_published(network, grid).double()
    with torch.inference_mode():
        shared = copy.deepcopy(network).double()(speech)
        plain = published(speech.unfold(0, grid.window_samples, grid.hop_samples).unsqueeze(1))
        single = network(speech.float())
    assert shared.shape == plain.shape == (3, grid.window_frames, 3)
    np.testing.assert_allclose(shared.numpy(), plain.numpy(), atol=1e-9)
    np.testing.assert_allclose(single.numpy(), plain.numpy(), atol=0.01)


@pytest.mark.parametrize(("windows", "more"), [(0, 1), (0, 16_000), (1, 1), (40, 16_000)])
def test_every_sample_is_in_a_window(network: SegmentationNetwork, grid: WindowGrid, windows: int, more: int) -> None:
    from mac_agent.engines.segmentation import score

    samples = windows * grid.hop_samples + more
    scores = score(network, grid, np.zeros(samples, dtype=np.float32), lambda _done: None)
    assert scores.shape[1:] == (grid.window_frames, 3)
    assert (len(scores) - 1) * grid.hop_samples + grid.window_samples >= samples
    assert np.isfinite(scores).all()


def test_the_embedded_engine_does_without_pyannote_audio() -> None:
    """Only to import it takes an agent three seconds and a quarter of a gigabyte."""
    code = "import sys, mac_agent.engines.embedded; sys.exit('pyannote.audio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
