"""Decide which pieces are one voice. Pure functions on embeddings and on what the windows say.

Three steps, all on the same evidence:

1. *Start*: average linkage of clean pieces, stopped early, so that there are rather too many voices.
2. *Smooth*: every track is decoded (Viterbi) against the voices found; changing voice costs much within an
   utterance and little after a pause, and two tracks of one window do not like to share a voice.
3. *Join*: voices too small to be one are given up, the closest are joined; smooth again, until all are to stay.

How close two voices are is their *likeness*: the mean cosine between their pieces over the geometric mean of the mean
cosines within each (Spearman's correction for attenuation). It is scaled by the recording itself: halves of one voice
measure 0.95-1.02 whatever the channel, different voices up to 0.88, so one threshold serves all. What is cut off one
voice unevenly is further away than half of it, and is allowed to be. Where the network told two voices apart in
windows that hear both, they must be closer still to be one (docs/adr/0005-embedded-engine.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.special import ndtri

from mac_agent.engines.frames import HOP_FRAMES, WINDOW_FRAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mac_agent.engines.tracks import Piece, Track

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]


@dataclass(frozen=True)
class Policy:
    """The thresholds; one setting for all recordings; docs/adr/0005-embedded-engine.md says how they were chosen."""

    join_distance: float = 0.099
    """Two voices heard equally long are one where they are less than this apart (1 - likeness); see ``uneven_cut``."""
    small_voice_distance: float = 0.06
    """A voice of 1.6 s must be this much further away; the allowance falls as one over its seconds."""
    contact_distance: float = 0.1
    """Added where the network always tells two voices apart in windows that hear both."""
    start_distance: float = 0.12
    """Where the first average linkage stops, as 1 - cosine / ``typical_cosine``."""
    typical_cosine: float = 0.74
    """Mean cosine between pieces of one voice, where the recording has not shown its own yet."""
    sharpness: float = 40.0
    """Log-likelihood per unit of cosine: how far one piece is trusted."""
    change_in_utterance: float = 3.0
    """Cost, in nats, of changing voice without a pause."""
    change_after_pause: float = 2.0
    """Cost, in nats, of changing voice within a track after a pause."""
    apart_in_window: float = 4.0
    """Cost, in nats, of one voice on two tracks that the network tells apart in the same window."""
    least_voice_s: float = 1.0
    """A voice with less clean speech than this is not one."""


@dataclass(frozen=True, eq=False)
class PieceEvidence:
    """All that is known about the pieces of a recording, in the order of ``pieces``."""

    pieces: Sequence[Piece]
    tracks: Sequence[Track]
    embeddings: NDArray[np.float32]
    """Shape ``(pieces, dim)``, L2-normalised."""
    heard_s: NDArray[np.float64]
    """Seconds of audio behind each embedding."""
    clean_s: NDArray[np.float64]
    """Seconds of each piece in which nobody else speaks."""


@dataclass(frozen=True)
class VoiceCount:
    """How many voices the caller asks for at least and at most."""

    least: int = 1
    most: int | None = None


FULL_PIECE_S = 1.6
_CLEAN_PIECE_S = 0.5
_HEARD_PIECE_S = 1.0
_LEAST_SHARE = 0.02  # beyond this cut a rare voice would have to be too unlike anybody to be found
_SURELY_APART_WINDOWS = 3  # told apart in so many windows counts in full
_BLOCK_PIECES = 1500  # 15-20 minutes of speech: average linkage is quadratic, so long recordings start in blocks
_SMOOTHING_ROUNDS = 2
_PRIOR_PAIRS = 3.0  # pairs of pieces that the recording's mean counts for in a voice's own mean cosine
_PRIOR_PAIRS_TYPICAL = 30.0  # and that the typical cosine counts for in the recording's mean


def cluster(evidence: PieceEvidence, count: VoiceCount, policy: Policy) -> Labels:
    """Label every piece with a voice, 0-based and without holes, shape ``(pieces,)``. Deterministic."""
    if not evidence.pieces:
        return np.empty(0, dtype=np.intp)
    model = _Model(evidence, policy)
    labels = model.smooth(model.start())
    while True:
        joined = model.join(labels, count)
        if joined is None:
            return _compact(labels)
        labels = model.smooth(joined)


class _Model:
    """The evidence in the form the three steps need."""

    def __init__(self, evidence: PieceEvidence, policy: Policy) -> None:
        self.policy = policy
        self.embeddings = evidence.embeddings.astype(np.float64)
        heard = np.clip(evidence.heard_s / FULL_PIECE_S, 0.05, 1.0)
        self.clean_s = evidence.clean_s
        self.weights = heard * np.clip(2 * evidence.clean_s / FULL_PIECE_S, 0.05, 1.0)
        good = (evidence.heard_s >= _HEARD_PIECE_S) & (evidence.clean_s >= _CLEAN_PIECE_S)
        self.good = good if good.any() else np.ones(len(good), dtype=bool)
        self.utterance = np.array([piece.utterance for piece in evidence.pieces])
        self.first = np.array([piece.first for piece in evidence.pieces])
        self.last = np.array([piece.last for piece in evidence.pieces])
        track = np.array([piece.track for piece in evidence.pieces])
        self.by_track = [np.flatnonzero(track == number) for number in np.unique(track)]
        self.rivals = find_rivals(evidence.pieces, evidence.tracks)

    def start(self) -> Labels:
        """Average linkage of the good pieces, block by block in time; the others get -1."""
        labels = np.full(len(self.embeddings), -1, dtype=np.intp)
        good = np.flatnonzero(self.good)
        good = good[np.argsort(self.first[good], kind="stable")]
        found = 0
        for block in np.array_split(good, -(-len(good) // _BLOCK_PIECES)):
            labels[block] = found + self._link(block)
            found = int(labels.max()) + 1
        return labels

    def _link(self, chosen: Labels) -> Labels:
        """Average linkage of a few pieces, stopped at ``start_distance``."""
        if len(chosen) == 1:
            return np.zeros(1, dtype=np.intp)
        distance = 1.0 - self.embeddings[chosen] @ self.embeddings[chosen].T / self.policy.typical_cosine
        row = {piece: index for index, piece in enumerate(chosen.tolist())}
        for piece in chosen.tolist():
            for rival, strength in self.rivals[piece]:
                if rival in row:
                    distance[row[piece], row[rival]] += strength
        lowest = distance.min()
        distance -= lowest  # linkage wants no negative distances
        np.fill_diagonal(distance, 0.0)
        tree = linkage(squareform(distance, checks=False), "average")
        flat: Labels = fcluster(tree, self.policy.start_distance - lowest, "distance").astype(np.intp) - 1
        return flat

    def smooth(self, labels: Labels) -> Labels:
        """Decode every track against the voices found so far."""
        for _ in range(_SMOOTHING_ROUNDS):
            labels = _compact(labels)
            score = self.policy.sharpness * (self.embeddings @ self._centroids(labels).T) * self.weights[:, None]
            for track in self.by_track:
                labels[track] = self._decode(track, score[track], labels)
        return _compact(labels)

    def join(self, labels: Labels, count: VoiceCount) -> Labels | None:
        """Take away voices: those too small, or of every two closest that are one, the second; None: all stay."""
        n_voices = int(labels.max()) + 1
        if n_voices < 2:  # noqa: PLR2004 - a single voice has nobody to join
            return None
        seconds = self.seconds(labels)
        small = seconds < self.policy.least_voice_s
        if small.any() and not small.all():
            return np.where((labels >= 0) & small[labels], -1, labels)
        margin = self.margin(labels, seconds)
        np.fill_diagonal(margin, np.inf)
        nearest = margin.argmin(axis=1)
        mutual = [(one, int(other)) for one, other in enumerate(nearest) if one < other and nearest[other] == one]
        mutual.sort(key=lambda pair: float(margin[pair]))
        joined = labels.copy()
        for first, second in mutual:
            enough = 0.0 if n_voices > count.least else -self.policy.join_distance / 2
            too_many = count.most is not None and n_voices > count.most
            if margin[first, second] < enough or too_many:
                joined[joined == second] = first
                n_voices -= 1
        return joined if (joined != labels).any() else None

    def margin(self, labels: Labels, seconds: Floats) -> Floats:
        """Return how much further apart every two voices are than they must be to stay two."""
        policy = self.policy
        least = np.minimum.outer(seconds, seconds)
        noise = policy.small_voice_distance * FULL_PIECE_S / np.maximum(least, FULL_PIECE_S)
        allowed = policy.join_distance * uneven_cut(seconds) + noise
        return 1.0 - self.likeness(labels) + policy.contact_distance * self.contact(labels) - allowed

    def contact(self, labels: Labels) -> Floats:
        """Return how much of a voice is seen, by the network, as another than the other voice in the same window.

        Shape ``(voices, voices)``, 0..1: the larger share of the two voices.
        """
        n_voices = int(labels.max()) + 1
        met = np.zeros((n_voices, n_voices))
        used = np.flatnonzero(labels >= 0)
        for piece in used.tolist():
            strongest: dict[int, float] = {}
            for rival, strength in self.rivals[piece]:
                # What sounds at the same time may be one voice and its echo: only turns taken testify.
                if labels[rival] >= 0 and not self._together(piece, rival):
                    other = int(labels[rival])
                    strongest[other] = max(strength, strongest.get(other, 0.0))
            for other, strength in strongest.items():
                met[labels[piece], other] += strength * self.weights[piece]
        total = np.bincount(labels[used], self.weights[used], n_voices)
        share = met / np.maximum(total, 1e-9)[:, None]
        larger: Floats = np.maximum(share, share.T)
        return larger

    def _together(self, piece: int, rival: int) -> bool:
        return bool(self.first[piece] < self.last[rival] and self.first[rival] < self.last[piece])

    def seconds(self, labels: Labels) -> Floats:
        """Return how long each voice is heard clearly."""
        used = self.good & (labels >= 0)
        return np.bincount(labels[used], self.clean_s[used], int(labels.max()) + 1).astype(np.float64)

    def likeness(self, labels: Labels) -> Floats:
        """Return how alike every two voices are, 1 for halves of one voice."""
        sums, weight = self._sums(labels)
        inside, pairs = self._between_utterances(labels, sums, weight)
        prior = self.policy.typical_cosine
        pooled = (inside.sum() + prior * _PRIOR_PAIRS_TYPICAL) / (pairs.sum() + _PRIOR_PAIRS_TYPICAL)
        within = (inside + pooled * _PRIOR_PAIRS) / (pairs + _PRIOR_PAIRS)
        across = sums @ sums.T / np.maximum(np.outer(weight, weight), 1e-9)
        likeness: Floats = across / np.sqrt(np.outer(within, within))
        return likeness

    def _sums(self, labels: Labels) -> tuple[Floats, Floats]:
        """Return each voice's weighted sum of good embeddings, and its weight."""
        n_voices = int(labels.max()) + 1
        sums, weight = np.zeros((n_voices, self.embeddings.shape[1])), np.zeros(n_voices)
        used = np.flatnonzero(self.good & (labels >= 0))
        np.add.at(sums, labels[used], self.embeddings[used] * self.weights[used, None])
        np.add.at(weight, labels[used], self.weights[used])
        return sums, weight

    def _between_utterances(self, labels: Labels, sums: Floats, weight: Floats) -> tuple[Floats, Floats]:
        """Return each voice's summed cosine over pairs of pieces of different utterances, and the pairs' weight.

        Pieces of one utterance share audio and a moment: they are more alike than the voice is.
        """
        inside, pairs = (sums**2).sum(axis=1), weight**2
        used = np.flatnonzero(self.good & (labels >= 0))
        key = labels[used] * (int(self.utterance.max()) + 1) + self.utterance[used]
        groups, member = np.unique(key, return_inverse=True)
        own, own_weight = np.zeros((len(groups), sums.shape[1])), np.zeros(len(groups))
        np.add.at(own, member, self.embeddings[used] * self.weights[used, None])
        np.add.at(own_weight, member, self.weights[used])
        voice = groups // (int(self.utterance.max()) + 1)
        np.subtract.at(inside, voice, (own**2).sum(axis=1))
        np.subtract.at(pairs, voice, own_weight**2)
        return inside, pairs

    def _centroids(self, labels: Labels) -> Floats:
        sums, weight = self._sums(labels)
        for voice in np.flatnonzero(weight == 0):
            members = labels == voice
            sums[voice] = (self.embeddings[members] * self.weights[members, None]).sum(axis=0)
        centroids: Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        return centroids

    def _decode(self, track: NDArray[np.intp], score: Floats, labels: Labels) -> Labels:
        """Viterbi along one track, given the labels of the tracks beside it."""
        policy = self.policy
        for row, piece in enumerate(track.tolist()):
            for rival, strength in self.rivals[piece]:
                if labels[rival] >= 0:
                    score[row, labels[rival]] -= policy.apart_in_window * strength * max(self.weights[rival], 0.2)
        best = score[0]
        back: list[NDArray[np.intp]] = []
        voices = np.arange(score.shape[1])
        for row in range(1, len(track)):
            same_utterance = self.utterance[track[row]] == self.utterance[track[row - 1]]
            cost = policy.change_in_utterance if same_utterance else policy.change_after_pause
            leader = int(best.argmax())
            back.append(np.where(best >= best[leader] - cost, voices, leader))
            best = np.maximum(best, best[leader] - cost) + score[row]
        path = [int(best.argmax())]
        for came_from in reversed(back):
            path.append(int(came_from[path[-1]]))
        return np.array(path[::-1], dtype=np.intp)


