"""Find out whether what was found to be one voice is two that sound alike. Pure functions.

Average linkage joins two alike voices before they are whole, and nothing takes them apart again. So each voice that
was found is cut in two where its embeddings differ most. Any voice can be cut like that; what tells two voices from
one is that the cut holds for speech it was not made from (docs/adr/0018-campplus.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST_PIECES = 4  # two for each part
_ROUNDS = 20
_LEAST_SUM = 1e-6  # a part whose embeddings outside an utterance add up to less has none there


def find_second_voice(
    embeddings: Floats, weights: Floats, utterance: NDArray[np.intp], least_gain: float
) -> NDArray[np.bool_] | None:
    """Return which pieces of what was found to be one voice may be another's; None where none may.

    Args:
        embeddings: of the pieces, shape ``(pieces, dim)``, L2-normalised.
        weights: of the pieces.
        utterance: of each piece. The speech that a cut is tried on is that of other utterances.
        least_gain: what `gain_of_cut` has to reach.
    """
    if len(embeddings) < _LEAST_PIECES:
        return None
    second = cut_in_two(embeddings, weights)
    return second if gain_of_cut(embeddings, weights, utterance, second) >= least_gain else None


def cut_in_two(embeddings: Floats, weights: Floats) -> NDArray[np.bool_]:
    """Return which pieces belong to the second of two parts: spherical 2-means, begun along the main direction.

    All pieces are in one part where no second one holds together.
    """
    centre = weights @ embeddings
    centre /= max(float(np.linalg.norm(centre)), _LEAST_SUM)
    across = embeddings - np.outer(embeddings @ centre, centre)
    second: NDArray[np.bool_] = across @ _main_direction(across * np.sqrt(weights)[:, None]) > 0
    for _ in range(_ROUNDS):
        sums = np.stack([(weights * part) @ embeddings for part in (~second, second)])
        length = np.linalg.norm(sums, axis=1)
        if length.min() < _LEAST_SUM:
            break
        nearer = (embeddings @ (sums / length[:, None]).T).argmax(axis=1) == 1
        if (nearer == second).all():
            break
        second = nearer
    return second


def gain_of_cut(embeddings: Floats, weights: Floats, utterance: NDArray[np.intp], second: NDArray[np.bool_]) -> float:
    """Return by how much nearer, in cosine, pieces are to their part than to the whole, as other utterances show them.

    The means of both leave out the utterance of the piece. Utterances without which a part is empty say nothing; 0 if
    all are such.
    """
    gain, total = 0.0, 0.0
    share = weights * np.stack([~second, second])
    sums = share @ embeddings
    order = np.argsort(utterance, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(utterance[order])) + 1):
        others = sums - share[:, own] @ embeddings[own]
        length = np.linalg.norm(others, axis=1)
        if length.min() < _LEAST_SUM:
            continue
        whole = others.sum(axis=0)
        whole /= max(float(np.linalg.norm(whole)), _LEAST_SUM)
        part = (others / length[:, None])[second[own].astype(int)]
        gain += float(weights[own] @ (embeddings[own] * (part - whole)).sum(axis=1))
        total += float(weights[own].sum())
    return gain / total if total else 0.0


def _main_direction(rows: Floats) -> Floats:
    """Return the direction in which rows vary most; its sign is fixed, so that the same rows give the same answer."""
    _, vectors = np.linalg.eigh(rows.T @ rows)
    main: Floats = vectors[:, -1]
    return main if main[np.abs(main).argmax()] > 0 else -main
