"""The stretch mode: the speaker network runs once over every second, and all windows pool their masks from that.

Stock pyannote computes each second once for each of ten windows. Each window subtracts its own mean from the features
and contains nothing beyond its edges. Here each second is computed once, in a piece of about 15 s with two seconds of
context on either side, and the mean of the windows around it is subtracted. So the embeddings are close to stock's but
not equal: `docs/adr/0003`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mac_agent.engines.pyannote_pipeline import ExactDiarization
from mac_agent.engines.speaker_network import finish_embedding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from pyannote.core import SlidingWindowFeature

    from mac_agent.engines.pyannote_pipeline import ReportBatch

STRIDE = 8  # features per frame of the network: three of its four stages halve the time resolution
PIECE_FRAMES = 188  # 15 s: longer pieces do not fit into the processor's caches
CONTEXT_FRAMES = 25  # 2 s
_FEATURES_AT_ONCE = 6_000  # 60 s
_FULL_SCALE = 1 << 15  # Kaldi's features are computed from 16-bit samples


@dataclass(frozen=True)
class Grid:
    """How windows, features (10 ms), frames of the network (80 ms) and frames of the masks correspond in time."""

    n_windows: int
    """Windows that end within the recording."""
    hop_features: float
    window_features: int
    window_frames: int
    mask_frames: int

    @property
    def n_frames(self) -> int:
        """Frames of the network that the windows cover."""
        return self._end_frame(self.n_windows - 1)

    def window_start(self, window: int) -> int:
        """Return the first feature of a window."""
        return round(window * self.hop_features)

    def windows_before(self, last_frame: int) -> int:
        """Return the number of windows whose frames all come before this one."""
        window = min(self.n_windows, max(0, int(STRIDE * last_frame // self.hop_features)))
        while window > 0 and self._end_frame(window - 1) > last_frame:
            window -= 1
        return window

    def windows_over(self, frames: range) -> range:
        """Return the windows that may contain any of these frames."""
        last = min(self.n_windows, int(STRIDE * frames.stop // self.hop_features) + 1)
        return range(min(last, self.windows_before(frames.start)), last)

    def spread(self, mask: NDArray[np.float32], window: int, frames: range) -> NDArray[np.float32]:
        """Resample a window's masks, shape ``(slots, mask_frames)``, to frames of the recording: ``(slots, frames)``.

        Within the window, a frame takes the nearest frame of the mask, by index, as in pyannote's own pooling.
        """
        at = np.arange(frames.start, frames.stop) - self.window_start(window) / STRIDE
        inside = (at >= 0) & (at < self.window_frames)
        spread = np.zeros((len(mask), len(frames)), dtype=np.float32)
        spread[:, inside] = mask[:, (at[inside] * (self.mask_frames / self.window_frames)).astype(np.intp)]
        return spread

    def _end_frame(self, window: int) -> int:
        return -(-(self.window_start(window) + self.window_features) // STRIDE)


class StretchDiarization(ExactDiarization):
    """Nearly the result of stock pyannote, for about one run of the speaker network over the recording."""

    mode = "stretch"

    def _embed_masks(
        self,
        file: dict[str, Any],
        segmentations: SlidingWindowFeature,
        masks: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        report: ReportBatch,
    ) -> None:
        waveform: torch.Tensor = file["waveform"][0]
        grid = self._lay_grid(segmentations, len(waveform))
        spoken = np.flatnonzero(masks.any(axis=(1, 2)))
        # Stock pyannote pads a window that runs past the end with silence, which changes its mean, so it is run alone.
        beyond = spoken[spoken >= grid.n_windows]
        self.embed_windows(file, segmentations, masks, beyond, embeddings, lambda _completed, _total: None)
        if (spoken < grid.n_windows).any():
            features = compute_features(self._embedding.model_, waveform)
            features -= running_mean(features, grid)
            self._pool_pieces(features, grid, masks, embeddings, report)

    def _lay_grid(self, segmentations: SlidingWindowFeature, n_samples: int) -> Grid:
        model, window = self._embedding.model_, segmentations.sliding_window
        rate_hz = model.hparams.sample_rate
        window_samples = self._audio.get_num_samples(window.duration)
        hop_samples = round(window.step * rate_hz)
        feature_samples = rate_hz * model.hparams.frame_shift / 1000
        spare_samples = window_samples - rate_hz * model.hparams.frame_length / 1000
        return Grid(
            n_windows=min(max(0, (n_samples - window_samples) // hop_samples + 1), len(segmentations.data)),
            hop_features=hop_samples / feature_samples,
            window_features=int(spare_samples // feature_samples) + 1,
            window_frames=model.num_frames(window_samples),
            mask_frames=segmentations.data.shape[1],
        )

    def _pool_pieces(
        self,
        features: torch.Tensor,
        grid: Grid,
        masks: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        report: ReportBatch,
    ) -> None:
        """Run the network piece by piece. Pool a window once all its frames are computed, then free the frames."""
        resnet = self._embedding.model_.resnet
        pieces = cut_pieces(grid.n_frames, is_balanced=self._embedding.device.type == "cpu")
        held, first, window = torch.empty(0, resnet.pool_out_dim // 2, device=self._embedding.device), 0, 0
        report(0, len(pieces))
        for done, (piece, found) in enumerate(self._run_pieces(features, grid, masks, pieces), start=1):
            held = torch.cat([held, found])
            ready = range(window, grid.windows_before(piece.stop))
            if ready:
                frames = range(first, piece.stop)
                weights = np.concatenate([grid.spread(masks[w], w, frames) for w in ready])
                stats = pool(held, torch.from_numpy(weights).to(held.device))
                answers = finish_embedding(resnet, stats).cpu().numpy().reshape(len(ready), masks.shape[1], -1)
                its = slice(ready.start, ready.stop)
                embeddings[its] = np.where(masks[its].any(axis=2, keepdims=True), answers, embeddings[its])
                window = ready.stop
                passed = grid.window_start(window) // STRIDE - first
                held, first = held[passed:], first + passed
            report(done, len(pieces))

    def _run_pieces(
        self, features: torch.Tensor, grid: Grid, masks: NDArray[np.float32], pieces: list[range]
    ) -> Iterator[tuple[range, torch.Tensor]]:
        """Yield every piece with its frames, shape ``(frames, dim)``; zeros where no mask uses them."""
        device, resnet = self._embedding.device, self.prepare()
        at_once = 1 if device.type == "cpu" else self.embedding_batch_size
        dim = self._embedding.model_.resnet.pool_out_dim // 2
        for start in range(0, len(pieces), at_once):
            batch = pieces[start : start + at_once]
            needed = [piece for piece in batch if any(masks[w].any() for w in grid.windows_over(piece))]
            frames = {}
            if needed:
                cut = [cut_features(features, piece) for piece in needed]
                if device.type == "mps":  # every new shape is compiled, and the compiled program is never freed
                    cut += [torch.zeros_like(cut[0])] * (at_once - len(cut))
                found = resnet.forward_frames(torch.stack(cut).to(device))[: len(needed)]
                found = found[..., CONTEXT_FRAMES : CONTEXT_FRAMES + len(needed[0])]
                found = found.permute(0, 3, 1, 2).flatten(start_dim=2)
                frames = dict(zip((piece.start for piece in needed), found, strict=True))
            for piece in batch:
                nothing = torch.zeros(len(piece), dim, device=device)
                yield piece, frames.get(piece.start, nothing)


def cut_pieces(n_frames: int, *, is_balanced: bool) -> list[range]:
    """Cut frames into pieces of about ``PIECE_FRAMES``.

    Args:
        n_frames: how many frames there are.
        is_balanced: pieces of nearly equal length; else all of exactly ``PIECE_FRAMES``, the last past the end.
    """
    if not is_balanced:
        return [range(first, first + PIECE_FRAMES) for first in range(0, n_frames, PIECE_FRAMES)]
    edges = np.linspace(0, n_frames, max(1, round(n_frames / PIECE_FRAMES)) + 1).round().astype(int).tolist()
    return [range(first, last) for first, last in itertools.pairwise(edges)]


def cut_features(features: torch.Tensor, piece: range) -> torch.Tensor:
    """Return the features of a piece and its context, shape ``(features, bins)``, with zeros beyond the recording."""
    first, last = STRIDE * (piece.start - CONTEXT_FRAMES), STRIDE * (piece.stop + CONTEXT_FRAMES)
    missing = (max(0, -first), max(0, last - len(features)))
    return nn.functional.pad(features[max(0, first) : last], (0, 0, *missing))


def compute_features(model: Any, waveform: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - pyannote is not annotated
    """Return Kaldi's features of a whole recording, without a mean subtracted, shape ``(features, bins)``, on the CPU.

    The features of a window in stock pyannote, before their mean is subtracted, are a slice of these.
    """
    size = round(model.hparams.sample_rate * model.hparams.frame_length / 1000)
    hop = round(model.hparams.sample_rate * model.hparams.frame_shift / 1000)
    n_features = (len(waveform) - size) // hop + 1
    found = torch.empty(n_features, model.hparams.num_mel_bins)
    for first in range(0, n_features, _FEATURES_AT_ONCE):
        last = min(first + _FEATURES_AT_ONCE, n_features)
        part = waveform[first * hop : (last - 1) * hop + size]
        found[first:last] = model._fbank(part[None] * _FULL_SCALE)  # noqa: SLF001 - compute_fbank subtracts a mean
    return found


def running_mean(features: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return the mean to subtract from each feature: the average of the means of all windows that contain it."""
    total, seen = torch.zeros_like(features), torch.zeros(len(features), 1)
    for window in range(grid.n_windows):
        start = grid.window_start(window)
        its = slice(start, start + grid.window_features)
        total[its] += features[its].mean(dim=0)
        seen[its] += 1
    last_seen = int(seen.nonzero()[-1, 0])
    total[last_seen + 1 :], seen[last_seen + 1 :] = total[last_seen], seen[last_seen]
    return total.div_(seen)


def pool(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Pool frames with many masks in two matrix products; `pyannote.audio.models.blocks.pooling` takes one at a time.

    Args:
        frames: shape ``(frames, dim)``.
        weights: 0 or 1, shape ``(masks, frames)``.

    Returns:
        Mean and unbiased standard deviation, shape ``(masks, 2 * dim)``; zeros for an empty mask.
    """
    middle = frames.mean(dim=0)  # subtracted first, because the difference of two large sums would lose precision
    centred = frames - middle
    count = weights.sum(dim=1, keepdim=True)
    mean = weights @ centred / count.clamp(min=1)
    squares = weights @ centred.square() - count * mean.square()
    deviation = (squares.clamp(min=0) / (count - 1).clamp(min=1)).sqrt()
    pooled = torch.cat([mean + middle, deviation], dim=1)
    return torch.where(count > 0, pooled, torch.zeros_like(pooled))
