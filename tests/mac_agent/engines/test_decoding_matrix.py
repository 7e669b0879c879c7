"""One utterance in every format, at every rate, mono and stereo: the turns are those of the original.

Silence is added before and after it, so that its edges are clear. Where a recording fades into noise, a network finds
other edges in a voice that is limited to 4 kHz (an 8 kHz file of any format), whatever the decoder.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from benchmarks.recordings import utterances
from mac_agent.engines.agreement import changed_s
from mac_agent.inference import JobResult
from tests.mac_agent.engines.engine_worker import EngineWorker
from tests.mac_agent.sounds import as_wav, encode_file

pytestmark = [pytest.mark.shared, pytest.mark.long]

RATE_HZ = 16_000
EDGE_S = 0.1
VOICE, LONGEST_S = "367", 6.0  # an utterance without a pause that a small change of the samples would add or remove
OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
FORMATS = {
    "wav 8 bit": ("wav", "pcm_u8"),
    "wav 16 bit": ("wav", "pcm_s16le"),
    "wav 24 bit": ("wav", "pcm_s24le"),
    "wav float": ("wav", "pcm_f32le"),
    "wav A-law": ("wav", "pcm_alaw"),
    "wav mu-law": ("wav", "pcm_mulaw"),
    "flac": ("flac", "flac"),
    "ogg opus": ("ogg", "libopus"),
    "ogg vorbis": ("ogg", "vorbis"),
    "mp3": ("mp3", "libmp3lame"),
    "m4a aac": ("ipod", "aac"),
    "webm opus": ("webm", "libopus"),
}
RATES_HZ = (8_000, 16_000, 22_050, 44_100, 48_000)
# Every test run covers each format at each rate with the embedded engine, alternating between mono and stereo. The
# other cases, and those with pyannote, which is given the same samples, run in `make acceptance`.
CASES = [
    (name, rate_hz, channels)
    for name, (_, codec) in FORMATS.items()
    for rate_hz in RATES_HZ
    for channels in (1, 2)
    if codec != "libopus" or rate_hz in OPUS_RATES_HZ
]


def is_quick(engine: str, case: tuple[str, int, int]) -> bool:
    name, rate_hz, channels = case
    return engine == "embedded" and channels == 1 + (list(FORMATS).index(name) + RATES_HZ.index(rate_hz)) % 2


@pytest.fixture(scope="module")
def utterance() -> np.ndarray:
    speech = next(speech for speech in utterances(VOICE) if 5 * RATE_HZ < len(speech) < LONGEST_S * RATE_HZ)
    pause = np.zeros(3 * RATE_HZ // 4, dtype=np.float32)
    return np.concatenate([pause, speech, pause])


@pytest.fixture(scope="module")
def original(start_engine: Callable[[str], EngineWorker], utterance: np.ndarray) -> Callable[[str], JobResult]:
    """The result of each engine for the unencoded utterance."""

    @cache
    def diarize(engine: str) -> JobResult:
        result = start_engine(engine).run(as_wav(utterance))
        assert isinstance(result, JobResult)
        assert len(result.diarization.speakers) == 1
        assert result.diarization.speech_s > 4
        return result

    return diarize


def encoded(samples: np.ndarray, name: str, rate_hz: int, channels: int) -> bytes:
    """The utterance as a file; in stereo the left channel is louder."""
    resampled = resample_poly(samples, rate_hz, RATE_HZ)
    planes = np.stack([resampled, resampled * np.float32(0.6)][:channels])
    container, codec = FORMATS[name]
    if codec == "vorbis":  # PyAV contains only FFmpeg's own encoder, which is experimental
        file = io.BytesIO()
        soundfile.write(file, planes.T, rate_hz, format="OGG", subtype="VORBIS")
        return file.getvalue()
    return encode_file(planes, container, codec, rate_hz=rate_hz)


@pytest.mark.parametrize(
    ("engine", "case"),
    [
        pytest.param(
            engine,
            case,
            id=f"{engine}-{case[0]}-{case[1]}-{case[2]}",
            marks=[] if is_quick(engine, case) else [pytest.mark.slow],
        )
        for engine in ("embedded", "pyannote")
        for case in CASES
    ],
)
def test_every_format_rate_and_layout_gives_the_turns_of_the_original(
    start_engine: Callable[[str], EngineWorker],
    utterance: np.ndarray,
    original: Callable[[str], JobResult],
    engine: str,
    case: tuple[str, int, int],
) -> None:
    result = start_engine(engine).run(encoded(utterance, *case))
    assert isinstance(result, JobResult), result
    coarse = [warning for warning in result.warnings if warning.startswith("audio.low_quality: ")]
    assert (len(result.warnings), len(coarse)) == ((1, 1) if case[0] == "wav 8 bit" else (0, 0))
    assert result.duration_s == pytest.approx(original(engine).duration_s, abs=0.01)
    assert changed_s(result.diarization.turns, original(engine).diarization.turns, tolerance_s=EDGE_S) == 0.0
