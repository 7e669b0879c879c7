"""The interface that every diarization engine implements, and its records. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mac_agent.errors import InvalidWaveform

SAMPLE_RATE_HZ = 16_000

Waveform = NDArray[np.float32]
"""Mono samples at ``SAMPLE_RATE_HZ``, shape ``(samples,)``, nominally within [-1, 1]."""

ReportProgress = Callable[[str, float], None]
"""Called with (stage, fraction 0..1). An exception raised in it stops the run and propagates: that is how to cancel."""


@dataclass(frozen=True)
class Turn:
    """One speaker speaking without a break."""

    start_s: float
    end_s: float
    speaker: str
    """``SPEAKER_00``, ``SPEAKER_01``, … in order of first speech, local to one call of ``diarize``."""


@dataclass(frozen=True, eq=False)
class SpeakerEvidence:
    """What a later linker needs to recognise this speaker elsewhere."""

    speaker: str
    clean_speech_s: float
    """Seconds in which this speaker alone was heard, the seconds behind ``embedding``."""
    embedding: NDArray[np.float32] | None
    """Shape ``(dim,)``, L2-normalised; None where there was too little clean speech to trust one."""


@dataclass(frozen=True)
class Hints:
    """What the caller believes about the number of speakers: respected where the audio allows, never an error."""

    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What produced a result. Embeddings are comparable only where model and revision of the embedding are equal."""

    name: str
    model: str
    revision: str
    device: str
    mode: str
    embedding_model: str
    embedding_revision: str
    mode_reason: str = ""
    """Why this mode, where there is a choice."""


@dataclass(frozen=True, eq=False)
class Diarization:
    """Who spoke when in one recording. Silence is a valid answer: no turns, no speakers."""

    turns: tuple[Turn, ...]
    """Sorted by start; overlapping speech is overlapping turns."""
    exclusive_turns: tuple[Turn, ...]
    """Sorted by start, never overlapping: the most likely single speaker at each moment."""
    speakers: tuple[SpeakerEvidence, ...]
    """One per speaker named in ``turns``, in the order of their labels."""
    speech_s: float
    """Seconds in which anyone speaks (overlap counted once)."""
    timings_ms: Mapping[str, float]
    warnings: tuple[str, ...]


class Engine(Protocol):
    """A loaded diarization model. Not thread-safe: one call at a time, in the process that loaded it."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is and which weights it holds."""
        ...

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:
        """Find who speaks when.

        Args:
            waveform: float32, shape ``(samples,)``, mono at ``SAMPLE_RATE_HZ``, finite.
            hints: what is believed about the number of speakers.
            report: called several times per run, so that a supervisor sees life.

        Raises:
            InvalidWaveform: wrong type, shape, or samples that are not finite.
        """
        ...


def check_waveform(waveform: Waveform) -> None:
    """Refuse what would be answered without an error and wrongly.

    Raises:
        InvalidWaveform: wrong type, shape, or samples that are not finite.
    """
    if waveform.dtype != np.float32 or waveform.ndim != 1:
        raise InvalidWaveform(
            f"The waveform is {waveform.dtype} of shape {waveform.shape}; convert it to mono float32, shape (samples,)."
        )
    if not np.isfinite(waveform).all():
        raise InvalidWaveform("The waveform holds NaN or infinity; decode it again or replace them by zero.")
