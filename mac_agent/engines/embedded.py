"""The embedded engine: works anywhere, asks nobody for weights. Segmentation, pieces, voices, turns."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mac_agent.engines.clustering import FULL_PIECE_S, PieceEvidence, Policy, VoiceCount, cluster
from mac_agent.engines.encoder import embed, load_encoder
from mac_agent.engines.engine import (
    SAMPLE_RATE_HZ,
    Diarization,
    EngineInfo,
    Hints,
    ReportProgress,
    SpeakerEvidence,
    Waveform,
    check_waveform,
)
from mac_agent.engines.frames import FRAME_S, count_frames
from mac_agent.engines.mel import FRAMES_PER_S, mel_spectrogram
from mac_agent.engines.segmentation import load_segmentation, segment
from mac_agent.engines.timeline import activity, as_turns, count_speakers, first_frames, loudest, speaking
from mac_agent.engines.tracks import cut_pieces, follow
from mac_agent.engines.voices import cut_voices, subtract_noise
from mac_agent.errors import DeviceUnavailable
from mac_agent.weights.models import ENCODER, SEGMENTATION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pyannote.audio.models.segmentation import PyanNet

    from mac_agent.engines.clustering import Labels
    from mac_agent.engines.encoder import Encoder

DEFAULT_THREADS = 2
LEAST_EMBEDDING_S = 1.0  # less clean speech than this makes no embedding a linker could trust
SILENT_PEAK = 1e-4  # -80 dBFS: below the noise of any microphone, there is nothing to hear
MODE = "offline"


def load_embedded(data_dir: Path, *, device: str = "auto", threads: int | None = None) -> EmbeddedEngine:
    """Load the embedded engine.

    Args:
        data_dir: holds ``models/embedded/``.
        device: ``auto`` is the CPU, where this small network is at home; or a torch device name.
        threads: CPU threads torch may use, 2 when None.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: a weights file is not the pinned one.
        DeviceUnavailable: the device cannot be used on this machine.
    """
    torch.set_num_threads(threads or DEFAULT_THREADS)
    chosen = "cpu" if device == "auto" else device
    try:
        torch_device = torch.device(chosen)
        torch.zeros(1, device=torch_device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceUnavailable(
            f"torch cannot use the device {chosen!r} here ({error}). Choose device 'cpu' or 'auto'."
        ) from error
    return EmbeddedEngine(
        load_segmentation(data_dir, torch_device), load_encoder(data_dir, torch_device), device=chosen
    )


class EmbeddedEngine:
    """pyannote's 2022 segmentation network and Resemblyzer's speaker encoder, clustered by ``clustering``."""

    def __init__(self, segmentation: PyanNet, encoder: Encoder, *, device: str, policy: Policy | None = None) -> None:
        self._segmentation = segmentation
        self._encoder = encoder
        self._policy = policy or Policy()
        self._info = EngineInfo(
            name="embedded",
            model=SEGMENTATION.model,
            revision=SEGMENTATION.revision,
            device=device,
            mode=MODE,
            embedding_model=ENCODER.model,
            embedding_revision=ENCODER.revision,
        )

    @property
    def info(self) -> EngineInfo:
        """What this engine is and which weights it holds."""
        return self._info

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:
        """Find who speaks when; see ``Engine.diarize``.

        Raises:
            InvalidWaveform: wrong type, shape, or samples that are not finite.
        """
        check_waveform(waveform)
        clock = StageTimer()
        heard = self.hear(waveform, report, clock)
        if heard is None:
            return Diarization((), (), (), 0.0, clock.timings_ms, ("no speech was heard",))
        report("clustering", 0.0)
        found = decide(heard, hints, self._policy, clock)
        report("clustering", 1.0)
        return found

    def hear(self, waveform: Waveform, report: ReportProgress, clock: StageTimer) -> NetworkOutput | None:
        """Run both networks; None where nobody speaks. All that follows is arithmetic on the result."""
        if max(waveform.max(initial=0.0), -waveform.min(initial=0.0)) < SILENT_PEAK:
            return None
        with clock("segmentation"):
            scores = segment(self._segmentation, waveform, lambda done: report("segmentation", done))
        with clock("tracks"):
            tracks = follow(scores)
            pieces = cut_pieces(tracks)
        if not pieces:
            return None
        with clock("embedding"):
            mels = subtract_noise(mel_spectrogram(waveform), scores)
            cuts = cut_voices(waveform, len(mels), pieces)
            found = embed(self._encoder, mels, cuts, lambda done: report("embedding", done))
        evidence = PieceEvidence(
            pieces=pieces,
            tracks=tracks,
            embeddings=found,
            heard_s=np.array([len(cut.frames) / FRAMES_PER_S for cut in cuts]),
            clean_s=np.array([cut.clean_s for cut in cuts]),
        )
        return NetworkOutput(scores, evidence, len(waveform))


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """What both networks found in a recording."""

    scores: NDArray[np.float16]
    """Segmentation, shape ``(windows, 293, 3)``."""
    evidence: PieceEvidence
    n_samples: int


def decide(heard: NetworkOutput, hints: Hints, policy: Policy, clock: StageTimer) -> Diarization:
    """Decide who is who, and write it down as turns. Deterministic."""
    evidence = heard.evidence
    with clock("clustering"):
        labels = cluster(evidence, _wanted(hints), policy)
    with clock("timeline"):
        loud = activity(heard.scores, evidence.tracks, evidence.pieces, labels)
        found = _assemble(loud, count_speakers(heard.scores), evidence, labels, heard.n_samples)
    return replace(found, timings_ms=clock.timings_ms)


class StageTimer:
    """Milliseconds per stage."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what runs in the context under this name."""
        began = time.perf_counter()
        yield
        self.timings_ms[stage] = 1000 * (time.perf_counter() - began)


