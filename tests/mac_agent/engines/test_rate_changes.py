"""A call whose sample rate changes in the middle, as where a headset takes over, keeps its two voices."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from benchmarks.recordings import SHARED_AUDIO
from mac_agent.audio import decode
from mac_agent.engines.engine import SAMPLE_RATE_HZ, Hints
from mac_agent.inference import ChunkSource, WorkerJob, run_job

if TYPE_CHECKING:
    from mac_agent.engines.engine import Engine, Waveform

pytestmark = pytest.mark.shared
CHUNK_SAMPLES = 5 * SAMPLE_RATE_HZ


def call(*readers: str) -> Waveform:
    """Return four utterances of each reader in turn, with pauses."""
    pieces = []
    for place in range(4):
        for reader in readers:
            path = sorted((SHARED_AUDIO / "librispeech" / reader).glob("*.flac"))[place]
            with path.open("rb") as stream:
                pieces += [decode(stream, max_s=60.0).waveform[: 8 * SAMPLE_RATE_HZ], np.zeros(10_000, np.float32)]
    return np.concatenate(pieces)


def as_wav(samples: Waveform, rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV")
    return file.getvalue()


def at_half_rate(samples: Waveform) -> Waveform:
    spectrum = np.fft.rfft(samples)
    half = np.fft.irfft(spectrum[: samples.size // 4 + 1], samples.size // 2)
    return np.asarray(half / 2, dtype=np.float32)


@pytest.mark.parametrize("begins_wide", [True, False])
@pytest.mark.parametrize("readers", [("1688", "367"), ("1998", "2033")])
def test_a_change_of_rate_makes_no_third_voice(
    embedded: Engine, tmp_path: Path, readers: tuple[str, str], begins_wide: bool
) -> None:
    sound, sources = call(*readers), []
    for number, start in enumerate(range(0, sound.size, CHUNK_SAMPLES)):
        piece = sound[start : start + CHUNK_SAMPLES]
        is_wide = (start < sound.size // 2) is begins_wide
        path = tmp_path / f"{number}.wav"
        path.write_bytes(as_wav(piece, SAMPLE_RATE_HZ) if is_wide else as_wav(at_half_rate(piece), SAMPLE_RATE_HZ // 2))
        sources.append(ChunkSource(path))
    job = WorkerJob(1, tuple(sources), Hints(), max_audio_s=600.0)
    result = run_job(embedded, job, lambda _stage, _share: None, lambda _seconds: None)
    assert len({turn.speaker for turn in result.diarization.turns}) == 2
    assert [warning for warning in result.warnings if warning.startswith("audio.rate_changes")]
