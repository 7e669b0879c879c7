"""Embed the pieces of a recording with CAM++, which runs once over every utterance.

The network's masks follow what is heard around, so it hears an utterance whole; a piece is then what is pooled around
its middle. Near by 0.95 in cosine to embedding each piece alone, in less time, and with fewer errors
(docs/adr/0018-campplus.md).
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from mac_agent.engines.campplus import DIMENSION
from mac_agent.engines.clean_frames import FRAMES_PER_S, find_clean_frames, frames_around

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from mac_agent.engines.campplus_rows import RowsOfCampplus
    from mac_agent.engines.tracks import Piece

POOLED_FRAMES = 160  # 1.6 s around the middle of a piece
_BATCH_FRAMES = 10 * FRAMES_PER_S  # more at a time is no faster, and takes more memory
_LONGEST_FRAMES = 10 * FRAMES_PER_S  # what takes no breath for longer is run in equal parts


def embed_pieces(
    network: RowsOfCampplus,
    bands: NDArray[np.float16],
    pieces: Sequence[Piece],
    talkers: NDArray[np.int8],
    report: Callable[[float], None],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Embed every piece.

    Args:
        network: CAM++.
        bands: the filter bank of the recording, shape ``(frames, 80)``.
        pieces: sorted by utterance and time.
        talkers: how many speak at each frame of the segmentation.
        report: called with the fraction 0..1 that is done.

    Returns:
        L2-normalised embeddings, shape ``(pieces, 192)``, and the seconds of audio that each was pooled from.
    """
    embeddings = np.empty((len(pieces), DIMENSION), dtype=np.float32)
    audio_s = np.empty(len(pieces))
    done = 0
    for batch in _gather(pieces, talkers, len(bands)):
        parts, spans = [], []
        columns = 0
        for utterance, clean in batch:
            around = [frames_around(clean, piece, POOLED_FRAMES) for piece in utterance]
            spans += [(columns + span.start // 2, columns + (span.stop + 1) // 2) for span in around]
            audio_s[done : done + len(around)] = [(span.stop - span.start) / FRAMES_PER_S for span in around]
            parts += _centre(torch.from_numpy(bands[clean].astype(np.float32)).to(network.device))
            columns += (len(clean) + 1) // 2
            done += len(around)
        embeddings[done - len(spans) : done] = network.pool(network.frames(parts), spans).cpu().numpy()
        report(done / len(pieces))
    return embeddings, audio_s


def _gather(
    pieces: Sequence[Piece], talkers: NDArray[np.int8], n_frames: int
) -> Iterator[list[tuple[list[Piece], NDArray[np.intp]]]]:
    """Yield the utterances, each as its pieces and its clean frames, as many at a time as fill a batch."""
    batch: list[tuple[list[Piece], NDArray[np.intp]]] = []
    for _, group in groupby(pieces, key=lambda piece: piece.utterance):
        utterance = list(group)
        batch.append((utterance, find_clean_frames(utterance[0].first, utterance[-1].last, talkers, n_frames)))
        if sum(len(clean) for _, clean in batch) >= _BATCH_FRAMES:
            yield batch
            batch = []
    if batch:
        yield batch


def _centre(bands: torch.Tensor) -> list[torch.Tensor]:
    """Take the mean off an utterance, and cut it where it is too long to be run as a whole."""
    centred = bands - bands.mean(dim=0)
    edges = np.linspace(0, len(bands), -(-len(bands) // _LONGEST_FRAMES) + 1).astype(int) // 2 * 2
    edges[-1] = len(bands)
    return [centred[first:last] for first, last in pairwise(edges.tolist())]
