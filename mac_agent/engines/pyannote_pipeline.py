"""Load pyannote.audio's diarization pipeline from a local directory, and run its speaker network less often.

Stock pyannote runs the speaker network once for every window and speaker slot: thirty times over every second. The
three slots of a window differ only in the mask at the last step, and overlapping windows differ little more.
`ExactDiarization` makes use of the first, `StretchDiarization` (in `pyannote_stretch`) also of the second.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import yaml

from mac_agent.engines.speaker_network import finish_embedding, prepare_network
from mac_agent.errors import EngineError

# Unless these are set before the import, pyannote.audio sends a record of every file to its makers, and the hub's
# client looks for newer weights. The agent connects to its broker and to nothing else.
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
with warnings.catch_warnings():
    # It warns about torchcodec, which it needs only to open files itself.
    warnings.simplefilter("ignore")
    from pyannote.audio.core.pipeline import expand_subfolders
    from pyannote.audio.models.embedding.wespeaker import BaseWeSpeakerResNet
    from pyannote.audio.pipelines import SpeakerDiarization

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pyannote.core import SlidingWindowFeature

CONFIG_NAME = "config.yaml"
_PIPELINE_NAMES = (
    "pyannote.audio.pipelines.SpeakerDiarization",
    "pyannote.audio.pipelines.speaker_diarization.SpeakerDiarization",
)
_NETWORKS = ("segmentation", "embedding", "plda")

# The outputs of the networks are stored in pyannote's `file` under these keys, so that clustering can be repeated
# without running them again, and recorded outputs can be replayed.
SEGMENTATIONS = "omi/segmentations"
EMBEDDINGS = "omi/embeddings"

ReportBatch = Callable[[int, int], None]
"""Called with (completed, total)."""


class PipelineUnusable(EngineError):
    """A pipeline directory cannot be loaded."""


def read_config(directory: Path) -> dict[str, Any]:
    """Return the configuration of a pipeline directory, with its networks in the form that pyannote's loaders take.

    Raises:
        PipelineUnusable: the directory is no pipeline, another kind of pipeline, or one that would need the hub.
    """
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise PipelineUnusable(
            f"{path} is missing. Give a directory with {CONFIG_NAME}, segmentation/, embedding/ and plda/, or run: "
            "omi-agent fetch-model pyannote"
        )
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PipelineUnusable(f"{path} cannot be read as YAML ({type(error).__name__}). Copy it again.") from error
    pipeline = config.get("pipeline") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(pipeline, dict) or pipeline.get("name") not in _PIPELINE_NAMES:
        raise PipelineUnusable(f"{path} does not describe a {_PIPELINE_NAMES[0]}; no other pipeline can be used here.")
    if not isinstance(config.get("params"), dict):
        raise PipelineUnusable(f"{path} holds no 'params' for clustering and segmentation. Copy it again.")
    params = pipeline.setdefault("params", {})
    if "plda" not in params and (directory / "plda").is_dir():
        params["plda"] = "$model/plda"  # the config of 3.1 does not name it, but pyannote.audio 4 loads it
    for name in _NETWORKS:
        _check_is_local(path, name, params.get(name))
    expand_subfolders(config, str(directory))
    return {str(key): value for key, value in config.items()}


def _check_is_local(path: Path, name: str, value: object) -> None:
    if value is None:
        raise PipelineUnusable(
            f"{path} does not say where {name} is. Put it into {path.parent / name} and write '{name}: $model/{name}'."
        )
    if not isinstance(value, str) or not value.startswith("$model/"):
        raise PipelineUnusable(
            f"{path} takes {name} from {value!r}, outside its directory. Copy it into {path.parent / name} and write "
            f"'{name}: $model/{name}'."
        )
    if not (path.parent / value.removeprefix("$model/")).is_dir():
        raise PipelineUnusable(f"{path} names {value}, and {path.parent / value.removeprefix('$model/')} is missing.")


Kind = TypeVar("Kind", bound="SpeakerDiarization")


def load_pipeline(directory: Path, kind: type[Kind]) -> Kind:
    """Load a pipeline directory on the CPU, without opening a connection.

    The checkpoints are pickles: loading one runs the code in it. Load only a directory whose files were verified.

    Raises:
        PipelineUnusable: the directory is no pipeline, or a file in it cannot be loaded.
    """
    config = read_config(directory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = kind(**config["pipeline"]["params"])
            pipeline.instantiate(config["params"])
    except Exception as error:
        raise PipelineUnusable(
            f"The pipeline in {directory} cannot be loaded ({type(error).__name__}: {error}"[:400]
            + "). Fetch or copy it again."
        ) from error
    return pipeline


class ExactDiarization(SpeakerDiarization):
    """The result of stock pyannote, with the speaker network run once per window and only where somebody speaks."""

    mode = "exact"
    _prepared: tuple[torch.device, Any] | None = None

    def get_segmentations(self, file: dict[str, Any], hook: Callable[..., None] | None = None) -> SlidingWindowFeature:
        """Return which slots speak in every window, shape ``(windows, frames, 3)``; computed once per recording."""
        if SEGMENTATIONS not in file:
            n_samples, hop_samples = file["waveform"].shape[1], self._segmentation.step * file["sample_rate"]
            with preallocated_output(self._segmentation, math.ceil(n_samples / hop_samples) + 1):
                file[SEGMENTATIONS] = super().get_segmentations(file, hook=hook)
        return file[SEGMENTATIONS]

    def get_embeddings(
        self,
        file: dict[str, Any],
        binary_segmentations: SlidingWindowFeature,
        exclude_overlap: bool = False,  # noqa: FBT001, FBT002 - pyannote's signature
        hook: Callable[..., None] | None = None,
    ) -> NDArray[np.float32]:
        """Return one embedding per window and speaker slot, shape ``(windows, 3, dim)``; computed once per recording.

        A network that is not of the WeSpeaker family is run as stock pyannote runs it.
        """
        if EMBEDDINGS not in file:
            file[EMBEDDINGS] = self._embed(file, binary_segmentations, exclude_overlap, hook)
        found: NDArray[np.float32] = file[EMBEDDINGS]
        return found

    @property
    def is_wespeaker(self) -> bool:
        """Whether the speaker network is of the WeSpeaker family, whose frames several masks can share."""
        return isinstance(self._embedding.model_, BaseWeSpeakerResNet)

    def _embed(
        self,
        file: dict[str, Any],
        segmentations: SlidingWindowFeature,
        exclude_overlap: bool,  # noqa: FBT001 - passed on
        hook: Callable[..., None] | None,
    ) -> NDArray[np.float32]:
        if not self.is_wespeaker:
            stock: NDArray[np.float32] = super().get_embeddings(file, segmentations, exclude_overlap, hook)
            return stock
        least_frames = -1
        if exclude_overlap:
            window_samples = segmentations.sliding_window.duration * self._embedding.sample_rate
            least_frames = math.ceil(segmentations.data.shape[1] * self._embedding.min_num_samples / window_samples)
        masks = choose_masks(segmentations.data, least_frames if exclude_overlap else None)

        def report(completed: int, total: int) -> None:
            if hook is not None:
                hook("embeddings", None, total=total, completed=completed)

        embeddings = np.repeat(self._embed_nothing()[None], masks.shape[0] * masks.shape[1], axis=0)
        embeddings = embeddings.reshape(*masks.shape[:2], -1)
        with torch.inference_mode():
            self._embed_masks(file, segmentations, masks, embeddings, report)
        return embeddings

    def _embed_nothing(self) -> NDArray[np.float32]:
        """Return the network's embedding for an empty mask, shape ``(dim,)``; it does not depend on the audio."""
        resnet = self._embedding.model_.resnet
        with torch.inference_mode():
            nothing = torch.zeros(1, resnet.pool_out_dim, device=self._embedding.device)
            answer: NDArray[np.float32] = finish_embedding(resnet, nothing)[0].cpu().numpy()
        return answer

    def _embed_masks(
        self,
        file: dict[str, Any],
        segmentations: SlidingWindowFeature,
        masks: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        report: ReportBatch,
    ) -> None:
        """Write the embedding of every mask that is not empty into ``embeddings``."""
        self.embed_windows(file, segmentations, masks, np.flatnonzero(masks.any(axis=(1, 2))), embeddings, report)

    def prepare(self) -> Any:  # noqa: ANN401 - pyannote is not annotated
        """Return the speaker network as `prepare_network` makes it for the device; made once per device."""
        device = self._embedding.device
        if self._prepared is None or self._prepared[0] != device:
            self._prepared = (device, prepare_network(self._embedding.model_.resnet, device))
        return self._prepared[1]

    def embed_windows(
        self,
        file: dict[str, Any],
        segmentations: SlidingWindowFeature,
        masks: NDArray[np.float32],
        windows: NDArray[np.intp],
        embeddings: NDArray[np.float32],
        report: ReportBatch,
    ) -> None:
        """Run the network once on each of these windows, and pool its frames with the masks that are not empty."""
        model, device, resnet = self._embedding.model_, self._embedding.device, self.prepare()
        size = self.embedding_batch_size
        report(0, len(windows))
        for first in range(0, len(windows), size):
            batch = windows[first : first + size]
            crops = [self._audio.crop(file, segmentations.sliding_window[int(w)], mode="pad")[0] for w in batch]
            if device.type == "mps":  # every new shape is compiled, and the compiled program is never freed
                crops += [torch.zeros_like(crops[0])] * (size - len(batch))
            frames = resnet.forward_frames(model.compute_fbank(torch.stack(crops).to(device)))[: len(batch)]
            found = model.forward_embedding(frames, weights=torch.from_numpy(masks[batch]).to(device)).cpu().numpy()
            spoken = masks[batch].any(axis=2, keepdims=True)
            embeddings[batch] = np.where(spoken, found, embeddings[batch])
            report(min(first + size, len(windows)), len(windows))


