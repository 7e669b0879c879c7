"""Recordings with references, for benchmarks and tests: real ones, and conversations made of LibriSpeech voices.

Real recordings are in a `shared/audio` folder beside the repository, which users do not have. Conversations are
made of whole utterances from that folder: every sample is real speech; only the order of the voices is made up.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from scipy.signal import fftconvolve, resample_poly

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
SHARED_AUDIO = Path(__file__).resolve().parents[2] / "shared" / "audio"
AMI = ("dev00", "dev01", "trn00", "trn03", "trn04", "trn05")
_FRAME = 160  # 10 ms
_SPEECH_FLOOR_DB = -35.0  # relative to the loudest 10 ms of the utterance; quieter edges are cut off


@dataclass(frozen=True, eq=False)
class Recording:
    """Audio and who speaks when in it."""

    name: str
    waveform: NDArray[np.float32]
    """Mono at 16 kHz."""
    reference: tuple[tuple[float, float, str], ...]
    """(start_s, end_s, speaker)."""

    @property
    def speakers(self) -> int:
        """How many speakers the reference has."""
        return len({speaker for _, _, speaker in self.reference})

    @property
    def duration_s(self) -> float:
        """Length of the audio."""
        return len(self.waveform) / SAMPLE_RATE_HZ


def sample_path() -> Path:
    """Return pyannote's own 30 s sample, found without importing pyannote.audio."""
    spec = importlib.util.find_spec("pyannote")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "audio" / "sample" / "sample.wav"
        if path.is_file():
            return path
    raise FileNotFoundError("pyannote/audio/sample/sample.wav: install the agent extra (pip install -e '.[agent]').")


def load_sample() -> Recording:
    """Return pyannote's own sample: 30 s of a telephone call, two speakers, human reference."""
    return _load(sample_path())


def load_real() -> list[Recording]:
    """Return the real recordings with references, the sample first; without the shared folder the sample alone."""
    paths = [sample_path(), SHARED_AUDIO / "calls/repair_call_40.wav"]
    paths += [SHARED_AUDIO / f"broadcast/{name}.wav" for name in ("diarizationExample", "diarizationExample2")]
    paths += [SHARED_AUDIO / f"ami/{name}.wav" for name in AMI]
    paths += sorted((SHARED_AUDIO / "mixtures").glob("*.wav"))
    return [_load(path) for path in paths if path.is_file()]


def voices() -> list[str]:
    """Return the ten LibriSpeech voices."""
    return sorted(folder.name for folder in (SHARED_AUDIO / "librispeech").iterdir() if folder.is_dir())


def utterances(voice: str) -> list[NDArray[np.float32]]:
    """Return a voice's utterances without their silent edges."""
    paths = sorted((SHARED_AUDIO / "librispeech" / voice).glob("*.flac"))
    return [_trim(_read(path)) for path in paths]


