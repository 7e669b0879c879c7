"""A pipeline directory for a machine without the gated weights: `python -m benchmarks.local_pipeline DIR`.

Segmentation and PLDA are real, from `../shared/models`. The speaker network has the architecture and the cost of
community-1's, but its weights are drawn from a fixed seed: its embeddings mean little, so no accuracy is measured with
it, only whether two ways of running the same pipeline agree, and how long they take.
"""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.recordings import load_sample

os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pyannote.audio import __version__ as pyannote_version
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34

SHARED_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
SEED = 20260922
SPREAD = 0.15  # standard deviation of a component of real embeddings
CONFIG = """\
dependencies:
  pyannote.audio: 4.0.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_batch_size: 32
    embedding: $model/embedding
    embedding_batch_size: 32
    embedding_exclude_overlap: true
    plda: $model/plda
params:
  clustering:
    threshold: 0.6
    Fa: 0.07
    Fb: 0.8
  segmentation:
    min_duration_off: 0.0
"""


def build_pipeline_directory(target: Path, models: Path = SHARED_MODELS) -> Path:
    """Write a pipeline directory that pyannote.audio can load, with the same weights every time.

    Raises:
        FileNotFoundError: `models` does not hold `segmentation-3.0/` and `plda/`.
    """
    if not (models / "segmentation-3.0" / "pytorch_model.bin").is_file():
        raise FileNotFoundError(f"{models}/segmentation-3.0/pytorch_model.bin: the recorded weights are not here.")
    for folder in ("segmentation", "embedding", "plda"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(models / "segmentation-3.0/pytorch_model.bin", target / "segmentation/pytorch_model.bin")
    for name in ("plda.npz", "xvec_transform.npz"):
        shutil.copyfile(models / "plda" / name, target / "plda" / name)
    plda_mean = torch.from_numpy(np.load(target / "plda/xvec_transform.npz")["mean1"]).float()
    torch.save(make_speaker_checkpoint(plda_mean), target / "embedding/pytorch_model.bin")
    (target / "config.yaml").write_text(CONFIG)
    return target


def make_speaker_checkpoint(plda_mean: torch.Tensor) -> dict[str, object]:
    """Return a checkpoint of `WeSpeakerResNet34` with weights from `SEED`.

    Its batch norms and its last layer are fitted to pyannote's own sample, so that this untrained network returns
    embeddings of realistic size that differ between sounds: with equal embeddings any two clusterings would agree.
    """
    torch.manual_seed(SEED)
    network = WeSpeakerResNet34()
    network.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=10.0, classes=["none"]
    )
    waveform = torch.from_numpy(load_sample().waveform)
    pieces = waveform.unfold(0, 3 * 16_000, 16_000)[:, None]
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over everything
    with torch.inference_mode():
        fbank = network.compute_fbank(pieces)
        network.resnet.train()
        network.resnet.forward_frames(fbank)
        network.eval()
        stats = network.resnet.pool(network.resnet.forward_frames(fbank))
        last = network.resnet.seg_1
        last.weight /= stats.std(dim=0) + 1e-3
        last.weight *= SPREAD / (stats @ last.weight.T).std(dim=0).mean()
        last.bias.copy_(plda_mean - last.weight @ stats.mean(dim=0))
    return {
        "state_dict": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "hyper_parameters": {"sample_rate": 16_000, "num_channels": 1},
        "pytorch-lightning_version": "2.6.0",
        "pyannote.audio": {
            "versions": {"torch": str(torch.__version__), "pyannote.audio": str(pyannote_version)},
            "architecture": {"module": WeSpeakerResNet34.__module__, "class": WeSpeakerResNet34.__name__},
            "specifications": network.specifications,
        },
    }


def main() -> None:
    """Build the directory that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    target = build_pipeline_directory(parser.parse_args().directory)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1e6:.1f} MB, torch {torch.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
