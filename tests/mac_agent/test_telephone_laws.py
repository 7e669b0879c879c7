"""Samples of one law of telephones under the name of the other are read as they are, and are told about."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mac_agent.engines.engine import Hints
from mac_agent.inference import ChunkSource, JobResult, WorkerJob, run_job
from tests.mac_agent.tone_engine import ToneEngine

SUBTYPES = {"pcm_alaw": "ALAW", "pcm_mulaw": "ULAW"}
OTHER = {"pcm_alaw": "pcm_mulaw", "pcm_mulaw": "pcm_alaw"}
FAULTS = {"pcm_alaw": "it says A-law, the samples are µ-law", "pcm_mulaw": "it says µ-law, the samples are A-law"}
RATE_HZ = 8_000
CHUNK_S = 5

pytestmark = [pytest.mark.shared, pytest.mark.parametrize("law", SUBTYPES)]


@pytest.fixture(scope="module")
def recordings(shared_dir: Path) -> list[np.ndarray]:
    """Real recordings: the first half minute of each, at 8 kHz."""
    found = []
    for path in sorted((shared_dir / "audio").glob("[abcm]*/[!e]*.wav")):  # without the empty one
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        every = rate_hz // RATE_HZ
        mono = np.convolve(samples.mean(axis=1), np.ones(every) / every, "same")[::every]
        found.append(mono[: 30 * RATE_HZ])
    return found


def run(folder: Path, law: str, named: str, samples: np.ndarray, chunk_s: float = CHUNK_S) -> JobResult:
    """Diarize the samples, in chunks, coded by one law and named one."""
    sources, size = [], round(chunk_s * RATE_HZ)
    for at in range(0, len(samples), size):
        file = io.BytesIO()
        soundfile.write(
            file, np.clip(samples[at : at + size], -1.0, 0.999), RATE_HZ, format="RAW", subtype=SUBTYPES[law]
        )
        path = folder / str(at)
        path.write_bytes(file.getvalue())
        sources.append(ChunkSource(path, encoding=named, sample_rate=RATE_HZ, channels=np.ndim(samples)))
    job = WorkerJob(1, tuple(sources), Hints(), max_audio_s=600.0)
    return run_job(ToneEngine(folder / "behaviour"), job, lambda _stage, _share: None, lambda _seconds: None)


def faults(result: JobResult) -> list[str]:
    return [line.partition(": ")[2] for line in result.warnings if line.startswith("audio.header_wrong")]


@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_speech_named_by_the_other_law_is_read_as_it_is_and_told_once(
    law: str, gain: float, recordings: list[np.ndarray], tmp_path: Path
) -> None:
    for samples in recordings:
        meant = run(tmp_path, law, law, gain * samples)
        found = run(tmp_path, law, OTHER[law], gain * samples)
        assert faults(found) == [FAULTS[OTHER[law]]]
        assert (found.quality, found.duration_s) == (meant.quality, meant.duration_s)


def test_chunks_of_a_tenth_of_a_second_are_judged_too(law: str, recordings: list[np.ndarray], tmp_path: Path) -> None:
    found = run(tmp_path, law, OTHER[law], recordings[2], chunk_s=0.1)
    assert faults(found) == [FAULTS[OTHER[law]]]


def test_of_two_channels_each_is_compared_with_itself(law: str, recordings: list[np.ndarray], tmp_path: Path) -> None:
    both = np.stack([recordings[2], np.roll(recordings[2], RATE_HZ)], axis=1)
    assert faults(run(tmp_path, law, law, both)) == []
    assert faults(run(tmp_path, law, OTHER[law], both)) == [FAULTS[OTHER[law]]]


@pytest.mark.parametrize("gain", [0.003, 0.1, 1.0, 10.0, 100.0])
def test_what_has_the_right_name_is_left_alone_however_quiet_or_clipped(
    law: str, gain: float, recordings: list[np.ndarray], tmp_path: Path
) -> None:
    for samples in recordings:
        for at in range(0, len(samples), 2 * CHUNK_S * RATE_HZ):
            assert faults(run(tmp_path, law, law, gain * samples[at : at + CHUNK_S * RATE_HZ])) == []


@pytest.mark.parametrize("level", [0.0, 0.02, 0.3, 1.0])
def test_tones_and_silence_are_left_alone(law: str, level: float, tmp_path: Path) -> None:
    time_s = np.arange(CHUNK_S * RATE_HZ) / RATE_HZ
    for pitch_hz in (50, 440, 1_000, 2_000, 3_000, 3_900):
        sine = np.sin(2 * np.pi * pitch_hz * time_s + 0.1)
        for sound in (sine, np.sign(sine)):
            assert faults(run(tmp_path, law, law, level * sound)) == []
