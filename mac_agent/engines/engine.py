"""The interface that every diarization engine implements, and its records. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mac_agent.engines.samples import SpeechSamples
from mac_agent.errors import InvalidWaveform

SAMPLE_RATE_HZ = 16_000

Waveform = NDArray[np.float32]
"""Mono samples at ``SAMPLE_RATE_HZ``, shape ``(samples,)``, nominally within [-1, 1]."""

ReportProgress = Callable[[str, float], None]
"""Called with (stage, fraction 0..1). To cancel a run, raise an exception in it: the run stops and propagates it."""


@dataclass(frozen=True)
class Turn:
    """An interval in which one speaker speaks without a break."""

    start_s: float
    end_s: float
    speaker: str
    """``SPEAKER_00``, ``SPEAKER_01``, … in order of first speech, local to one call of ``diarize``."""


@dataclass(frozen=True, eq=False)
class SpeakerEvidence:
    """What linking needs to recognise this speaker in other jobs."""

    speaker: str
    clean_speech_s: float
    """Seconds in which only this speaker speaks; ``embedding`` is computed from them."""
    embedding: NDArray[np.float32] | None
    """Shape ``(dim,)``, L2-normalised; None where there was too little clean speech for a reliable one."""


@dataclass(frozen=True)
class Hints:
    """The number of speakers that the caller expects. A hint that does not fit the audio is ignored, never an error."""

    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None


@dataclass(frozen=True)
class EngineInfo:
    """The engine that produced a result. Embeddings are comparable only if their model and revision are equal."""

    name: str
    model: str
    revision: str
    device: str
    mode: str
    embedding_model: str
    embedding_revision: str
    mode_reason: str = ""
    """Why this mode was chosen, for an engine with several modes."""


@dataclass(frozen=True, eq=False)
class Diarization:
    """Who spoke when in one recording. For silence, there are no turns and no speakers."""

    turns: tuple[Turn, ...]
    """Sorted by start; where several people speak at once, their turns overlap."""
    exclusive_turns: tuple[Turn, ...]
    """Sorted by start, never overlapping: the most likely single speaker at each moment."""
    speakers: tuple[SpeakerEvidence, ...]
    """One per speaker named in ``turns``, in the order of their labels."""
    speech_s: float
    """Seconds in which at least one speaker speaks."""
    timings_ms: Mapping[str, float]
    warnings: tuple[str, ...]
    samples: SpeechSamples | None = None
    """What the speakers were clustered from; None where nobody speaks, or where an engine has none to share."""


class Engine(Protocol):
    """A loaded diarization model. Not thread-safe: one call at a time, in the process that loaded it."""

    @property
    def info(self) -> EngineInfo:
        """Name, mode, device and weights of this engine."""
        ...

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:
        """Find who speaks when.

        Args:
            waveform: float32, shape ``(samples,)``, mono at ``SAMPLE_RATE_HZ``, finite.
            hints: the expected number of speakers.
            report: called several times per run, so that a supervisor can tell that the run is progressing.

        Raises:
            InvalidWaveform: wrong type, shape, or samples that are not finite.
        """
        ...


def check_waveform(waveform: Waveform) -> None:
    """Raise an error for samples that an engine would otherwise diarize wrongly without noticing.

    Raises:
        InvalidWaveform: wrong type, shape, or samples that are not finite.
    """
    if waveform.dtype != np.float32 or waveform.ndim != 1:
        raise InvalidWaveform(
            f"The waveform is {waveform.dtype} of shape {waveform.shape}; convert it to mono float32, shape (samples,)."
        )
    if not np.isfinite(waveform).all():
        raise InvalidWaveform("The waveform holds NaN or infinity; decode it again or replace them by zero.")
