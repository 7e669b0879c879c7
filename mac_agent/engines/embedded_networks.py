"""The networks of the embedded engine's two generations, each with the thresholds that suit its embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from mac_agent.engines.campplus import load_campplus
from mac_agent.engines.clean_frames import FRAMES_PER_S, clean_seconds, count_talkers
from mac_agent.engines.clustering import PieceEvidence, Policy
from mac_agent.engines.encoder import embed, load_encoder
from mac_agent.engines.filterbank import filter_bank
from mac_agent.engines.frames import FIVE_SECONDS, TEN_SECONDS
from mac_agent.engines.mel import mel_spectrogram
from mac_agent.engines.mel_cuts import cut_mels, subtract_noise
from mac_agent.engines.segmentation import load_segmentation, load_segmentation_3, segment
from mac_agent.engines.utterances import embed_pieces
from mac_agent.weights.models import EMBEDDED, EMBEDDED_GE2E, GENERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform
    from mac_agent.engines.frames import Grid
    from mac_agent.engines.tracks import Piece, Track
    from mac_agent.weights.models import WeightsFile

    ReportDone = Callable[[float], None]


class Networks(Protocol):
    """A segmentation network and a speaker network."""

    name: str
    """The engine's name: which generation this is."""
    grid: Grid
    policy: Policy

    def score(self, waveform: Waveform, report: ReportDone) -> NDArray[np.float16]:
        """Return who speaks in each window, shape ``(windows, frames, 3)``."""
        ...

    def embed(
        self,
        waveform: Waveform,
        scores: NDArray[np.float16],
        tracks: Sequence[Track],
        pieces: Sequence[Piece],
        report: ReportDone,
    ) -> PieceEvidence:
        """Return the pieces with their embeddings."""
        ...


def load_networks(name: str, data_dir: Path, device: torch.device) -> Networks:
    """Load the networks of a generation.

    Raises:
        ModelMissing: the weights were never fetched.
        ModelChanged: a file differs from the pinned one.
    """
    return Campplus(data_dir, device) if name == EMBEDDED else Ge2e(data_dir, device)


def weights_of(name: str) -> tuple[WeightsFile, WeightsFile]:
    """Return the files of the segmentation network and of the speaker network of a generation."""
    return GENERATIONS[name]


class Campplus:
    """segmentation-3.0 and CAM++ (docs/adr/0016-campplus.md)."""

    name = EMBEDDED
    grid = TEN_SECONDS
    policy = Policy()

    def __init__(self, data_dir: Path, device: torch.device) -> None:
        self._segmentation = load_segmentation_3(data_dir, device)
        self._encoder = load_campplus(data_dir, device)

    def score(self, waveform: Waveform, report: ReportDone) -> NDArray[np.float16]:
        """See ``Networks``."""
        return segment(self._segmentation, self.grid, waveform, report)

    def embed(
        self,
        waveform: Waveform,
        scores: NDArray[np.float16],  # noqa: ARG002 - part of the interface
        tracks: Sequence[Track],
        pieces: Sequence[Piece],
        report: ReportDone,
    ) -> PieceEvidence:
        """See ``Networks``."""
        embeddings, audio_s = embed_pieces(self._encoder, filter_bank(waveform), pieces, report)
        talkers = count_talkers(pieces)
        clean_s = np.array([clean_seconds(piece, talkers) for piece in pieces])
        return PieceEvidence(pieces, tracks, embeddings, audio_s=audio_s, clean_s=clean_s)


class Ge2e:
    """The segmentation network of 2022 and Resemblyzer's encoder (docs/adr/0005-embedded-engine.md)."""

    name = EMBEDDED_GE2E
    grid = FIVE_SECONDS
    policy = Policy()

    def __init__(self, data_dir: Path, device: torch.device) -> None:
        self._segmentation = load_segmentation(data_dir, device)
        self._encoder = load_encoder(data_dir, device)

    def score(self, waveform: Waveform, report: ReportDone) -> NDArray[np.float16]:
        """See ``Networks``."""
        return segment(self._segmentation, self.grid, waveform, report)

    def embed(
        self,
        waveform: Waveform,
        scores: NDArray[np.float16],
        tracks: Sequence[Track],
        pieces: Sequence[Piece],
        report: ReportDone,
    ) -> PieceEvidence:
        """See ``Networks``."""
        mels = subtract_noise(mel_spectrogram(waveform), scores, self.grid)
        cuts = cut_mels(waveform, len(mels), pieces)
        return PieceEvidence(
            pieces,
            tracks,
            embed(self._encoder, mels, cuts, report),
            audio_s=np.array([len(cut.frames) / FRAMES_PER_S for cut in cuts]),
            clean_s=np.array([cut.clean_s for cut in cuts]),
        )