@contextmanager
def preallocated_output(inference: Any, most_windows: int) -> Iterator[None]:  # noqa: ANN401 - pyannote is not annotated
    """Let `Inference.slide` collect the network's output for all windows in one array, allocated with the first batch.

    Stored batch by batch, each small array takes the place of a freed tensor of several MB, so that the next batch's
    tensor no longer fits there. With glibc, an hour of audio then took up to 700 MB more.
    """
    infer: Callable[[torch.Tensor], NDArray[np.float32]] = inference.infer
    output: NDArray[np.float32] | None = None
    n_stored = 0

    def infer_and_store(batch: torch.Tensor) -> NDArray[np.float32]:
        nonlocal output, n_stored
        found = infer(batch)
        if output is None:
            output = np.empty((most_windows, *found.shape[1:]), dtype=found.dtype)
        stored = output[n_stored : n_stored + len(found)]
        stored[:] = found
        n_stored += len(found)
        return stored

    inference.infer = infer_and_store
    try:
        yield
    finally:
        del inference.infer


def choose_masks(segmentations: NDArray[np.float32], least_frames: int | None) -> NDArray[np.float32]:
    """Return the frames from which each slot is embedded, as 0 or 1, shape ``(windows, slots, frames)``.

    Args:
        segmentations: 0 or 1 (NaN is 0), shape ``(windows, frames, slots)``.
        least_frames: where a slot speaks alone in more frames than this, only these frames are used, else all frames
            in which it speaks; None: always all of them.
    """
    spoken = np.nan_to_num(segmentations, nan=0.0).astype(np.float32)
    if least_frames is None:
        chosen = spoken
    else:
        alone = spoken * (np.nansum(segmentations, axis=2, keepdims=True) < 2)  # noqa: PLR2004 - fewer than two speak
        chosen = np.where(alone.sum(axis=1, keepdims=True) > least_frames, alone, spoken)
    return np.ascontiguousarray(chosen.transpose(0, 2, 1))
