"""The embedded engine, whose weights are public: segmentation, pieces, voices, turns. Both its generations."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mac_agent.engines.clustering import FULL_PIECE_S, VoiceCount, cluster
from mac_agent.engines.embedded_networks import load_networks, weights_of
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
from mac_agent.engines.piece_samples import sample_pieces
from mac_agent.engines.reconstruction import activity, as_turns, first_frames, speaking, strongest
from mac_agent.errors import DeviceUnavailable
from mac_agent.weights.models import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from mac_agent.engines.clustering import Labels, PieceEvidence, Policy
    from mac_agent.engines.embedded_networks import Networks, Segmentation

DEFAULT_THREADS = 2
LEAST_EMBEDDING_S = 1.0  # an embedding of less clean speech is not reliable enough for linking
SILENT_PEAK = 1e-4  # -80 dBFS, below the noise of any microphone
MODE = "offline"


def load_embedded(
    data_dir: Path, name: str = EMBEDDED, *, device: str = "auto", threads: int | None = None
) -> EmbeddedEngine:
    """Load the embedded engine.

    Args:
        data_dir: contains ``models/embedded/``.
        name: the generation, one of ``mac_agent.weights.models.GENERATIONS``.
        device: ``auto`` is the CPU, which is fast enough for these small networks; or a torch device name.
        threads: CPU threads that torch may use, 2 when None.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: a weights file differs from the pinned one.
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
    return EmbeddedEngine(load_networks(name, data_dir, torch_device), device=chosen)


class EmbeddedEngine:
    """A segmentation network and a speaker network, whose pieces are clustered by ``clustering``."""

    def __init__(self, networks: Networks, *, device: str) -> None:
        self._networks = networks
        segmentation, encoder = weights_of(networks.name)
        self._info = EngineInfo(
            name=networks.name,
            model=segmentation.model,
            revision=segmentation.revision,
            device=device,
            mode=MODE,
            embedding_model=encoder.model,
            embedding_revision=encoder.revision,
        )

    @property
    def info(self) -> EngineInfo:
        """Name, mode, device and weights of this engine."""
        return self._info

    @property
    def policy(self) -> Policy:
        """The thresholds of this generation."""
        return self._networks.policy

    def diarize(self, waveform: Waveform, hints: Hints, report: ReportProgress) -> Diarization:
        """Find who speaks when; see ``Engine.diarize``.

        Raises:
            InvalidWaveform: wrong type, shape, or samples that are not finite.
        """
        check_waveform(waveform)
        clock = StageTimer()
        output = self.run_networks(waveform, report, clock)
        if output is None:
            return Diarization((), (), (), 0.0, clock.timings_ms, ("no speech was heard",))
        report("clustering", 0.0)
        found = to_diarization(output, hints, self.policy, clock)
        report("clustering", 1.0)
        return found

    def run_networks(self, waveform: Waveform, report: ReportProgress, clock: StageTimer) -> NetworkOutput | None:
        """Run both networks; None where nobody speaks. `to_diarization` computes the turns from the result."""
        if max(waveform.max(initial=0.0), -waveform.min(initial=0.0)) < SILENT_PEAK:
            return None
        with clock("segmentation"):
            found = self._networks.segment(waveform, lambda done: report("segmentation", done))
        if not found.pieces:
            return None
        with clock("embedding"):
            evidence = self._networks.embed(waveform, found, lambda done: report("embedding", done))
        return NetworkOutput(found, evidence, len(waveform))


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """The output of both networks for a recording."""

    segmentation: Segmentation
    evidence: PieceEvidence
    n_samples: int


def to_diarization(output: NetworkOutput, hints: Hints, policy: Policy, clock: StageTimer) -> Diarization:
    """Cluster the pieces into speakers, and return their turns. Deterministic."""
    evidence, heard = output.evidence, output.segmentation
    with clock("clustering"):
        labels = cluster(evidence, _read_hints(hints), policy)
    with clock("timeline"):
        strength = activity(len(heard.scores), heard.grid, evidence.tracks, evidence.pieces, labels)
        found = _assemble(strength, heard.talkers, evidence, labels, output.n_samples)
    samples = sample_pieces(evidence.pieces, evidence.embeddings, evidence.clean_s)
    return replace(found, timings_ms=clock.timings_ms, samples=samples)


class StageTimer:
    """Measures how long each stage takes, in milliseconds."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure the time spent in the context, and store it under the name of the stage."""
        began = time.perf_counter()
        yield
        self.timings_ms[stage] = 1000 * (time.perf_counter() - began)


def _read_hints(hints: Hints) -> VoiceCount:
    """Return the number of voices to find; hints that contradict each other or are not positive are ignored."""
    exact = hints.num_speakers if hints.num_speakers and hints.num_speakers > 0 else None
    most = exact or (hints.max_speakers if hints.max_speakers and hints.max_speakers > 0 else None)
    least = exact or hints.min_speakers or 1
    return VoiceCount(least=max(1, min(least, most or least)), most=most)


def _assemble(
    strength: NDArray[np.float32],
    count: NDArray[np.int8],
    evidence: PieceEvidence,
    labels: Labels,
    n_samples: int,
) -> Diarization:
    duration_s = n_samples / SAMPLE_RATE_HZ
    chosen = speaking(strength, count)
    chosen[count_frames(n_samples) :] = False
    order = np.argsort(first_frames(chosen), kind="stable").tolist()
    speakers = [speaker for speaker in order if chosen[:, speaker].any()]
    names = [f"SPEAKER_{number:02d}" for number in range(len(speakers))]
    chosen, strength = chosen[:, speakers], strength[:, speakers]
    return Diarization(
        turns=as_turns(chosen, names, duration_s),
        exclusive_turns=as_turns(strongest(chosen, strength), names, duration_s),
        speakers=tuple(_evidence(evidence, labels == label, name) for label, name in zip(speakers, names, strict=True)),
        speech_s=float(np.count_nonzero(chosen.any(axis=1))) * FRAME_S,
        timings_ms={},
        warnings=(),
    )


def _evidence(evidence: PieceEvidence, own: NDArray[np.bool_], name: str) -> SpeakerEvidence:
    seconds = evidence.clean_s[own] * evidence.heard[own]
    clean_s = float(seconds.sum())
    weights = seconds * np.minimum(evidence.audio_s[own] / FULL_PIECE_S, 1.0)
    total = weights @ evidence.embeddings[own].astype(np.float64)
    norm = float(np.linalg.norm(total))
    if clean_s < LEAST_EMBEDDING_S or norm == 0.0:
        return SpeakerEvidence(name, clean_s, None)
    return SpeakerEvidence(name, clean_s, (total / norm).astype(np.float32))
