"""An engine without a model: each pitch is a voice, and its answer is a pure function of the samples.

It sleeps for a time that depends on the samples, and kills its process on a poisoned chunk. It logs every run and every
such death in a file, which the checks of the run compare with the counted attempts.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mac_agent.engines.engine import (
    SAMPLE_RATE_HZ,
    Diarization,
    EngineInfo,
    Hints,
    ReportProgress,
    SpeakerEvidence,
    Turn,
    Waveform,
)
from tests.faults.plan import POISON_HZ, STEP_S

INFO = EngineInfo("null", "pitch", "1", "cpu", "chaos", "pitch", "1")
LEAST_RMS = 0.1
DIMENSIONS = 64
NAP_STEP_S = 0.02


@dataclass(frozen=True)
class NullEngine:
    """Diarizes tones. `run_log` gets a line for each run and each death; `max_nap_s` is the longest sleep."""

    run_log: Path
    max_nap_s: float

    @property
    def info(self) -> EngineInfo:
        return INFO

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:
        turns = hear_pitches(waveform)
        labels = sorted({turn.speaker for turn in turns})
        digest = hashlib.sha256(waveform.tobytes()).digest()
        self._note(f"run {digest.hex()[:16]}")
        for label in labels:
            if pitch_of(label) >= POISON_HZ:
                self._note(f"death {pitch_of(label)}")
                os.kill(os.getpid(), signal.SIGKILL)
        until_s = time.monotonic() + self.max_nap_s * digest[0] / 255
        while (left_s := until_s - time.monotonic()) > 0:
            report("nap", 0.5)
            time.sleep(min(NAP_STEP_S, left_s))
        report("nap", 1.0)
        speech_s = {label: sum(t.end_s - t.start_s for t in turns if t.speaker == label) for label in labels}
        return Diarization(
            turns=turns,
            exclusive_turns=turns,
            speakers=tuple(SpeakerEvidence(label, speech_s[label], voice_of(pitch_of(label))) for label in labels),
            speech_s=sum(speech_s.values()),
            timings_ms={"nap": 1000 * self.max_nap_s},
            warnings=(),
        )

    def _note(self, line: str) -> None:
        descriptor = os.open(self.run_log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


def load_null_engine(run_log: Path, max_nap_s: float) -> NullEngine:
    """Return the engine; called in the worker."""
    return NullEngine(run_log, max_nap_s)


def pitch_of(label: str) -> int:
    return int(label.removeprefix("HZ_"))


def voice_of(pitch_hz: int) -> np.ndarray:
    """Return a unit vector, another for each pitch."""
    vector = np.random.default_rng(pitch_hz).standard_normal(DIMENSIONS)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def hear_pitches(waveform: Waveform) -> tuple[Turn, ...]:
    """Return one turn for each stretch of one pitch, on a grid of `STEP_S`."""
    step = round(STEP_S * SAMPLE_RATE_HZ)
    frames = waveform[: waveform.size // step * step].reshape(-1, step)
    loud = np.sqrt(np.mean(np.square(frames), axis=1)) >= LEAST_RMS
    peaks = np.argmax(np.abs(np.fft.rfft(frames, axis=1)), axis=1) if len(frames) else np.zeros(0, dtype=int)
    turns: list[Turn] = []
    before: int | None = None
    for place in np.flatnonzero(loud).tolist():
        label = f"HZ_{round(int(peaks[place]) / STEP_S)}"
        start_s, end_s = round(place * STEP_S, 1), round((place + 1) * STEP_S, 1)
        if turns and turns[-1].speaker == label and before == place - 1:
            turns[-1] = Turn(turns[-1].start_s, end_s, label)
        else:
            turns.append(Turn(start_s, end_s, label))
        before = place
    return tuple(turns)
