"""Voice samples of an engine that embeds short pieces of speech: one for each piece with clean speech of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mac_agent.engines.frames import FIRST_FRAME_START_S, FRAME_S
from mac_agent.engines.samples import SpeechSamples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mac_agent.engines.tracks import Piece


def sample_pieces(
    pieces: Sequence[Piece], embeddings: NDArray[np.float32], clean_s: NDArray[np.float64]
) -> SpeechSamples | None:
    """Return a sample for every piece in which somebody speaks alone, in order of time; None where none does.

    Args:
        pieces: each is speech from start to end.
        embeddings: shape ``(pieces, dim)``.
        clean_s: seconds of each piece in which nobody else speaks.
    """
    span_s = FIRST_FRAME_START_S + FRAME_S * np.array([(piece.first, piece.last) for piece in pieces])
    rows = np.flatnonzero((clean_s > 0) & np.isfinite(embeddings).all(axis=1))
    if not len(rows):
        return None
    rows = rows[np.lexsort((span_s[rows, 1], span_s[rows, 0]))]
    return SpeechSamples(
        start_s=np.maximum(span_s[rows, 0], 0.0),
        end_s=span_s[rows, 1],
        clean_s=clean_s[rows],
        embeddings=embeddings[rows],
    )