def _wanted(hints: Hints) -> VoiceCount:
    """Read hints leniently: what contradicts itself or is not positive is ignored."""
    exact = hints.num_speakers if hints.num_speakers and hints.num_speakers > 0 else None
    most = exact or (hints.max_speakers if hints.max_speakers and hints.max_speakers > 0 else None)
    least = exact or hints.min_speakers or 1
    return VoiceCount(least=max(1, min(least, most or least)), most=most)


def _assemble(
    heard: NDArray[np.float32],
    count: NDArray[np.int8],
    evidence: PieceEvidence,
    labels: Labels,
    n_samples: int,
) -> Diarization:
    duration_s = n_samples / SAMPLE_RATE_HZ
    chosen = speaking(heard, count)
    chosen[count_frames(n_samples) :] = False
    seen = [speaker for speaker in np.argsort(first_frames(chosen), kind="stable").tolist() if chosen[:, speaker].any()]
    names = [f"SPEAKER_{number:02d}" for number in range(len(seen))]
    chosen, heard = chosen[:, seen], heard[:, seen]
    return Diarization(
        turns=as_turns(chosen, names, duration_s),
        exclusive_turns=as_turns(loudest(chosen, heard), names, duration_s),
        speakers=tuple(_evidence(evidence, labels == label, name) for label, name in zip(seen, names, strict=True)),
        speech_s=float(np.count_nonzero(chosen.any(axis=1))) * FRAME_S,
        timings_ms={},
        warnings=(),
    )


def _evidence(evidence: PieceEvidence, own: NDArray[np.bool_], name: str) -> SpeakerEvidence:
    clean_s = float(evidence.clean_s[own].sum())
    weights = evidence.clean_s[own] * np.minimum(evidence.heard_s[own] / FULL_PIECE_S, 1.0)
    total = weights @ evidence.embeddings[own].astype(np.float64)
    norm = float(np.linalg.norm(total))
    if clean_s < LEAST_EMBEDDING_S or norm == 0.0:
        return SpeakerEvidence(name, clean_s, None)
    return SpeakerEvidence(name, clean_s, (total / norm).astype(np.float32))
