"""The networks of the embedded engine's two generations, each with the thresholds that suit its embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mac_agent.engines.campplus import load_campplus
from mac_agent.engines.campplus_rows import RowsOfCampplus
from mac_agent.engines.clean_frames import FRAMES_PER_S, clean_seconds
from mac_agent.engines.clustering import PieceEvidence, Policy
from mac_agent.engines.encoder import embed, load_encoder
from mac_agent.engines.filterbank import filter_bank
from mac_agent.engines.frames import FIVE_SECONDS, TEN_SECONDS
from mac_agent.engines.mel import mel_spectrogram
from mac_agent.engines.mel_cuts import cut_mels, subtract_noise
from mac_agent.engines.reconstruction import count_speakers, expect_speakers, windows_per_frame
from mac_agent.engines.segmentation import load_segmentation, load_segmentation_3, score
from mac_agent.engines.tracks import MAYBE_ACTIVE, cut_pieces, follow, heard_shares
from mac_agent.engines.utterances import embed_pieces
from mac_agent.weights.models import EMBEDDED, EMBEDDED_GE2E, GENERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform
    from mac_agent.engines.frames import WindowGrid
    from mac_agent.engines.tracks import Piece, Track
    from mac_agent.weights.models import WeightsFile

    ReportDone = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Who speaks in each window of a recording, and the pieces of speech that follow from it."""

    scores: NDArray[np.float16]
    """Shape ``(windows, frames, 3)``."""
    grid: WindowGrid
    talkers: NDArray[np.int8]
    """How many speak at each frame of the recording."""
    tracks: Sequence[Track]
    pieces: Sequence[Piece]


class Networks(Protocol):
    """A segmentation network and a speaker network."""

    name: str
    """The engine's name: which generation this is."""
    policy: Policy

    def segment(self, waveform: Waveform, report: ReportDone) -> Segmentation:
        """Find the pieces of speech."""
        ...

    def embed(self, waveform: Waveform, segmentation: Segmentation, report: ReportDone) -> PieceEvidence:
        """Embed these pieces."""
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


CAMPPLUS_POLICY = Policy(
    join_distance=0.235,
    small_voice_distance=0.24,
    start_distance=0.33,
    typical_cosine=0.6,
    # These embeddings decide by themselves: with the network's tracks as a second witness, more was wrong.
    contact_distance=0.0,
    change_in_utterance=0.0,
    change_after_pause=0.0,
    apart_in_window=0.0,
    counts_audio_once=True,
    divide_gain=0.035,
)
"""How it was chosen: docs/adr/0018-campplus.md."""


class Campplus:
    """segmentation-3.0 and CAM++ (docs/adr/0018-campplus.md)."""

    name = EMBEDDED
    policy = CAMPPLUS_POLICY

    def __init__(self, data_dir: Path, device: torch.device) -> None:
        self._segmentation = load_segmentation_3(data_dir, device)
        self._encoder = RowsOfCampplus(load_campplus(data_dir), device)

    def segment(self, waveform: Waveform, report: ReportDone) -> Segmentation:
        """See ``Networks``."""
        scores = score(self._segmentation, TEN_SECONDS, waveform, report)
        tracks = follow(scores, TEN_SECONDS)
        pieces = cut_pieces(tracks, MAYBE_ACTIVE)
        return Segmentation(scores, TEN_SECONDS, expect_speakers(scores, TEN_SECONDS), tracks, pieces)

    def embed(self, waveform: Waveform, segmentation: Segmentation, report: ReportDone) -> PieceEvidence:
        """See ``Networks``."""
        # Not by counting pieces: where windows disagree, two tracks may hold one voice at the same time.
        pieces, talkers = segmentation.pieces, segmentation.talkers
        embeddings, audio_s = embed_pieces(self._encoder, filter_bank(waveform), pieces, talkers, report)
        clean_s = np.array([clean_seconds(piece, talkers) for piece in pieces])
        heard = heard_shares(
            pieces, segmentation.tracks, windows_per_frame(len(segmentation.scores), segmentation.grid)
        )
        return PieceEvidence(pieces, segmentation.tracks, embeddings, audio_s=audio_s, clean_s=clean_s, heard=heard)


class Ge2e:
    """The segmentation network of 2022 and Resemblyzer's encoder (docs/adr/0005-embedded-engine.md)."""

    name = EMBEDDED_GE2E
    policy = Policy()

    def __init__(self, data_dir: Path, device: torch.device) -> None:
        self._segmentation = load_segmentation(data_dir, device)
        self._encoder = load_encoder(data_dir, device)

    def segment(self, waveform: Waveform, report: ReportDone) -> Segmentation:
        """See ``Networks``."""
        scores = score(self._segmentation, FIVE_SECONDS, waveform, report)
        tracks = follow(scores, FIVE_SECONDS)
        return Segmentation(scores, FIVE_SECONDS, count_speakers(scores, FIVE_SECONDS), tracks, cut_pieces(tracks))

    def embed(self, waveform: Waveform, segmentation: Segmentation, report: ReportDone) -> PieceEvidence:
        """See ``Networks``."""
        mels = subtract_noise(mel_spectrogram(waveform), segmentation.scores, segmentation.grid)
        cuts = cut_mels(waveform, len(mels), segmentation.pieces)
        return PieceEvidence(
            segmentation.pieces,
            segmentation.tracks,
            embed(self._encoder, mels, cuts, report),
            audio_s=np.array([len(cut.frames) / FRAMES_PER_S for cut in cuts]),
            clean_s=np.array([cut.clean_s for cut in cuts]),
            heard=np.ones(len(cuts)),
        )
