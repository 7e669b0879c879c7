"""The result or failure of each kind of bad input, with both engines in real worker processes.

Inputs that only a caller inside the process can make (a time-major array, float64 or NaN passed to `diarize`) are in
`test_embedded_engine` and `test_pyannote_engine`; workers that crash or hang are in `tests/mac_agent/test_worker_*`. An
engine never receives a path or a file object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.signal import resample_poly

from benchmarks.recordings import load_sample, utterances
from mac_agent.engines.agreement import changed_s
from mac_agent.engines.engine import Hints, Turn
from mac_agent.inference import JobFailed, JobProgress, JobResult
from schemas.failure import FailureCode
from tests.inbox import WAIT_S
from tests.mac_agent.engines.engine_worker import EngineWorker, as_message
from tests.mac_agent.sounds import as_float_wav, as_wav, encode_file, tone

pytestmark = pytest.mark.long

RATE_HZ = 16_000
CLIP_S = 9.0
EDGE_S = 0.1


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """A telephone call of two people, short enough for one window of either engine."""
    return load_sample().waveform[8 * RATE_HZ : round((8 + CLIP_S) * RATE_HZ)]


@pytest.fixture(scope="module")
def found(engine_worker: EngineWorker, speech: np.ndarray) -> JobResult:
    """The result for the undamaged clip."""
    result = diarized(engine_worker, as_wav(speech))
    assert result.diarization.turns
    assert result.warnings == ()
    return result


def diarized(engine_worker: EngineWorker, data: bytes, **options: Any) -> JobResult:
    """The result, after checking that it can be encoded as a message and that its turns lie within the audio."""
    result = engine_worker.run(data, **options)
    assert isinstance(result, JobResult), result
    message = as_message(result)
    assert len(message.turns) == len(result.diarization.turns)
    for turn in (*result.diarization.turns, *result.diarization.exclusive_turns):
        assert 0.0 <= turn.start_s < turn.end_s <= result.duration_s + 1e-6
    for voice in result.diarization.speakers:
        assert voice.embedding is None or np.linalg.norm(voice.embedding) == pytest.approx(1.0, abs=1e-4)
    return result


def are_alike(one: JobResult, other: JobResult) -> bool:
    """Whether the turns of both results are the same, with boundaries within a tenth of a second."""
    return changed_s(one.diarization.turns, other.diarization.turns, tolerance_s=EDGE_S) == 0.0


def most_at_once(turns: tuple[Turn, ...]) -> int:
    edges = sorted([(turn.end_s, -1) for turn in turns] + [(turn.start_s, 1) for turn in turns])
    now = most = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


REFUSED: dict[str, tuple[Callable[[], bytes], dict[str, Any], FailureCode]] = {
    "no bytes": (lambda: b"", {}, FailureCode.AUDIO_EMPTY),
    "a header without samples": (lambda: as_wav(np.zeros(0)), {}, FailureCode.AUDIO_EMPTY),
    "text": (lambda: b"dear diary, today " * 100, {}, FailureCode.AUDIO_UNDECODABLE),
    "noise behind a magic word": (lambda: b"fLaC" + bytes(range(256)) * 40, {}, FailureCode.AUDIO_UNDECODABLE),
    "a container cut before its index": (
        lambda: encode_file(tone(440, 6), "ipod", "aac")[:20_000],
        {},
        FailureCode.AUDIO_UNDECODABLE,
    ),
    "samples without a rate": (
        lambda: bytes(32_000),
        {"encoding": "pcm_s16le", "channels": 1},
        FailureCode.AUDIO_UNDECODABLE,
    ),
    "one sample a second": (lambda: as_wav(tone(440, 1), rate_hz=1), {}, FailureCode.AUDIO_UNDECODABLE),
    "longer than allowed": (lambda: as_wav(tone(440, 6)), {"max_audio_s": 5.0}, FailureCode.AUDIO_TOO_LONG),
    "an hour in a small file": (
        lambda: encode_file(np.zeros(3600 * RATE_HZ, dtype=np.float32), "flac", "flac"),
        {},
        FailureCode.AUDIO_TOO_LONG,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_audio_that_cannot_be_used_is_a_failure_with_its_code_and_the_worker_lives(
    engine_worker: EngineWorker, name: str
) -> None:
    make, options, code = REFUSED[name]
    pid = engine_worker.pid
    failure = engine_worker.run(make(), **options)
    assert isinstance(failure, JobFailed)
    assert (failure.code, failure.chunk_index, failure.is_cancelled) == (code, 0, False)
    assert len(failure.message) > 20, "a failure says what to do"
    assert engine_worker.pid == pid


def test_audio_that_is_gone_from_the_disk_is_an_incomplete_payload_and_the_worker_lives(
    engine_worker: EngineWorker, speech: np.ndarray
) -> None:
    pid = engine_worker.pid
    failure = engine_worker.wait(engine_worker.submit_file(engine_worker.directory / "emptied-by-the-system.audio"))
    assert isinstance(failure, JobFailed)
    assert (failure.code, failure.chunk_index) == (FailureCode.PAYLOAD_INCOMPLETE, 0), "no attempt at the audio"
    assert "disk" in failure.message
    diarized(engine_worker, as_wav(speech))
    assert engine_worker.pid == pid


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus")])
def test_a_file_cut_off_gives_the_turns_of_what_is_there(
    engine_worker: EngineWorker, speech: np.ndarray, container: str, codec: str
) -> None:
    rate_hz = 48_000 if codec == "libopus" else RATE_HZ
    whole = encode_file(resample_poly(speech, rate_hz, RATE_HZ), container, codec, rate_hz=rate_hz)
    result = diarized(engine_worker, whole[: len(whole) * 2 // 3])
    assert result.diarization.turns
    assert 0.4 * CLIP_S < result.duration_s < 0.85 * CLIP_S
    assert any(warning.startswith("audio.truncated: ") for warning in result.warnings)


@pytest.mark.parametrize("claims_s", [0.0, 90.0, float("inf")])
def test_a_header_that_lies_about_the_length_is_not_believed(
    engine_worker: EngineWorker, speech: np.ndarray, found: JobResult, claims_s: float
) -> None:
    claimed = 0xFFFFFFFF if claims_s == float("inf") else round(claims_s * 2 * RATE_HZ)
    result = diarized(engine_worker, as_wav(speech, data_bytes=claimed))
    assert result.duration_s == pytest.approx(CLIP_S, abs=0.01)
    assert result.diarization.turns == found.diarization.turns
    missing = f"audio.truncated: {round((90 - CLIP_S) * 2 * RATE_HZ)} bytes are missing"
    assert result.warnings == ((missing,) if claims_s == 90.0 else ())


@pytest.mark.parametrize("seconds", [0.05, 1.0, 12.0])
def test_silence_is_an_answer_without_turns(engine_worker: EngineWorker, seconds: float) -> None:
    result = diarized(engine_worker, as_wav(np.zeros(round(seconds * RATE_HZ), dtype=np.float32)))
    assert (result.diarization.turns, result.diarization.speakers, result.diarization.speech_s) == ((), (), 0.0)
    assert "no speech was heard" in result.warnings


def test_samples_that_are_not_finite_are_silenced_and_reported(
    engine_worker: EngineWorker, speech: np.ndarray, found: JobResult
) -> None:
    damaged = speech.copy()
    damaged[50_000:50_080], damaged[90_000] = np.nan, np.inf
    result = diarized(engine_worker, as_float_wav(damaged))
    assert result.warnings == ("audio.not_finite",)
    assert result.diarization.speech_s == pytest.approx(found.diarization.speech_s, abs=0.5)
    nothing = diarized(engine_worker, as_float_wav(np.full_like(speech, np.nan)))
    assert nothing.diarization.turns == ()
    assert "audio.not_finite" in nothing.warnings


def test_clipped_quiet_and_offset_audio_is_diarized_and_its_quality_reported(
    engine_worker: EngineWorker, speech: np.ndarray, found: JobResult
) -> None:
    loudest = float(np.abs(speech).max())
    clipped = diarized(engine_worker, as_float_wav(np.clip(speech * 8 / loudest, -1, 1)))
    assert clipped.quality.clipped_ratio > 10 * found.quality.clipped_ratio + 0.01
    quiet = diarized(engine_worker, as_float_wav(speech * np.float32(10 ** (-40 / 20))))
    assert quiet.quality.rms_dbfs == pytest.approx(found.quality.rms_dbfs - 40, abs=0.2)
    offset = diarized(engine_worker, as_float_wav(speech / np.float32(2 * loudest) + np.float32(0.4)))
    assert offset.quality.rms_dbfs > -9  # the constant of 0.4 alone has -8 dBFS
    for result in (clipped, quiet, offset):
        assert result.diarization.speech_s == pytest.approx(found.diarization.speech_s, abs=1.5)
        assert as_message(result).quality is not None


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_another_sample_rate_gives_the_same_turns(
    engine_worker: EngineWorker, speech: np.ndarray, found: JobResult, rate_hz: int
) -> None:
    result = diarized(engine_worker, as_wav(resample_poly(speech, rate_hz, RATE_HZ), rate_hz=rate_hz))
    assert result.duration_s == pytest.approx(CLIP_S, abs=0.01)
    assert are_alike(result, found)


@pytest.mark.parametrize("phase", [1, -1], ids=["in phase", "in anti-phase"])
def test_both_channels_of_stereo_are_heard(
    engine_worker: EngineWorker, speech: np.ndarray, found: JobResult, phase: int
) -> None:
    result = diarized(engine_worker, as_wav(np.stack([speech, phase * speech], axis=1).ravel(), channels=2))
    assert result.warnings == (("audio.antiphase",) if phase < 0 else ())
    assert are_alike(result, found)


@pytest.mark.parametrize("seconds", [0.02, 0.3, 1.0, 1.9, 3.0])
def test_audio_shorter_than_a_window_has_turns_within_it_and_no_weak_embedding(
    engine_worker: EngineWorker, speech: np.ndarray, seconds: float
) -> None:
    result = diarized(engine_worker, as_wav(speech[: round(seconds * RATE_HZ)]))
    if seconds >= 1.0:
        assert result.diarization.turns
    for voice in result.diarization.speakers:
        assert voice.clean_speech_s >= 1.0 or voice.embedding is None


@pytest.mark.shared
@pytest.mark.parametrize(
    "hints",
    [
        Hints(num_speakers=9),
        Hints(min_speakers=60),
        Hints(min_speakers=5, max_speakers=2),
        Hints(num_speakers=-1, min_speakers=0, max_speakers=-7),
        Hints(max_speakers=127),
    ],
    ids=["too many", "more than windows hold", "contradictory", "negative", "a maximum beyond reason"],
)
def test_hints_that_do_not_fit_add_no_speaker_and_are_no_failure(engine_worker: EngineWorker, hints: Hints) -> None:
    result = diarized(engine_worker, as_wav(utterances("1688")[6]), hints=hints)
    assert len(result.diarization.speakers) == 1


def test_more_voices_at_once_than_a_model_knows_are_no_failure(engine_worker: EngineWorker) -> None:
    whole = load_sample().waveform
    voices = [whole[start * RATE_HZ : (start + 9) * RATE_HZ] for start in (0, 7, 14, 20)]
    result = diarized(engine_worker, as_wav(np.sum(voices, axis=0) / 2))
    assert result.diarization.turns
    assert most_at_once(result.diarization.exclusive_turns) == 1
    if engine_worker.name == "pyannote":
        assert most_at_once(result.diarization.turns) <= 2  # its powerset classes hold at most two speakers


def test_a_job_cancelled_in_the_engine_leaves_it_usable(
    engine_worker: EngineWorker, speech: np.ndarray, found: JobResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may take longer than that from one look at the pipe to the next; then the process is ended.
    monkeypatch.setattr("mac_agent.worker.CANCEL_GRACE_S", WAIT_S)
    pid = engine_worker.pid
    token = engine_worker.submit(as_wav(np.tile(load_sample().waveform, 10)))
    engine_worker.wait_for(JobProgress)
    engine_worker.worker.cancel(token)
    failure = engine_worker.wait_for(JobResult, JobFailed)
    assert isinstance(failure, JobFailed)
    assert failure.is_cancelled
    again = diarized(engine_worker, as_wav(speech))
    assert engine_worker.pid == pid
    assert again.diarization.turns == found.diarization.turns


def test_the_same_bytes_give_the_same_answer(engine_worker: EngineWorker, speech: np.ndarray, found: JobResult) -> None:
    again = diarized(engine_worker, as_wav(speech))
    assert again.diarization.turns == found.diarization.turns
    for one, other in zip(again.diarization.speakers, found.diarization.speakers, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)
