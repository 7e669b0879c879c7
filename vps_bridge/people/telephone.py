"""What a telephone alone makes two voices similar by.

A narrow band and coarse coding leave their mark on an embedding: two strangers by telephone are as similar as one
person in two rooms. How much of a vector is the telephone is its part along the mean of ten readers by telephone, which
is nobody's voice. The product of two such parts is the similarity that the telephone explains.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BEYOND_TELEPHONE = 0.32
"""So much more similar than by the telephone alone a voice must be to a person's prints."""

# By embedding space, for a direction belongs to its weights: little-endian float16 in base64, by `make bench-people`.
_DIRECTIONS: Mapping[str, str] = {
    "3d-speaker/campplus@92f29b94e694/192": (
        "JayArQYsTq0Aqdyt46TpJ+CrhqiJsHsrtCW2pV8oLKpLIG2lWSwSq+8uiSPIno4yfKylJd2syqyZKDQoRqw5J/0foaz7LoAp"
        "F6oxsPwpACy4JVUoqbCBLi0keC0+r38c5yuvL1ueD6rVrWsgXKi2MngumaazLDAoQaGKql8uay1FHiGpFqz9q9ooDSK4Llwr"
        "xp00IpSwYinRLB0lrqhQLTSvcy7Srk4poRvXKEEvpjBMrBit3qvXI54ujCrCsDMo5y7ppv4pHqkdKAmoxicOq+Ug4K7NLvAu"
        "lacqneGcta+mpYmrkBSGKO4uNyg6LISorZmIKOMkUK4RrdCbTZWoqRglxCz9rv6achy0sIuuAS07IAKwFCl0rDQu3JzsqaYw"
        "HBCasIApNq5MntSqx6PLrZAmD6tLquUgxBoCrFiwoKxsKGWncC0ULiIqFyyPrQwkKKVTLdkvwbEnLnYqBavDL8ot8aQbIfGo"
        "c6QxJwumIRhtKOWuRqMBqx0sJCDZouul"
    ),
}


def similarity_by_telephone(
    embedding_space: str, heard: NDArray[np.float64], known: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return how similar the telephone alone makes each of the heard to each of the known; None for unknown models.

    Args:
        embedding_space: model, revision and length of the vectors.
        heard: vectors of length 1, one a row.
        known: the same.
    """
    data = _DIRECTIONS.get(embedding_space)
    if data is None:
        return None
    direction = np.frombuffer(base64.b64decode(data), dtype="<f2").astype(np.float64)
    direction /= np.linalg.norm(direction)
    return np.outer(heard @ direction, known @ direction)