def uneven_cut(seconds: Floats) -> Floats:
    """Return how much further apart than its halves the two parts of one voice are, cut in these proportions.

    Cutting a normal distribution so that a share p lies beyond the cut leaves the means of the two parts
    ``pdf(z) / (p (1 - p))`` standard deviations apart: 1.6 for halves, 2.7 for a hundredth. Distances are its squares.
    """
    total = np.maximum(np.add.outer(seconds, seconds), 1e-9)
    share = np.clip(np.minimum.outer(seconds, seconds) / total, _LEAST_SHARE, 0.5)
    density = np.exp(-(ndtri(share) ** 2) / 2) / np.sqrt(2 * np.pi)
    parts: Floats = (density / (share * (1 - share))) ** 2 * np.pi / 8
    return parts


def find_rivals(pieces: Sequence[Piece], tracks: Sequence[Track]) -> list[list[tuple[int, float]]]:
    """For every piece, the pieces that the network tells apart from it in windows that see both, and how often.

    Returns:
        Per piece, (index of the other piece, strength 0..1; 1 from three common windows on).
    """
    rivals: list[list[tuple[int, float]]] = [[] for _ in pieces]
    order = sorted(range(len(pieces)), key=lambda index: (pieces[index].first, index))
    for position, left in enumerate(order):
        one = pieces[left]
        for right in order[position + 1 :]:
            other = pieces[right]
            if other.first - one.first > WINDOW_FRAMES:
                break
            if other.track == one.track:
                continue
            strength = min(1.0, _common_windows(one, other, tracks) / _SURELY_APART_WINDOWS)
            if strength > 0:
                rivals[left].append((right, strength))
                rivals[right].append((left, strength))
    return rivals


def _common_windows(one: Piece, other: Piece, tracks: Sequence[Track]) -> int:
    """Return in how many windows both tracks exist and both pieces are seen whole."""
    ends = max(one.last, other.last)
    earliest = max(
        tracks[one.track].first_window, tracks[other.track].first_window, -(-(ends - WINDOW_FRAMES) // HOP_FRAMES)
    )
    starts = min(one.first, other.first)
    latest = min(tracks[one.track].last_window, tracks[other.track].last_window, starts // HOP_FRAMES)
    return max(0, latest - earliest + 1)


def _compact(labels: Labels) -> Labels:
    """Renumber voices without holes; -1 stays."""
    used = np.unique(labels[labels >= 0])
    compacted: Labels = np.where(labels >= 0, np.searchsorted(used, labels), -1)
    return compacted
