"""Chunks of one job that were sampled at different rates sound alike to the engine, and a warning says so."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mac_agent.audio import DecodedChunk, decode
from mac_agent.bands import match_bands
from mac_agent.engines.engine import SAMPLE_RATE_HZ, Waveform
from mac_agent.sample_buffer import BLOCK_SAMPLES

NOISE: Waveform = np.float32(0.1) * np.random.default_rng(1).standard_normal(BLOCK_SAMPLES + 100_000).astype(np.float32)


def chunk(rate_hz: int, sound: Waveform = NOISE[:160_000], kind: str = "WAV") -> DecodedChunk:
    file = io.BytesIO()
    soundfile.write(file, sound, rate_hz, format=kind)
    return decode(file, max_s=600.0)


def share_above(waveform: Waveform, hz: float) -> float:
    energy = np.abs(np.fft.rfft(waveform)) ** 2
    return float(energy[np.fft.rfftfreq(waveform.size, 1 / SAMPLE_RATE_HZ) > hz].sum() / energy.sum())


@pytest.mark.parametrize(("low_hz", "high_hz"), [(8_000, 16_000), (8_000, 48_000), (11_025, 44_100)])
def test_all_have_the_band_of_the_narrowest(low_hz: int, high_hz: int) -> None:
    chunks = [chunk(high_hz), chunk(low_hz, kind="FLAC"), chunk(high_hz)]
    assert share_above(chunks[0].waveform, low_hz / 2) > 0.1
    (warning,) = match_bands(chunks)
    assert warning.startswith(f"audio.rate_changes: chunks sampled at {low_hz} Hz and at more")
    assert max(share_above(each.waveform, low_hz / 2 + 100) for each in chunks[::2]) < 1e-4


@pytest.mark.parametrize("rates_hz", [(16_000, 48_000, 44_100), (8_000, 8_000), ()])
def test_rates_that_make_no_difference_change_nothing(rates_hz: tuple[int, ...]) -> None:
    chunks = [chunk(rate_hz) for rate_hz in rates_hz]
    before = [each.waveform.copy() for each in chunks]
    assert match_bands(chunks) == []
    assert all(np.array_equal(each.waveform, kept) for each, kept in zip(chunks, before, strict=True))


def test_less_than_a_telephone_s_rate_takes_no_more_off_the_others() -> None:
    wide = chunk(16_000)
    match_bands([wide, chunk(2_000)])
    assert share_above(wide.waveform, 2_000) > 0.3


def test_nothing_moves_in_time_or_level_at_any_block() -> None:
    tone = np.sin(2 * np.pi * 1_000 / SAMPLE_RATE_HZ * np.arange(NOISE.size)).astype(np.float32)
    wide = replace(chunk(16_000), waveform=tone.copy())
    match_bands([wide, chunk(8_000)])
    assert np.abs(wide.waveform - tone)[200:-200].max() < 0.01


def test_a_rate_that_changes_within_a_file_counts() -> None:
    body = b"".join(_wav(rate_hz) for rate_hz in (16_000, 8_000))
    both = decode(io.BytesIO(body), max_s=600.0)
    assert both.rates_hz == {16_000, 8_000}
    assert len(match_bands([both])) == 1
    assert share_above(both.waveform[: 4 * SAMPLE_RATE_HZ], 4_100) < 1e-4


def _wav(rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, NOISE[: 4 * rate_hz], rate_hz, format="WAV")
    return file.getvalue()