def make_solo(voice: str, duration_s: float = 60.0) -> Recording:
    """One voice alone, utterances with 0.5 s between them."""
    pause = np.zeros(SAMPLE_RATE_HZ // 2, dtype=np.float32)
    joined = np.concatenate([part for speech in utterances(voice) for part in (speech, pause)])
    waveform = joined[: int(duration_s * SAMPLE_RATE_HZ)]
    return Recording(f"solo-{voice}", waveform, ((0.0, len(waveform) / SAMPLE_RATE_HZ, voice),))


def make_conversation(
    n_voices: int, seed: int, *, longest_turn_s: float = 12.0, order_seed: int | None = None
) -> Recording:
    """Some voices taking turns, 0.1-0.8 s apart, each utterance used at most once, eight turns a voice.

    ``seed`` decides who talks and, unless ``order_seed`` is given, when.
    """
    random = np.random.default_rng(seed)
    chosen = sorted(random.choice(voices(), size=n_voices, replace=False).tolist())
    random = random if order_seed is None else np.random.default_rng(order_seed)
    waiting = {voice: utterances(voice) for voice in chosen}
    parts: list[NDArray[np.float32]] = []
    reference: list[tuple[float, float, str]] = []
    at, last = 0, ""
    for _ in range(8 * n_voices):
        able = [voice for voice in chosen if waiting[voice] and (voice != last or n_voices == 1)]
        if not able:
            break
        last = str(random.choice(able))
        speech = waiting[last].pop(0)[: int(random.uniform(1.0, longest_turn_s) * SAMPLE_RATE_HZ)]
        pause = np.zeros(int(random.uniform(0.1, 0.8) * SAMPLE_RATE_HZ), dtype=np.float32)
        reference.append((at / SAMPLE_RATE_HZ, (at + len(speech)) / SAMPLE_RATE_HZ, last))
        parts += [speech, pause]
        at += len(speech) + len(pause)
    return Recording(f"talk{n_voices}-{seed}", np.concatenate(parts), tuple(reference))


def join(recordings: list[Recording], name: str, *, gap_s: float, same_voices: bool) -> Recording:
    """Recordings one after the other with silence between; a name is one voice throughout, or one per recording."""
    parts: list[NDArray[np.float32]] = []
    reference: list[tuple[float, float, str]] = []
    at = 0
    for recording in recordings:
        offset_s = at / SAMPLE_RATE_HZ
        reference += [
            (start + offset_s, end + offset_s, who if same_voices else f"{recording.name}/{who}")
            for start, end, who in recording.reference
        ]
        parts += [recording.waveform, np.zeros(int(gap_s * SAMPLE_RATE_HZ), dtype=np.float32)]
        at += len(parts[-2]) + len(parts[-1])
    return Recording(name, np.concatenate(parts), tuple(reference))


def at_8_khz(recording: Recording) -> Recording:
    """The recording through a telephone's bandwidth."""
    narrow = resample_poly(resample_poly(recording.waveform, 1, 2), 2, 1)[: len(recording.waveform)]
    return Recording(f"{recording.name} 8k", narrow.astype(np.float32), recording.reference)


def with_noise(recording: Recording, snr_db: float, seed: int = 0) -> Recording:
    """The recording under pink-ish noise at a signal-to-noise ratio."""
    white = np.random.default_rng(seed).standard_normal(len(recording.waveform) + 63)
    noise = np.convolve(white, 0.9 ** np.arange(64), mode="valid")
    gain = _rms(recording.waveform) / _rms(noise) * 10 ** (-snr_db / 20)
    noisy = (recording.waveform + gain * noise).astype(np.float32)
    return Recording(f"{recording.name} {snr_db:.0f}dB", noisy, recording.reference)


def with_reverberation(recording: Recording, rt60_s: float = 0.5, seed: int = 0) -> Recording:
    """The recording in a room: exponentially decaying noise as impulse response, direct sound as loud as its tail."""
    n = int(rt60_s * SAMPLE_RATE_HZ)
    tail = np.random.default_rng(seed).standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    response = np.concatenate(([1.0], tail / np.sqrt(np.sum(tail**2))))
    wet = fftconvolve(recording.waveform, response)[: len(recording.waveform)]
    wet *= _rms(recording.waveform) / _rms(wet)
    return Recording(f"{recording.name} room", wet.astype(np.float32), recording.reference)


def with_levels(recording: Recording, step_db: float = 12.0) -> Recording:
    """The recording with every second voice quieter by ``step_db``; for one voice, the second half quieter."""
    gain = np.ones(len(recording.waveform), dtype=np.float32)
    names = sorted({speaker for _, _, speaker in recording.reference})
    quiet = np.float32(10 ** (-step_db / 20))
    if len(names) == 1:
        gain[len(gain) // 2 :] = quiet
    for start_s, end_s, speaker in recording.reference:
        if len(names) > 1 and names.index(speaker) % 2:
            gain[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)] = quiet
    return Recording(f"{recording.name} levels", recording.waveform * gain, recording.reference)


def _load(path: Path) -> Recording:
    return Recording(path.stem, _read(path), tuple(_reference(path)))


def _read(path: Path) -> NDArray[np.float32]:
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = resample_poly(mono, SAMPLE_RATE_HZ, rate_hz)
    return np.ascontiguousarray(mono, dtype=np.float32)


def _reference(path: Path) -> list[tuple[float, float, str]]:
    exact = path.with_suffix(".ref.json")
    if exact.is_file():
        turns = json.loads(exact.read_text())["turns"]
        return [(turn["start"], turn["end"], turn["speaker"]) for turn in turns]
    fields = [line.split() for line in path.with_suffix(".rttm").read_text().splitlines() if line.strip()]
    return [(float(f[3]), float(f[3]) + float(f[4]), f[7]) for f in fields]


def _trim(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    frames = waveform[: len(waveform) // _FRAME * _FRAME].reshape(-1, _FRAME)
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    speech = np.flatnonzero(level_db > level_db.max() + _SPEECH_FLOOR_DB)
    return waveform[speech[0] * _FRAME : (speech[-1] + 1) * _FRAME]


def _rms(waveform: NDArray[np.float32] | NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
