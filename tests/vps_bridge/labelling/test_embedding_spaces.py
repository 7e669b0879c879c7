"""Embeddings are compared by the rules of their model, and a mean of little speech less strictly than one of much."""

from __future__ import annotations

import numpy as np
import pytest

from vps_bridge.labelling.embedding_spaces import MEASURED, UNMEASURED, space_of


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("3d-speaker/campplus@92f29b94e694/192", "campplus"),
        ("resemblyzer/ge2e@39373b86598f", "resemblyzer"),
        ("pyannote/WeSpeaker-voxceleb@abc", "wespeaker"),
        ("somebody/new-model@1", ""),
    ],
)
def test_a_model_is_known_by_its_name(model: str, word: str) -> None:
    assert space_of(model).word == word


def test_a_model_that_was_not_measured_is_compared_most_strictly() -> None:
    assert all(space.threshold <= UNMEASURED.threshold for space in MEASURED)


def test_little_speech_of_a_voice_has_a_smaller_cosine_and_never_none() -> None:
    space = space_of("campplus")
    least = [space.least_cosine(clean_s, 60.0) for clean_s in (0.0, 1.0, 3.0, 10.0, 60.0)]
    assert least == sorted(least)
    assert least[0] > 0
    assert np.isclose(least[-1], space.threshold, rtol=0.02)
