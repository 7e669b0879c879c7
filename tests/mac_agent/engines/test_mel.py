"""The mel spectrogram equals the one on which the speaker encoder was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchaudio", reason="could not import torchaudio: install the agent extra")

from benchmarks.recordings import load_sample
from mac_agent.engines.mel import mel_spectrogram

REFERENCE = np.load(Path(__file__).parent / "data" / "mel_reference.npz")["mels"]


def test_mels_equal_those_of_librosa() -> None:
    speech = load_sample().waveform[160_000:192_000]
    np.testing.assert_allclose(mel_spectrogram(speech), REFERENCE, atol=1e-3)
    # For quiet speech 1e-3 would be too lenient, so the difference is also limited relative to the largest mel.
    np.testing.assert_allclose(mel_spectrogram(speech), REFERENCE, atol=1e-4 * float(REFERENCE.max()))


def test_long_audio_is_the_same_in_blocks_as_in_one() -> None:
    speech = np.tile(load_sample().waveform, 3)  # 90 s: two blocks
    whole = mel_spectrogram(speech)
    around = mel_spectrogram(speech[58 * 16_000 : 62 * 16_000])
    np.testing.assert_allclose(whole[5_900:6_100], around[100:300], atol=1e-5)


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 400, 16_000])
def test_there_is_one_frame_per_10_ms_and_one_more(samples: int) -> None:
    assert mel_spectrogram(np.zeros(samples, dtype=np.float32)).shape == (1 + samples // 160, 40)
