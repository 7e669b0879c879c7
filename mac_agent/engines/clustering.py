"""Cluster pieces into voices, from their embeddings and from the segmentation scores. Pure functions.

Four steps, all on the same evidence:

1. *Start*: average linkage of clean pieces, stopped early, so that it finds too many voices rather than too few.
2. *Smooth*: every track is decoded (Viterbi) against the voices found. Changing voice costs much within an utterance
   and little after a pause, and two tracks in one window pay a cost for having the same voice.
3. *Join*: voices with too little speech are dissolved, and the closest voices are joined. Smooth again, and repeat
   until no voice is taken away.
4. *Divide*: a voice that holds two alike ones is divided (``division``), if the join would not take it back.

How close two voices are is measured by their *likeness*: the mean cosine between their pieces, divided by the geometric
mean of the mean cosines within each (Spearman's correction for attenuation). This makes it independent of the channel:
halves of one voice have 0.95 to 1.02 and different voices at most 0.88, so one threshold fits all recordings. Unequal
parts of one voice are further apart than halves of it, so the threshold depends on the proportion. Where the network
separated two voices in windows that contain both, they must be closer still to be joined
(docs/adr/0005-embedded-engine.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.special import ndtri

from mac_agent.engines.division import find_second_voice
from mac_agent.engines.rivals import find_rivals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mac_agent.engines.tracks import Piece, Track

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]


@dataclass(frozen=True)
class Policy:
    """The thresholds, the same for all recordings. docs/adr/0005-embedded-engine.md describes how they were chosen."""

    join_distance: float = 0.099
    """Two voices with equally much speech are joined below this distance (1 - likeness); see ``uneven_cut``."""
    small_voice_distance: float = 0.06
    """Added to that for a voice of 1.6 s; for a longer one, the addition falls as one over its seconds."""
    contact_distance: float = 0.1
    """Added to the distance of two voices that the network always separates in windows that contain both."""
    start_distance: float = 0.12
    """Where the first average linkage stops, as 1 - cosine / ``typical_cosine``."""
    typical_cosine: float = 0.74
    """Mean cosine between pieces of one voice, until the recording has enough pairs of pieces to estimate its own."""
    sharpness: float = 40.0
    """Log-likelihood per unit of cosine: the weight of the embedding of one piece."""
    change_in_utterance: float = 3.0
    """Cost, in nats, of changing voice without a pause."""
    change_after_pause: float = 2.0
    """Cost, in nats, of changing voice within a track after a pause."""
    apart_in_window: float = 4.0
    """Cost, in nats, of the same voice on two tracks that the network separates in one window."""
    least_voice_s: float = 1.0
    """A voice with less clean speech than this is dissolved."""
    counts_audio_once: bool = False
    """Utterances that sound at the same time, on several tracks, count as one where pairs within one are left out, and
    a piece counts by the share of the windows that heard it on its track."""
    divide_gain: float | None = None
    """A voice is divided where pieces are at least so much nearer, in cosine, to their part of it than to all of it."""


@dataclass(frozen=True, eq=False)
class PieceEvidence:
    """The pieces of a recording with their embeddings; all arrays are in the order of ``pieces``."""

    pieces: Sequence[Piece]
    tracks: Sequence[Track]
    embeddings: NDArray[np.float32]
    """Shape ``(pieces, dim)``, L2-normalised."""
    audio_s: NDArray[np.float64]
    """Seconds of audio from which each embedding was computed."""
    clean_s: NDArray[np.float64]
    """Seconds of each piece in which nobody else speaks."""
    heard: NDArray[np.float64]
    """Share of the windows around each piece that have it on its track; the others have it on another one, or not."""


@dataclass(frozen=True)
class VoiceCount:
    """How many voices the caller asks for at least and at most."""

    least: int = 1
    most: int | None = None


FULL_PIECE_S = 1.6
_GOOD_CLEAN_S = 0.5
_GOOD_AUDIO_S = 1.0
_LEAST_SHARE = 0.02  # with a smaller share, a rare voice would have to be too unlike all others to be found
_LEAST_HEARD = 0.02  # so that a voice of which few windows hear anything still has a mean
_BLOCK_PIECES = 1500  # 15-20 minutes of speech: average linkage is quadratic, so long recordings start in blocks
_SMOOTHING_ROUNDS = 2
_PRIOR_PAIRS = 3.0  # weight, in pairs of pieces, of the recording's mean cosine in that of one voice
_PRIOR_PAIRS_TYPICAL = 30.0  # weight, in pairs of pieces, of the typical cosine in the recording's mean


def cluster(evidence: PieceEvidence, count: VoiceCount, policy: Policy) -> Labels:
    """Label every piece with a voice, numbered from 0 without gaps, shape ``(pieces,)``. Deterministic."""
    if not evidence.pieces:
        return np.empty(0, dtype=np.intp)
    model = _Model(evidence, policy)
    labels = model.settle(model.start(), count)
    while (divided := model.divide(labels, count)) is not None:
        settled = model.settle(divided, count)
        if settled.max() <= labels.max():
            break
        labels = settled
    return labels


class _Model:
    """The evidence in the form the three steps need."""

    def __init__(self, evidence: PieceEvidence, policy: Policy) -> None:
        self.policy = policy
        self.embeddings = evidence.embeddings.astype(np.float64)
        share = np.clip(evidence.audio_s / FULL_PIECE_S, 0.05, 1.0)
        heard = np.clip(evidence.heard, _LEAST_HEARD, 1.0) if policy.counts_audio_once else np.ones(len(share))
        self.clean_s = evidence.clean_s * heard
        self.weights = heard * share * np.clip(2 * evidence.clean_s / FULL_PIECE_S, 0.05, 1.0)
        good = (evidence.audio_s >= _GOOD_AUDIO_S) & (evidence.clean_s >= _GOOD_CLEAN_S)
        self.good = good if good.any() else np.ones(len(good), dtype=bool)
        self.utterance = np.array([piece.utterance for piece in evidence.pieces])
        self.heard = join_utterances(evidence.pieces) if policy.counts_audio_once else self.utterance
        self.first = np.array([piece.first for piece in evidence.pieces])
        self.last = np.array([piece.last for piece in evidence.pieces])
        track = np.array([piece.track for piece in evidence.pieces])
        self.by_track = [np.flatnonzero(track == number) for number in np.unique(track)]
        self.rivals = find_rivals(evidence.pieces, evidence.tracks)

    def start(self) -> Labels:
        """Cluster the good pieces by average linkage, block by block in time; the other pieces get -1."""
        labels = np.full(len(self.embeddings), -1, dtype=np.intp)
        good = np.flatnonzero(self.good)
        good = good[np.argsort(self.first[good], kind="stable")]
        found = 0
        for block in np.array_split(good, -(-len(good) // _BLOCK_PIECES)):
            labels[block] = found + self._link(block)
            found = int(labels.max()) + 1
        return labels

    def _link(self, chosen: Labels) -> Labels:
        """Cluster a few pieces by average linkage, stopped at ``start_distance``."""
        if len(chosen) == 1:
            return np.zeros(1, dtype=np.intp)
        distance = 1.0 - self.embeddings[chosen] @ self.embeddings[chosen].T / self.policy.typical_cosine
        row = {piece: index for index, piece in enumerate(chosen.tolist())}
        for piece in chosen.tolist():
            for rival, strength in self.rivals[piece]:
                if rival in row:
                    distance[row[piece], row[rival]] += strength
        lowest = distance.min()
        distance -= lowest  # linkage takes no negative distances
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

    def settle(self, labels: Labels, count: VoiceCount) -> Labels:
        """Smooth and join in turn until no voice is taken away."""
        labels = self.smooth(labels)
        while (joined := self.join(labels, count)) is not None:
            labels = self.smooth(joined)
        return _compact(labels)

    def divide(self, labels: Labels, count: VoiceCount) -> Labels | None:
        """Divide every voice that is two; None where none is, or where no more voices are asked for."""
        if self.policy.divide_gain is None:
            return None
        divided = labels
        for voice in range(int(labels.max()) + 1):
            if count.most is not None and int(divided.max()) + 1 >= count.most:
                break
            pieces = np.flatnonzero(self.good & (labels == voice))
            second = find_second_voice(
                self.embeddings[pieces], self.weights[pieces], self.heard[pieces], self.policy.divide_gain
            )
            if second is None:
                continue
            tried = divided.copy()
            tried[pieces[second]] = divided.max() + 1
            if self.margin(tried, self.seconds(tried))[voice, -1] >= 0:
                divided = tried
        return divided if divided is not labels else None

    def join(self, labels: Labels, count: VoiceCount) -> Labels | None:
        """Dissolve the voices with too little speech; if there are none, join mutually nearest voices that are close.

        Returns:
            The new labels; None where nothing changes.
        """
        n_voices = int(labels.max()) + 1
        if n_voices < 2:  # noqa: PLR2004 - a single voice has no other to be joined with
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
        """Return by how much the distance of every two voices exceeds the one below which they are joined."""
        policy = self.policy
        least = np.minimum.outer(seconds, seconds)
        noise = policy.small_voice_distance * FULL_PIECE_S / np.maximum(least, FULL_PIECE_S)
        allowed = policy.join_distance * uneven_cut(seconds) + noise
        return 1.0 - self.likeness(labels) + policy.contact_distance * self.contact(labels) - allowed

    def contact(self, labels: Labels) -> Floats:
        """Return what share of two voices the network separated from the other voice in the same window.

        Shape ``(voices, voices)``, 0..1: the larger of the shares of the two voices.
        """
        n_voices = int(labels.max()) + 1
        met = np.zeros((n_voices, n_voices))
        used = np.flatnonzero(labels >= 0)
        for piece in used.tolist():
            strongest: dict[int, float] = {}
            for rival, strength in self.rivals[piece]:
                # Pieces that sound at the same time may be a voice and its echo, so only successive ones count.
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
        """Return the seconds of clean speech of each voice."""
        used = self.good & (labels >= 0)
        return np.bincount(labels[used], self.clean_s[used], int(labels.max()) + 1).astype(np.float64)

    def likeness(self, labels: Labels) -> Floats:
        """Return the likeness of every two voices, about 1 for halves of one voice."""
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

        Pairs within an utterance are left out: they share audio and conditions, so they are more alike than the voice
        is as a whole.
        """
        inside, pairs = (sums**2).sum(axis=1), weight**2
        used = np.flatnonzero(self.good & (labels >= 0))
        key = labels[used] * (int(self.heard.max()) + 1) + self.heard[used]
        groups, member = np.unique(key, return_inverse=True)
        own, own_weight = np.zeros((len(groups), sums.shape[1])), np.zeros(len(groups))
        np.add.at(own, member, self.embeddings[used] * self.weights[used, None])
        np.add.at(own_weight, member, self.weights[used])
        voice = groups // (int(self.heard.max()) + 1)
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
        """Label the pieces of one track by the Viterbi algorithm, given the labels of the other tracks."""
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


