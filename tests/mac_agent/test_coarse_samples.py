"""Samples of few bits are decoded as they were meant, and their noise is told with a number."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import soundfile

from mac_agent.audio import decode
from tests.mac_agent.sounds import warnings_of

RATE_HZ = 8_000
# As uneven as speech: a buzz of 120 Hz, in syllables.
TIME_S = np.arange(4 * RATE_HZ) / RATE_HZ
SOUND = (
    0.1 * np.clip(np.sin(2 * np.pi * 2.5 * TIME_S), 0, 1) * sum(np.sin(2 * np.pi * 120 * n * TIME_S) for n in (1, 3, 5))
)


def decoded(container: str, subtype: str, sound: np.ndarray = SOUND):
    file = io.BytesIO()
    soundfile.write(file, sound, RATE_HZ, format=container, subtype=subtype)
    return decode(file, max_s=60.0)


def distance_db(waveform: np.ndarray, delay: int = 0) -> float:
    """How far the error lies below the sound."""
    found = waveform[2 * delay :: 2][: SOUND.size]
    return 10 * np.log10(np.sum(SOUND[: found.size] ** 2) / np.sum((SOUND[: found.size] - found) ** 2))


@pytest.mark.parametrize(
    ("container", "subtype", "least_db", "said"),
    [
        ("WAV", "PCM_U8", 25, r"2\d dB below the sound"),
        ("AIFF", "PCM_S8", 25, r"2\d dB below the sound"),
        ("FLAC", "PCM_S8", 25, r"2\d dB below the sound"),
        ("WAV", "IMA_ADPCM", 15, r"adpcm_ima_wav, 4\.\d bits a sample"),
        ("WAV", "MS_ADPCM", 15, r"adpcm_ms, 4\.\d bits a sample"),
        ("AIFF", "IMA_ADPCM", 15, r"adpcm_ima_qt, 4\.\d bits a sample"),
        ("WAV", "GSM610", 8, r"gsm_ms, 1\.\d bits a sample"),
    ],
)
def test_coarse_samples_are_the_sound_and_are_warned_about(container, subtype, least_db, said):
    chunk = decoded(container, subtype)
    assert distance_db(chunk.waveform) > least_db
    assert abs(float(chunk.waveform.mean())) < 1e-2
    (warning,) = warnings_of(chunk)
    assert re.fullmatch(rf"audio\.low_quality: .*{said}", warning)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW"])
def test_usual_samples_are_not_warned_about(subtype):
    chunk = decoded("WAV", subtype)
    assert distance_db(chunk.waveform) > 30
    assert warnings_of(chunk) == ()


def test_usual_samples_of_a_far_too_quiet_sound_are_coarse():
    quiet, warning = warnings_of(decoded("WAV", "PCM_16", SOUND * 1e-3))
    assert quiet.startswith("audio.quiet: ")
    assert re.fullmatch(r"audio\.low_quality: .* \d+ dB below the sound", warning)


def test_silence_has_no_quality():
    assert warnings_of(decoded("WAV", "PCM_U8", np.zeros(RATE_HZ))) == ()


@pytest.mark.parametrize("samples", [100_000, 240_000])
def test_apple_lossless_in_caf_is_decoded_to_its_last_sample(samples):
    sound = 0.1 * np.random.default_rng(1).standard_normal(samples)
    chunk = decoded("CAF", "ALAC_16", sound)
    assert chunk.waveform.size == 2 * samples
    assert chunk.warnings == ()