def join_utterances(pieces: Sequence[Piece]) -> Labels:
    """Return the utterance of each piece, those that overlap in time as one.

    Where windows disagree, as they do in noise, one voice is on several tracks at once. Pairs of these pieces share
    their audio: counted as pairs of different utterances, they would make the voice seem more alike than it is.
    """
    spans: dict[int, tuple[int, int]] = {}
    for piece in pieces:
        first, last = spans.get(piece.utterance, (piece.first, piece.last))
        spans[piece.utterance] = (min(first, piece.first), max(last, piece.last))
    joined: dict[int, int] = {}
    number, end = -1, -1
    for utterance, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
        number, end = (number, max(end, last)) if first < end else (number + 1, last)
        joined[utterance] = number
    return np.array([joined[piece.utterance] for piece in pieces], dtype=np.intp)


def uneven_cut(seconds: Floats) -> Floats:
    """Return how many times further apart the two parts of one voice are, cut in these proportions, than its halves.

    If a normal distribution is cut so that a share p lies beyond the cut, the means of the two parts are
    ``pdf(z) / (p (1 - p))`` standard deviations apart: 1.6 for halves, 2.7 for a hundredth. Distances grow as the
    square of that.
    """
    total = np.maximum(np.add.outer(seconds, seconds), 1e-9)
    share = np.clip(np.minimum.outer(seconds, seconds) / total, _LEAST_SHARE, 0.5)
    density = np.exp(-(ndtri(share) ** 2) / 2) / np.sqrt(2 * np.pi)
    parts: Floats = (density / (share * (1 - share))) ** 2 * np.pi / 8
    return parts


def _compact(labels: Labels) -> Labels:
    """Renumber voices without gaps; -1 stays."""
    used = np.unique(labels[labels >= 0])
    compacted: Labels = np.where(labels >= 0, np.searchsorted(used, labels), -1)
    return compacted
